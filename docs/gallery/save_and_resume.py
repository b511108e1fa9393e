"""Saving, loading and resuming.

`save` writes one safetensors file: weights, architecture, preprocessing and class names, no pickle. To go on
with training later, save the state of the `Trainer`; a run that was interrupted ends with the same weights, bit for
bit, as one that was not. (`xpnet train` does all of this by itself: `xpnet train --resume RUN`.)
"""

from pathlib import Path

import numpy as np

import xpnet
from xpnet.checkpoint import load_tensors, save_tensors

rng = np.random.default_rng(0)
X = rng.normal(size=(300, 4))
y = (X[:, 0] * X[:, 1] > 0).astype(int)


def trainer(epochs):
    model = xpnet.MLP([4, 32, 2], activation="tanh", dropout=0.1, seed=7)
    return xpnet.Trainer(model, (X, y), optimizer=xpnet.Adam(lr=0.01), epochs=epochs, batch_size=32)


whole = trainer(20)
whole.run()

first = trainer(8)
first.run()
save_tensors("state.safetensors", *first.state())

second = trainer(20)
second.load_state(*load_tensors("state.safetensors"))
history = second.run()
print(f"went on from epoch 8 to {second.epoch}; loss {history[-1]['train_loss']:.4f}")
print("the same weights, bit for bit:", np.array_equal(whole.model.weights, second.model.weights))

second.model.save("model.safetensors", extra={"note": "trained in two parts"})
model = xpnet.load("model.safetensors")
print(f"the file: sizes {model.sizes}, task {model.task}, loss {model.loss}")
print("predicts the same:", np.array_equal(model.predict_proba(X), second.model.predict_proba(X)))

damaged = bytearray(Path("model.safetensors").read_bytes())
damaged[-1] ^= 1
Path("damaged.safetensors").write_bytes(damaged)
try:
    xpnet.load("damaged.safetensors")
except xpnet.FileFormatError as error:
    print("one wrong bit:", str(error)[:60], "...")
