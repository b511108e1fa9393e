"""Figures of a run: curves, confusion, weights, mistakes.

Each function returns a matplotlib figure and, given a path, writes a PNG. `xpnet plot RUN` draws all of them for
a run of the command line.
"""

import numpy as np

import xpnet
from xpnet import plots
from xpnet.backend import get_backend
from xpnet.data import load, stratified_split
from xpnet.metrics import confusion_matrix

digits = load("digits")
train, valid = stratified_split(digits.y_train, 0.2, seed=0)
model = xpnet.MLP([64, 36, 10], activation="tanh", seed=0)
model.preprocessing = digits.preprocessing
history = xpnet.fit(
    model, (digits.x_train[train], digits.y_train[train]),
    validation=(digits.x_train[valid], digits.y_train[valid]), epochs=12, batch_size=32, l2=1e-3,
)  # fmt: skip

probability = model.predict_proba(digits.x_test)
said = probability.argmax(axis=1)
be = get_backend("cpu")
counts = confusion_matrix(be, be.asarray(digits.y_test), be.asarray(said), 10)

plots.curves(history, "curves.png", loss=model.loss)
plots.confusion(counts, digits.classes, "confusion.png")
plots.first_layer(model.get_weights()["layers.0.weight"], (8, 8), "first_layer.png")
plots.mistakes(
    digits.x_test, digits.y_test, said, probability, digits.classes, (8, 8), "mistakes.png", n=10,
)  # fmt: skip
print(f"{np.count_nonzero(said != digits.y_test)} mistakes on {len(said)} test digits")
print("most often confused:", *np.unravel_index(np.argmax(counts - np.diag(np.diag(counts))), counts.shape))
