"""Samples and targets of every kind for estimators, and a check of all of them on data that lie elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from xpnet import MLPClassifier, MLPRegressor
from xpnet.interchange import to_host

RNG = np.random.default_rng(0)
N = 300
X = RNG.normal(size=(N, 8))
X[3, 2] = 1e9  # an outlier, which grows like a logarithm
X[:, 5] = RNG.random(N) < 0.01  # mostly one value
X[:, 6] = 7.0
CLASSES = np.arange(N) % 3
LABELS = (CLASSES[:, None] == np.arange(3)).astype(np.int64)
NUMBERS = X[:, 0] + 0.1 * RNG.normal(size=N)
WEIGHTS = RNG.integers(0, 3, N).astype(np.float64)
QUICK = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0}
TARGETS = {
    "classes": (MLPClassifier, CLASSES),
    "labels": (MLPClassifier, LABELS),
    "numbers": (MLPRegressor, NUMBERS),
    "several numbers": (MLPRegressor, np.stack([NUMBERS, NUMBERS**2], axis=1)),
}


def check_all(into, same_place):
    """Every target, with and without weights, as on the host; `into` brings arrays to a device."""
    for kind, y in TARGETS.values():
        for w in (None, WEIGHTS):
            options = {**QUICK, "early_stopping": True}
            estimator = kind(**options).fit(into(X), into(y), None if w is None else into(w))
            expected = kind(**options).fit(X, y, w)
            assert np.allclose(estimator.loss_curve_, expected.loss_curve_, rtol=1e-6)
            for method in ("predict", "predict_proba") if kind is MLPClassifier else ("predict",):
                answer = getattr(estimator, method)(into(X))
                assert same_place(answer, into(X))
                assert np.allclose(to_host(answer), getattr(expected, method)(X), rtol=1e-6)
            assert estimator.score(into(X), into(y)) == pytest.approx(expected.score(X, y))
