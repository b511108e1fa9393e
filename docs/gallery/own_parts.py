"""An activation and a layer of your own.

An activation is a formula and its derivative; a layer has a forward and a backward pass, one under the other. Both
speak to the back end only, so they run on every device, and `check_gradients` says whether they are right. A file
keeps names and no code: who opens it gives the parts again.
"""

import os
import tempfile

import numpy as np

import xpnet
from xpnet.activations import Activation
from xpnet.layers import Layer
from xpnet.testing import check_gradients

# the derivative is given in terms of the output y = z / sqrt(1 + z^2), so that z need not be kept
isru = Activation(
    "isru",
    lambda ns, z: z / ns.sqrt(1.0 + z * z),
    lambda ns, y: (1.0 - y * y) * ns.sqrt(1.0 - y * y),
)


class Centred(Layer):
    """y = x minus the mean of its features."""

    def __init__(self, n):
        self.n_in = self.n_out = n

    def forward(self, x, c):
        return self._centred(x, c, out=c.buffer("y", self.n_out))

    def backward(self, dy, c, *, need_dx):
        return self._centred(dy, c, out=dy) if need_dx else None  # the same again: the matrix is symmetric

    def _centred(self, x, c, out):
        total = c.be.sum(x, axis=-1, out=c.buffer("total", 1)[..., 0])
        return c.be.map(self._minus_mean, x, c.be.xp.expand_dims(total, axis=-1), out=out)

    def _minus_mean(self, ns, x, total):
        return x - total * (1.0 / self.n_in)


class CentredMLP(xpnet.MLP):
    """Centres what goes into the last layer."""

    def make_layers(self):
        *hidden, last = super().make_layers()
        return [*hidden, Centred(last.n_in), last]


rng = np.random.default_rng(0)
x = rng.normal(size=(600, 2))
y = (np.hypot(x[:, 0], x[:, 1]) < 1.2).astype(int)

small = CentredMLP([2, 5, 2], activation=isru, dtype="float64")
print(f"largest error of a gradient: {check_gradients(small, x[:20], y[:20]):.0e}")

model = CentredMLP([2, 32, 2], activation=isru, seed=0)
xpnet.fit(model, (x[:400], y[:400]), lr=0.01, epochs=60, batch_size=20)
print(f"test accuracy {xpnet.evaluate(model, (x[400:], y[400:]))['accuracy']:.2f}")

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "model.safetensors")
    model.save(path)
    again = xpnet.load(path, own=[isru], kind=CentredMLP)
print("the same predictions from the file:", np.array_equal(again.predict(x), model.predict(x)))
