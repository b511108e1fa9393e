"""MLPRegressor: one target or several, for every loss that takes numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from ..callbacks import Callback
from ..data.scaling import mean_of_rows
from ..errors import DataError
from ..interchange import astype, follow, namespace, to_host
from ..losses import get_loss
from ..mlp import TargetUnits
from ..optim import Optimizer
from ..schedules import Schedule
from ..train import Trainer
from ..training import defaults
from .arriving import check_pair, checked_weights, scored_on_host, validation_pair
from .base import BaseMLP, Part
from .rows import in_chunks


class MLPRegressor(RegressorMixin, BaseMLP):
    """Multilayer perceptron regressor with scikit-learn's contract.

    The defaults are meant to be good without any argument; `docs/estimators.md` says how they were chosen and how
    they differ from scikit-learn's.

    Parameters
    ----------
    hidden_layer_sizes : int, sequence of int or "auto", default (256, 128)
        Widths of the hidden layers; ``()`` is the linear model. "auto" is (256, 128).
    activation : str or list of str, default "relu"
        Of the hidden layers, one for all or one each: any name of `xpnet.activations.NAMES` (with scikit-learn's
        "logistic"), "prelu", "maxout" or "maxout:k".
    solver : str or Optimizer, default "adam"
        "adam", "adamw", "sgd", "rmsprop" or "adagrad"; or one that is built, with a rate of its own.
    alpha : float or "auto", default "auto"
        The penalty (alpha / 2) sum w^2 on the *mean* loss, weights only; not divided by the size of the batch as in
        scikit-learn. "auto" is min(0.1, 12000 / N^2), at least 1e-4. Found in `alpha_`.
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
        "auto" is "squared_error". Also "absolute_error", "huber", "huber:2", "poisson", "quantile:0.9" and the other
        names of `xpnet.losses`. Huber's width is in units of the scaled targets.
    dropout : float, list of float or "auto", default "auto"
        Share of units dropped after each hidden layer while training. "auto" is 0.1 from 2000 samples on, else 0.
    input_dropout : float, default 0
        Share of features dropped while training.
    input_noise : float, default 0
        Standard deviation of Gaussian noise added to the (scaled) features while training.
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
    scale_target : bool, default True
        Scale each target to mean 0 and standard deviation 1 while training; the Poisson loss only divides by the
        mean. Losses are then in these units.
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
        R2 on the validation set; None without one.
    loss_, best_loss_ : float
        The last and the least of `loss_curve_` (None with early stopping).
    n_iter_, t_ : int
        Epochs of the last fit; samples seen in all.
    n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    scaler_ : FeatureScaler or None
    target_mean_, target_scale_ : numpy.ndarray (O,)
    alpha_, input_noise_, dropout_, dtype_
        What "auto" became. In `partial_fit`, where more samples may follow, N counts as at least 1000.
    model_ : MLP
        The network, on scaled features (`scaler_`) and scaled targets. To keep all in a file, `save` the estimator.
    history_ : History
        One record per epoch of the last fit.

    Examples
    --------
    >>> X = np.linspace(0.0, 1.0, 50)[:, None]
    >>> reg = MLPRegressor(random_state=0).fit(X, 1e6 * X[:, 0])
    >>> reg.predict([[0.25]]).round(-4).tolist()
    [250000.0]
    """

    scale_target: bool
    _task = "regression"

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] | str = (256, 128),
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
        dropout: float | Sequence[float] | str = "auto",
        input_dropout: float = 0.0,
        input_noise: float = 0.0,
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
        scale_target: bool = True,
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
        self.scale_target = scale_target
        self.dtype = dtype
        self.device = device
        self.callbacks = callbacks

    # --- what the targets are ---------------------------------------------------------------------
    def _loss_name(self) -> str:
        return get_loss("squared_error" if self.loss == "auto" else self.loss).name

    def _width(self) -> int:
        return self._n_targets

    def _auto_hidden(self, n: int) -> tuple[int, ...]:
        return defaults.hidden(n, "regression")

    def _auto_alpha(self, n: int) -> float:
        return defaults.penalty(n, "regression")

    def _auto_dropout(self, n: int) -> float:
        return defaults.dropout(n, "regression")

    def _scale_targets(self, t: Any, w: Any, *, fit: bool) -> Any:
        if fit:
            unscaled = np.zeros(t.shape[1]), np.ones(t.shape[1])
            self._target_units = _measured(t, w, self._log_link) if self.scale_target else unscaled
        return self._units.learnt(t)

    @property
    def _units(self) -> TargetUnits:
        return TargetUnits(*self._target_units)

    # Properties, because scikit-learn wants arrays among the attributes in the library of X: these are always NumPy's.
    @property
    def target_mean_(self) -> np.ndarray:
        """What was subtracted from each target (O,) while training."""
        return self._target_units[0]

    @property
    def target_scale_(self) -> np.ndarray:
        """What each target (O,) was divided by while training."""
        return self._target_units[1]

    @property
    def _log_link(self) -> bool:
        return get_loss(self._loss_name()).link == "exp"

    def _score_callback(self, validation: Part) -> Callback | None:
        return _R2(self, validation)

    # --- fitting ----------------------------------------------------------------------------------
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> MLPRegressor:
        """Train.

        Parameters
        ----------
        X : array_like or CSR matrix (N, I)
            A sparse X stays sparse; only the batch at hand is made dense.
        y : array_like (N,) or (N, O)
        sample_weight : array_like (N,), optional
            A sample of weight 0 counts as absent.
        X_val, y_val, sample_weight_val : optional
            Judged after each epoch; the weights of the best epoch are kept. Not transformed by a `Pipeline`.

        Returns
        -------
        MLPRegressor

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
        part = self._part(X, y, weight, first=not goes_on)
        validation = None
        if validation_pair(*given, labels=False):
            xv, yv = check_pair(self, *given[:2], reset=False, numeric=True)
            tv = follow(xv, self._columns(yv, "y_val"))
            validation = (xv, tv, checked_weights(given[2], xv, "sample_weight_val"))
        self._train(part, validation)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train one epoch on more samples, keeping the optimizer's moments.

        The first call decides the scaling of features and targets.
        """
        goes_on = hasattr(self, "model_")
        with self._whole():
            X, y, sample_weight = self._arrived(goes_on, X=X, y=y, sample_weight=sample_weight)
            self._train(self._part(X, y, sample_weight, first=not goes_on), None, partial=True)
            return self

    def _part(self, x: Any, y: Any, weight: Any, *, first: bool) -> Part:
        x, y = check_pair(self, x, y, reset=first, numeric=True)
        if first:
            self._flat = y.ndim == 1
            self._n_targets = 1 if y.ndim == 1 else y.shape[1]
        return x, follow(x, self._columns(y, "y")), checked_weights(weight, x)

    def _columns(self, y: Any, name: str) -> Any:
        t = astype(namespace(y).reshape(y, (y.shape[0], -1)), "float64")
        if t.shape[1] != self._n_targets:
            raise DataError(f"{name} has {t.shape[1]} columns, expected {self._n_targets}")
        return t

    # --- predicting -------------------------------------------------------------------------------
    def predict(self, X: Any) -> Any:
        """Return predictions (N,) where y was one-dimensional, else (N, O); in X's array library, on its device.

        They are float64; float32 for an X that is float32, where the network is, too.
        """
        values = self._through(lambda rows: self.model_.predict(rows), X)
        result = self._units.own(values)
        if self.dtype_ == "float32" and str(getattr(X, "dtype", "")).endswith("float32"):
            result = astype(result, "float32")
        return follow(X, result[:, 0] if self._flat else result)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R2, the mean of all targets."""
        if scored_on_host(X):
            y, w = to_host(y, "y"), to_host(sample_weight, "sample_weight")
            return float(r2_score(y, to_host(self.predict(X)), sample_weight=w))
        return float(super().score(X, y, sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def _measured(t: Any, w: Any, log_link: bool) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation of each target (O,); of one that is e to the output 0 and its mean."""
    largest = to_host(namespace(t).max(namespace(t).abs(t), axis=0))
    # squares of targets such as 1e200 overflow, those of 1e-200 vanish; powers of two change no digit
    power = np.ldexp(1.0, np.frexp(largest)[1] - 1)
    t = t / follow(t, power)
    mean = to_host(mean_of_rows(t, w))
    scale = mean if log_link else np.sqrt(to_host(mean_of_rows(namespace(t).square(t - follow(t, mean)), w)))
    varies = scale > 10.0 * np.finfo(np.float64).eps * np.abs(mean)
    return np.zeros_like(mean) if log_link else mean * power, np.where(varies, scale * power, 1.0)


class _R2(Callback):
    """Add the R2 on the validation set to each record, as "valid_score"; it is the same in all units of the targets."""

    def __init__(self, estimator: MLPRegressor, validation: Part):
        self._estimator, (self._x, self._t, self._w) = estimator, validation

    def on_epoch_end(self, trainer: Trainer, record: dict[str, Any]) -> None:
        e = self._estimator
        predicted = astype(in_chunks(self._x, e.model_.predict, e.scaler_, e.dtype_), "float64")
        record["valid_score"] = _r2(self._t, predicted, self._w)


def _r2(t: Any, predicted: Any, w: Any) -> float | None:
    """The R2 of predictions, the mean of all targets, as scikit-learn has it; None where there is none."""
    if t.shape[0] < 2:
        return None
    xp, middle = namespace(t), mean_of_rows(t, w)
    w = 1.0 if w is None else w[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        missed = to_host(xp.sum(w * xp.square(t - predicted), axis=0))
        if not np.isfinite(missed).all():
            return None
    spread = to_host(xp.sum(w * xp.square(t - middle), axis=0))
    some = spread > 0.0
    return float(np.mean(np.where(some, 1.0 - missed / np.where(some, spread, 1.0), missed == 0.0)))
