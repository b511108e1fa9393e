"""Soft labels, and weights of classes and samples.

Targets may be probabilities, where nobody knows the label for certain. Rare classes count more with
`class_weight="balanced"`, doubtful samples less with `sample_weight`.
"""

import numpy as np

import xpnet

rng = np.random.default_rng(0)
X = rng.normal(size=(3000, 2))
chance = 1 / (1 + np.exp(6 - 3 * X[:, 0] - X[:, 1]))  # of being ill: about one in twelve
ill = (rng.uniform(size=3000) < chance).astype(int)
train, test = slice(0, 2000), slice(2000, 3000)


def network():
    return xpnet.MLP([2, 16, 2], activation="tanh", seed=0)


options = {"optimizer": xpnet.Adam(lr=0.01), "epochs": 15, "batch_size": 64, "loss": "softmax_cross_entropy"}
for weight in (None, "balanced", {0: 1.0, 1: 3.0}):
    model = network()
    xpnet.fit(model, (X[train], ill[train]), class_weight=weight, **options)
    said = model.predict(X[test])
    found, alarms = said[ill[test] == 1].mean(), said[ill[test] == 0].mean()
    print(f"class_weight={weight!s:<18} finds {found:.0%} of the ill, alarms {alarms:.0%} of the healthy")

# Numbers in y mean a regression, unless it is said that they are probabilities of classes.
soft = np.column_stack([1 - chance, chance])  # what a panel of doctors would say
for name, targets in (("labels", ill[train]), ("soft labels", soft[train])):
    model = network()
    xpnet.fit(model, (X[train], targets), task="classification", **options)
    off = np.abs(model.predict_proba(X[test])[:, 1] - chance[test]).mean()
    print(f"{name:<12} probabilities are off by {off:.3f} in the mean")

trust = np.where(X[train][:, 1] > 0, 1.0, 0.1)  # half of the samples are from a less reliable source
history = xpnet.fit(network(), (X[train], ill[train]), sample_weight=trust, **options)
print(f"with sample weights: loss {history[-1]['train_loss']:.3f}")
