"""Schedules, and stopping early with a validation set.

A schedule multiplies the learning rate from update to update; with `patience` training stops once the
validation set sees no more progress. The model then has the weights of its best epoch.
"""

import numpy as np

import xpnet
from xpnet.schedules import Cosine, OneCycle, ReduceOnPlateau, Step

rng = np.random.default_rng(3)
X = rng.normal(size=(1200, 6))
y = (X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=1200) > 0).astype(int)  # two features matter, four do not
train, valid = (X[:800], y[:800]), (X[800:], y[800:])

print(f"{'schedule':<30} {'stopped by':<15} epochs  best  loss of valid")
for schedule in (
    None,
    Step(every=10, factor=0.3),
    Cosine(warmup=0.1),
    OneCycle(rise=0.3),
    ReduceOnPlateau(factor=0.5, patience=3),
):
    model = xpnet.MLP([6, 32, 2], activation="tanh", seed=0)
    history = xpnet.fit(
        model, train, validation=valid, monitor="valid_loss", patience=8, schedule=schedule,
        optimizer=xpnet.Adam(lr=0.01), epochs=60, batch_size=32,
    )  # fmt: skip
    loss = xpnet.evaluate(model, valid)["loss"]  # of the best epoch, not of the last
    name = "constant" if schedule is None else type(schedule).__name__
    print(f"{name:<30} {history.stopped:<15} {len(history):>6}  {history.best_epoch:>4}  {loss:.3f}")
    assert np.isclose(loss, min(history.column("valid_loss")), rtol=1e-5)
