"""A first network: handwritten digits.

1797 digits of 8 x 8 pixels, one hidden layer, 15 epochs. The best weights on the validation digits stay in
the model; the test digits have no say in anything.
"""

import xpnet
from xpnet.data import load, stratified_split

digits = load("digits")
train, valid = stratified_split(digits.y_train, 0.1, seed=0)

model = xpnet.MLP([64, 100, 10], activation="relu", seed=0)
model.preprocessing = digits.preprocessing  # flatten, then divide by 16: from now on part of the model
model.classes = digits.classes

history = xpnet.fit(
    model,
    (digits.x_train[train], digits.y_train[train]),
    validation=(digits.x_train[valid], digits.y_train[valid]),
    optimizer=xpnet.Adam(lr=3e-3),
    epochs=15,
    batch_size=32,
)
print(f"{model.n_parameters} parameters; best after epoch {history.best_epoch} of {len(history)}")

test = xpnet.evaluate(model, (digits.x_test, digits.y_test))
print(f"test: loss {test['loss']:.3f}, accuracy {test['accuracy']:.3f}")

probability = model.predict_proba(digits.x_test[:5])
for truth, said, p in zip(digits.y_test, probability.argmax(axis=1), probability, strict=False):
    print(f"a {truth}: the network says {said}, sure to {p.max():.0%}")
