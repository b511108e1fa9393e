"""A loss of your own.

A loss is two formulas of one output h and its target t: the value and its derivative by h. They are written
with the names that every back end knows (`abs exp expm1 log log1p sqrt square tanh sin cos floor erf maximum
minimum where sign`), so they run, and compile, everywhere. `check_gradients` says whether the derivative is right.
"""

import numpy as np

import xpnet
from xpnet.losses import Loss
from xpnet.testing import check_gradients


def value(ns, h, t):  # log cosh(h - t): round at 0 like the square, straight far away like the absolute value
    size = ns.where(h < t, t - h, h - t)  # not abs: the check below goes through complex numbers
    return size + ns.log1p(ns.exp(-2.0 * size)) - np.log(2.0)


def slope(ns, h, t):
    return ns.tanh(h - t)


log_cosh = Loss("log_cosh", value, slope, regress=True)

rng = np.random.default_rng(0)
x = rng.uniform(-2, 2, size=(400, 1))
y = np.sin(2 * x)
noisy = np.where(
    rng.uniform(size=y.shape) < 0.1, y + 20 * rng.uniform(size=y.shape), y
)  # one in ten is far off

small = xpnet.MLP([1, 4, 1], activation="tanh", dtype="float64")
print(f"largest error of a gradient: {check_gradients(small, x[:20], noisy[:20], loss=log_cosh):.0e}")

for loss in ("squared_error", log_cosh):
    model = xpnet.MLP([1, 32, 1], activation="tanh", seed=0)
    xpnet.fit(model, (x, noisy), loss=loss, optimizer=xpnet.Adam(lr=0.01), epochs=40, batch_size=20)
    error = np.abs(model.predict(x) - y).mean()
    print(
        f"{loss if isinstance(loss, str) else loss.name:<15} mean distance from the clean curve {error:.2f}"
    )
