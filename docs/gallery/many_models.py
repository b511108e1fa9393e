"""Many models in one call: seeds and learning rates.

`fit_many` trains a list of configurations on the same data. Each member is exactly the model that `fit` would
give for these settings alone, so a comparison of learning rates over several seeds is one call.
"""

import numpy as np

import xpnet

rng = np.random.default_rng(0)
X = rng.normal(size=(600, 2))
y = (np.sin(3 * X[:, 0]) > X[:, 1]).astype(int)

rates = [0.001, 0.01, 0.1]
population = xpnet.fit_many(
    [{"lr": lr, "seed": seed} for lr in rates for seed in range(5)],
    (X[:400], y[:400]),
    validation=(X[400:], y[400:]),
    sizes=[2, 32, 2],
    activation="tanh",
    epochs=25,
    batch_size=32,
)

for lr in rates:
    scores = [member.score for member in population if member.configuration["lr"] == lr]
    print(f"lr {lr:<6} validation accuracy {np.mean(scores):.3f} +- {np.std(scores):.3f}")

for member in population.ranking()[:3]:
    settings = member.configuration
    print(f"lr {settings['lr']}, seed {settings['seed']}: {member.score:.3f} after epoch {member.best_epoch}")

model = population.best.model
print("the best is an ordinary model:", model.predict(X[:5]).tolist())
