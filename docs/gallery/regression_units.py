"""Regression in your own units.

A pendulum: its length in millimetres, its mass in tonnes, its period in microseconds. `MLPRegressor` scales
features and target inside, so units need no care, and predictions come in the units of the target. With
`scale_target=False` the numbers go to the network as they are, and the loss is in squared microseconds.
"""

import numpy as np

import xpnet

rng = np.random.default_rng(0)
length = rng.uniform(100, 2000, size=600)  # mm
mass = rng.uniform(1e-4, 5e-3, size=600)  # tonnes; of no importance, as the network will find out
period = 2 * np.pi * np.sqrt(length / 1000 / 9.81) * 1e6  # microseconds
X, y = np.column_stack([length, mass]), period + rng.normal(0, 10_000, size=600)

network = xpnet.MLPRegressor((64, 64), max_iter=60, random_state=0).fit(X[:500], y[:500])
error = network.predict(X[500:]) - period[500:]
print(f"typical error: {np.abs(error).mean() / 1000:.1f} ms of {period.mean() / 1000:.0f} ms")

seconds = xpnet.MLPRegressor((64, 64), max_iter=60, random_state=0).fit(X[:500] / 1000, y[:500] / 1e6)
agree = np.allclose(seconds.predict(X[500:] / 1000), network.predict(X[500:]) / 1e6, rtol=1e-3)
print(f"the same fit in metres and seconds predicts the same: {agree}")

high = xpnet.MLPRegressor((64, 64), max_iter=60, loss="quantile:0.9", random_state=0).fit(X[:500], y[:500])
print(f"below the 90 % quantile lie {(y[500:] < high.predict(X[500:])).mean():.0%} of new periods")
