"""Another array library.

Any namespace that follows the Array API standard can do the arithmetic: here `array_api_strict`, which does
that and nothing more. A class of your own overrides what its library does better; `check_backend` says
whether it is right.
"""

import time

import array_api_strict
import numpy as np

import xpnet
from xpnet.backend.reference import ReferenceBackend
from xpnet.testing import check_backend


class Stopwatch(ReferenceBackend):
    """NumPy, with the time that matrix products take."""

    seconds = 0.0

    def matmul(self, a, b, *, ta=False, tb=False, out):
        started = time.perf_counter()
        a, b = (np.swapaxes(m, -1, -2) if turned else m for m, turned in ((a, ta), (b, tb)))
        np.matmul(a, b, out=out)
        self.seconds += time.perf_counter() - started
        return out


rng = np.random.default_rng(0)
x = rng.normal(size=(200, 2))
y = (x[:, 0] * x[:, 1] > 0).astype(int)

mine = Stopwatch(np)
for device in ("cpu", array_api_strict, mine):
    model = xpnet.MLP([2, 16, 2], activation="tanh", device=device, dtype="float64", seed=1)
    history = xpnet.fit(model, (x, y), optimizer=xpnet.Adam(lr=0.03), epochs=6, batch_size=20)
    print(f"{model.be!r:<60} loss {history[-1]['train_loss']:.6f}")
print(f"of which in matrix products: {mine.seconds:.3f} s")
print(f"{check_backend(mine)} results compared with the reference, all alike")
