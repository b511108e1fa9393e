"""MLPClassifier: classes, yes-or-no labels, any label type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from ..callbacks import Callback
from ..errors import ConfigError, DataError
from ..interchange import astype, dtype_name, follow, is_foreign, kind, namespace, take_rows, to_host
from ..losses import get_loss
from ..optim import Optimizer
from ..schedules import Schedule
from ..training import defaults
from ..training.classweight import ClassWeight, weigh
from ..training.history import History
from .arriving import check_pair, checked_weights, scored_on_host, validation_pair
from .base import BaseMLP
from .rows import without_absent
from .session import Plan


def _different(y: Any) -> np.ndarray:
    """The different labels in ascending order, on the host."""
    return np.sort(to_host(namespace(y).unique_values(y))) if is_foreign(y) else np.unique(y)


def _positions(y: Any, classes: np.ndarray) -> tuple[Any, Any]:
    """Which labels are none of the classes, and the positions among them of the others."""
    if not is_foreign(y):
        return ~np.isin(y, classes), np.searchsorted(classes, y)
    xp, y = namespace(y), astype(y, "int64")
    known = follow(y, classes.astype(np.int64))
    t = xp.searchsorted(known, y)
    t = xp.where(t < len(classes), t, xp.zeros_like(t))
    return xp.take(known, t, axis=0) != y, t


def _shown(label: Any) -> str:
    return repr(label.item() if isinstance(label, np.generic) else label)


def _knows_probabilities(self: MLPClassifier) -> bool:
    # what was fitted counts, not what may have been set since
    loss = self.model_.loss_function() if hasattr(self, "model_") else self._loss_known()
    return bool(loss.link is not None)


class MLPClassifier(ClassifierMixin, BaseMLP):
    """Multilayer perceptron classifier with scikit-learn's contract.

    The defaults are meant to be good without any argument; `docs/estimators.md` says how they were chosen and how
    they differ from scikit-learn's.

    Parameters
    ----------
    hidden_layer_sizes : int, sequence of int or "auto", default "auto"
        Widths of the hidden layers; ``()`` is the linear model. "auto" is (512,) for up to 1000 samples, else (256,).
    activation : str or list of str, default "relu"
        Of the hidden layers, one for all or one each: any name of `xpnet.activations.NAMES` (with scikit-learn's
        "logistic"), "prelu", "maxout" or "maxout:k".
    solver : str or Optimizer, default "adam"
        "adam", "adamw", "sgd", "rmsprop" or "adagrad"; or one that is built, with a rate of its own.
    alpha : float or "auto", default "auto"
        The penalty (alpha / 2) sum w^2 on the *mean* loss, weights only; not divided by the size of the batch as in
        scikit-learn. "auto" is 1 / N, at least 0.001 and at most 0.01. Found in `alpha_`.
    l1 : float, default 0
        The penalty l1 sum |w|, likewise.
    batch_size : int or "auto", default "auto"
        "auto" is N / 128, at least 64 and at most 256; all samples where there are fewer.
    learning_rate : str or Schedule, default "cosine"
        "constant", "invscaling", "adaptive" as in scikit-learn; "cosine", "linear", "one_cycle", "step",
        "exponential", "plateau" of `xpnet.schedules`.
    learning_rate_init : float, default 0.003
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Epochs. Schedules are planned for so many.
    loss : str, default "auto"
        "auto" (or "log_loss") is the cross-entropy: binary for two classes and for multi-label y, softmax for more
        classes. Also "hinge", "squared_error", and the names of `xpnet.losses`.
    label_smoothing : float, default 0.1
        Share of each label that is spread over all classes while training; only for cross-entropy of classes, ignored
        elsewhere. `predict_proba` undoes it.
    class_weight : dict, "balanced", sequence or callable, optional
        What a sample counts: a weight by label (others 1); N / (C count); one number per class in sorted order; or a
        function of the labels that returns one of these, or a weight per sample. Multi-label: "balanced", a list of
        one dict {0: ..., 1: ...} per label, or a function of y (N, O); the factors of a sample are multiplied.
    dropout : float or list of float, default 0
        Share of units dropped after each hidden layer while training.
    input_dropout : float, default 0
        Share of features dropped while training.
    input_noise : float or "auto", default "auto"
        Standard deviation of Gaussian noise added to the (scaled) features while training. "auto" is
        0.33 N^(-1 / I) where features are standardized and an epoch has more than one batch, else 0.
    max_norm : float, optional
        Largest norm of the weights into a unit.
    clip_norm, clip_value : float, optional
        Largest norm, or largest entry, of the gradient.
    weight_decay : float, default 0.01
        Of "adamw" only: decoupled from the gradient.
    init : str, default "auto"
        Initial weights: a name of `xpnet.init`.
    shuffle : bool, default True
    random_state : int, RandomState or None, default None
    tol : float, default 1e-4
        The least improvement over the best epoch so far that counts for `n_iter_no_change`.
    verbose : bool, default False
        Print a line per epoch.
    warm_start : bool, default False
        Go on from the weights of the last `fit`; scaling stays as it was. Penalties, rates, dropout and noise
        may change, what the network was made with may not.
    momentum : float, default 0.9
    nesterovs_momentum : bool, default True
        Of "sgd".
    early_stopping : bool, default False
        Hold out `validation_fraction` (or take X_val, y_val), stop when the score on it has not improved by `tol`
        for `n_iter_no_change` epochs, and keep the weights of the best epoch.
    validation_fraction : float, default 0.1
    beta_1, beta_2, epsilon : float, default 0.9, 0.999, 1e-8
        Of Adam; epsilon also of "rmsprop" and "adagrad".
    n_iter_no_change : int or inf, default 10
        Patience in epochs, ``numpy.inf`` for no end. Without early stopping it watches the training loss (with X_val,
        the value on it), and only where the learning rate is "constant" or "invscaling" ("adaptive": lowers the rate);
        a planned schedule runs to its end.
    standardize : bool, default True
        Scale the features inside (`FeatureScaler`, in `scaler_`).
    dtype : {"auto", "float32", "float64"}, default "auto"
        Of the network. "auto" is float64 for up to 1000 samples of float64, else float32; found in `dtype_`.
    device : str or Backend, optional
        Where to compute: None and "cpu" are the CPU; else see `xpnet.get_backend`.
    callbacks : sequence of Callback, optional

    Attributes
    ----------
    coefs_, intercepts_ : list of numpy.ndarray
        Copies of the weights (in, out) and biases (out,) per layer.
    loss_curve_, validation_loss_curve_ : list of float
        Mean loss per epoch, without penalties; the second None without validation.
    validation_scores_, best_validation_score_ : list of float, float
        Accuracy on the validation set; None without one.
    loss_, best_loss_ : float
        The last and the least of `loss_curve_` (None with early stopping).
    n_iter_, t_ : int
        Epochs of the last fit; samples seen in all.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    scaler_ : FeatureScaler or None
    classes_ : numpy.ndarray (C,)
    alpha_, input_noise_, dropout_, dtype_
        What "auto" became. In `partial_fit`, where more samples may follow, N counts as at least 1000.
    model_ : MLP
        The network, on scaled features (`scaler_`) and positions in `classes_`. To keep all in a file, `save` the
        estimator.
    history_ : History
        One record per epoch of the last fit.

    Examples
    --------
    >>> X = [[0.0], [1.0], [2.0], [3.0]]
    >>> clf = MLPClassifier(random_state=0).fit(X, ["low", "low", "high", "high"])
    >>> clf.predict([[0.5], [2.5]]).tolist()
    ['low', 'high']
    >>> [w.shape for w in clf.coefs_]
    [(1, 512), (512, 1)]
    """

    classes_: np.ndarray
    label_smoothing: float
    class_weight: Any
    _multilabel: bool

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] | str = "auto",
        activation: str | Sequence[str] = "relu",
        *,
        solver: str | Optimizer = "adam",
        alpha: float | str = "auto",
        l1: float = 0.0,
        batch_size: int | str = "auto",
        learning_rate: str | Schedule = "cosine",
        learning_rate_init: float = 0.003,
        power_t: float = 0.5,
        max_iter: int = 200,
        loss: str = "auto",
        label_smoothing: float = 0.1,
        class_weight: ClassWeight = None,
        dropout: float | Sequence[float] = 0.0,
        input_dropout: float = 0.0,
        input_noise: float | str = "auto",
        max_norm: float | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        weight_decay: float = 0.01,
        init: str = "auto",
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        standardize: bool = True,
        dtype: str = "auto",
        device: Any = None,
        callbacks: Sequence[Callback] | None = None,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.l1 = l1
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.class_weight = class_weight
        self.dropout = dropout
        self.input_dropout = input_dropout
        self.input_noise = input_noise
        self.max_norm = max_norm
        self.clip_norm = clip_norm
        self.clip_value = clip_value
        self.weight_decay = weight_decay
        self.init = init
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.standardize = standardize
        self.dtype = dtype
        self.device = device
        self.callbacks = callbacks

    # --- what the targets are ---------------------------------------------------------------------
    @property
    def _task(self) -> str:  # type: ignore[override]
        return "multilabel" if self._multilabel else "classification"

    def _loss_known(self) -> Any:
        binary = self._multilabel or len(self.classes_) == 2 if hasattr(self, "classes_") else True
        if self.loss in ("auto", "log_loss"):
            return get_loss("binary_cross_entropy" if binary else "softmax_cross_entropy")
        return get_loss(self.loss)

    def _loss_name(self) -> str:
        loss = self._loss_known()
        if self.loss == "binary_cross_entropy" and not self._multilabel and len(self.classes_) > 2:
            raise ConfigError(
                "binary_cross_entropy takes two classes or multi-label y; use loss='auto' for more classes"
            )
        return loss.name

    def _width(self) -> int:
        if self._multilabel:
            return len(self.classes_)
        two = len(self.classes_) == 2 and self._loss_known().link != "softmax"
        return 1 if two else len(self.classes_)

    def _auto_alpha(self, n: int) -> float:
        return defaults.penalty(n, "classification")

    def _auto_hidden(self, n: int) -> tuple[int, ...]:
        return defaults.hidden(n, "classification")

    def _auto_noise(self, n: int) -> float:
        return defaults.input_noise(n, self.n_features_in_, "classification")

    def _options(self) -> dict[str, Any]:
        smooths = self._loss_name() in ("softmax_cross_entropy", "binary_cross_entropy")
        if not smooths or self._multilabel:
            return {}
        return {"label_smoothing": self.label_smoothing}

    def _finish(self, plan: Plan, history: History, partial: bool = False) -> None:
        super()._finish(plan, history, partial)
        self.model_.unsmoothing = float(plan.options.get("label_smoothing", 0.0)) or None

    # --- fitting ----------------------------------------------------------------------------------
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> MLPClassifier:
        """Train.

        Parameters
        ----------
        X : array_like or CSR matrix (N, I)
            A sparse X stays sparse; only the batch at hand is made dense.
        y : array_like (N,) or (N, O)
            Labels of any type; or one column of 0 and 1 per label (multi-label).
        sample_weight : array_like (N,), optional
            A sample of weight 0 counts as absent.
        X_val, y_val, sample_weight_val : optional
            Judged after each epoch; the weights of the best epoch are kept. Not transformed by a `Pipeline`.

        Returns
        -------
        MLPClassifier

        Raises
        ------
        ValueError
            Data or settings that cannot be used (`DataError`, `ConfigError`).
        DivergedError
            Loss or weights are no longer finite.
        Interrupted
            Ctrl-C or SIGTERM arrived. The estimator is fitted with the epochs that were done by then.

        Notes
        -----
        Where `fit` fails the estimator is as it was before.
        """
        return self._fit(
            X, y, sample_weight, {"X_val": X_val, "y_val": y_val, "sample_weight_val": sample_weight_val}
        )

    def _fit_arrived(self, X: Any, y: Any, weight: Any, given: Sequence[Any], goes_on: bool) -> None:
        x, y = check_pair(self, X, y, reset=not goes_on, numeric=False)
        y = self._labels(y)
        w = checked_weights(weight, x)
        seen = y if w is None else y[follow(y, w > 0.0)]
        if goes_on:
            found = np.arange(y.shape[1]) if y.ndim == 2 else _different(seen)
            if not np.isin(found, self.classes_).all() or (y.ndim == 2) != self._multilabel:
                raise DataError(
                    f"warm_start: y has other classes than before: {found} against {self.classes_}"
                )
        else:
            self._multilabel = y.ndim == 2
            self.classes_ = np.arange(y.shape[1]) if self._multilabel else _different(seen)
        if not self._multilabel and len(self.classes_) < 2:
            raise DataError(
                f"y needs at least two classes, found one class: {_shown(self.classes_[0])} "
                f"(n_samples = {seen.shape[0]}); check how y was made, or split the data with stratify=y"
            )
        validation = None
        if validation_pair(*given):
            xv, yv = check_pair(self, *given[:2], reset=False, numeric=False)
            wv = checked_weights(given[2], xv, "sample_weight_val")
            validation = (xv, follow(xv, self._encode(self._labels(yv), "y_val")), wv)
        if not self._multilabel:
            x, y, w = without_absent(x, y, w)
        t = follow(x, self._encode(y, "y"))
        self._train((x, t, self._with_class_weight(t, w)), validation)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> MLPClassifier:
        """Train one epoch on more samples, keeping the optimizer's moments.

        The first call needs `classes`, all labels that will occur, and decides the scaling of the features: its
        samples should be like those that follow. Any call may bring samples of few classes, or of one.
        """
        first = not hasattr(self, "model_")
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ConfigError(
                "partial_fit cannot balance classes it has not seen: pass class_weight as a dict"
            )
        if first and classes is None:
            raise DataError("the first call of partial_fit needs classes, all labels that will occur")
        with self._whole():
            X, y, sample_weight = self._arrived(not first, X=X, y=y, sample_weight=sample_weight)
            classes = to_host(classes, "classes")
            x, y = check_pair(self, X, y, reset=first, numeric=False)
            y = self._labels(y)
            if first:
                self._multilabel = y.ndim == 2
                self.classes_ = np.unique(classes)
                if len(self.classes_) < 2 and not self._multilabel:
                    raise DataError("classes must name at least two classes")
            elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
                raise DataError(f"classes are not those of the first call: {classes} against {self.classes_}")
            t = follow(x, self._encode(y, "y"))
            w = self._with_class_weight(t, checked_weights(sample_weight, x))
            self._train((x, t, w), None, partial=True)
            return self

    def _labels(self, y: Any) -> Any:
        """Labels (N,), or (N, O) of 0 and 1; such numbers stay on their device, other labels come to the host."""
        if is_foreign(y):
            if y.ndim == 1 and kind(y) in "iu" and dtype_name(y) != "uint64":
                return y
            if y.ndim == 2 and y.shape[1] > 1 and bool(namespace(y).all((y == 0) | (y == 1))):
                return y
            y = to_host(y, "y")
        check_classification_targets(y)
        form = type_of_target(y)
        if form == "multilabel-indicator":
            return y.toarray() if hasattr(y, "toarray") else np.asarray(y)
        if form.startswith("multiclass-multioutput"):
            raise DataError(
                "y has several columns with more than two values each; fit one classifier per column"
            )
        return column_or_1d(y, warn=True)

    def _encode(self, y: Any, name: str) -> Any:
        if self._multilabel:
            if y.ndim != 2 or y.shape[1] != len(self.classes_):
                raise DataError(
                    f"{name} has shape {tuple(y.shape)}, expected {len(self.classes_)} columns of 0 and 1"
                )
            return astype(y, "float64")
        y = y if self.classes_.dtype.kind in "iu" else to_host(y)
        unknown, t = _positions(y, self.classes_)
        if bool(namespace(y).any(unknown)):
            raise DataError(
                f"{name} holds {_shown(to_host(y[unknown])[0])}, which is none of the classes {self.classes_}; leave "
                "those samples out, or let the first call of fit or partial_fit see (or name) that class"
            )
        return t

    def _with_class_weight(self, t: Any, w: Any) -> Any:
        if self.class_weight is None:
            return w
        factors = follow(t, weigh(self.class_weight, to_host(t), self.classes_, to_host(w)))
        return checked_weights(factors if w is None else w * factors, t, "class_weight")

    # --- predicting -------------------------------------------------------------------------------
    def predict(self, X: Any) -> Any:
        """Return the label of each sample (N,), or 0 and 1 per label (N, O).

        Numbers come in the array library of X and on its device, as from all methods that predict; text in NumPy.
        """
        result = self._through(lambda rows: self.model_.predict(rows), X)
        return follow(X, result if self._multilabel else take_rows(follow(result, self.classes_), result))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy: the share of samples whose label (of several: all of them) is right."""
        if scored_on_host(X):
            y, w = to_host(y, "y"), to_host(sample_weight, "sample_weight")
            return float(accuracy_score(y, to_host(self.predict(X)), sample_weight=w))
        return float(super().score(X, y, sample_weight))

    @available_if(_knows_probabilities)
    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class (N, C), or of each label (N, O); not with the hinge loss.

        The network learned smoothed labels: with s = `label_smoothing`, q is (p - s / C) / (1 - s) of its own p, but at
        least s / (20 C), divided by the sum.
        """
        return follow(X, self._through(lambda rows: self.model_.predict_proba(rows), X))

    @available_if(_knows_probabilities)
    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`."""
        p = self._through(lambda rows: self.model_.predict_proba(rows), X)
        with np.errstate(divide="ignore"):
            return follow(X, namespace(p).log(p))

    def decision_function(self, X: Any) -> Any:
        """Return the scores before softmax or sigmoid: (N, C), (N, O), or (N,) for two classes."""
        h = self._through(lambda rows: self.model_.outputs(rows), X)
        if self._multilabel or len(self.classes_) > 2:
            return follow(X, h)
        return follow(
            X, h[:, 1] - h[:, 0] if h.shape[1] == 2 else h[:, 0] - self.model_.loss_function().threshold
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
