"""scikit-learn's network, driven step by step."""

from __future__ import annotations

from itertools import cycle, islice

import numpy as np

from ..grid import BETA1, BETA2, EPS, MOMENTUM
from ..problem import Problem
from .side import Side


class Sklearn(Side):
    """scikit-learn's MLPClassifier on float32: its own `_backprop` and optimizer on each batch.

    That leaves out the checks of `partial_fit`, which cost more than a whole step of a small network; it is
    the loop that `fit` runs inside.
    """

    name = "sklearn"
    needs = ("sklearn",)

    def __init__(self, problem: Problem):
        from sklearn.neural_network import MLPClassifier

        super().__init__(problem)
        self.clf = MLPClassifier(
            self.row.sizes[1:-1], solver=self.row.optimizer, alpha=0.0, batch_size=self.row.batch,
            learning_rate_init=self.lr, momentum=MOMENTUM, nesterovs_momentum=False, beta_1=BETA1,
            beta_2=BETA2, epsilon=EPS, shuffle=True, random_state=0, tol=0.0,
        )  # fmt: skip
        classes = np.arange(max(self.row.sizes[-1], 2))
        first = slice(0, self.row.batch)
        self.clf.partial_fit(problem.x[first], problem.y[first], classes=classes)
        encode = self.clf._label_binarizer.transform
        self._batches = [(x, encode(y).astype(bool)) for x, y in problem.batches()]
        self._optimizer_kind = type(self.clf._optimizer)
        self.reset()

    def reset(self) -> None:
        clf, row = self.clf, self.row
        clf.coefs_ = [np.array(w.T, order="C") for w, _ in self.problem.weights]  # copies, also of one unit
        clf.intercepts_ = [b.copy() for _, b in self.problem.weights]
        self._params = clf.coefs_ + clf.intercepts_
        self._work = (
            [None] * len(row.sizes), [None] * (len(row.sizes) - 1),
            [np.empty_like(w) for w in clf.coefs_], [np.empty_like(b) for b in clf.intercepts_],
        )  # fmt: skip
        if row.optimizer == "sgd":
            clf._optimizer = self._optimizer_kind(self._params, self.lr, "constant", MOMENTUM, False)
        else:
            clf._optimizer = self._optimizer_kind(self._params, self.lr, BETA1, BETA2, EPS)
        self._next = cycle(self._batches)

    def run(self, n: int) -> None:
        activations, deltas, coef_grads, intercept_grads = self._work
        params, backprop, update = self._params, self.clf._backprop, self.clf._optimizer.update_params
        for x, y in islice(self._next, n):
            activations[0] = x
            _, coef_grads, intercept_grads = backprop(
                x, y, None, activations, deltas, coef_grads, intercept_grads
            )
            update(params, coef_grads + intercept_grads)

    def outputs(self, x: np.ndarray) -> np.ndarray:
        p = self.clf._forward_pass_fast(x, check_input=False)
        if self.row.sizes[-1] > 1:
            return np.log(np.maximum(p, 1e-30))
        return np.log(np.maximum(p, 1e-30)) - np.log(np.maximum(1.0 - p, 1e-30))

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.clf.predict(x)

    def epoch(self) -> float:
        self.clf.partial_fit(self.problem.x, self.problem.y)
        return self.clf.loss_
