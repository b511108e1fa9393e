"""What classifier and regressor share: from settings and samples to a trained network and its records."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any, Self, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ..backend import Backend, get_backend
from ..callbacks import Callback
from ..data.scaling import FeatureScaler
from ..errors import ConfigError, DivergedError
from ..interchange import (
    arrive,
    check_together,
    device_name,
    in_host_memory,
    is_foreign,
    place,
    to_host,
)
from ..losses import get_loss
from ..mlp import MLP
from ..schedules import ReduceOnPlateau, Schedule, get_schedule
from ..train import Trainer
from ..training.history import History
from ..training.settings import check_callbacks
from ..training.signals import Interrupted
from . import choices
from .arriving import INPUT_TYPES, check_samples_there
from .moments import kept_moments, restore_moments
from .rows import hold_out, in_chunks, without_absent
from .session import Plan, Planned, current, fitted_scaler, scaled_examples, took_over

_FAR = 1000.0  # times the loss of knowing nothing: then training has gone wrong
_STREAM = 1000  # partial_fit has seen its first samples only: what "auto" becomes is not for so few

#: Settings that cannot change from one call of fit to the next that goes on from its weights.
_MADE_WITH = ("hidden_layer_sizes", "activation", "init", "standardize", "scale_target", "dtype", "device")

Part = tuple[
    Any, Any, Any
]  # samples, targets, weights (or None): all on the host, or all on the network's device


class BaseMLP(BaseEstimator):
    """Base of `MLPClassifier` and `MLPRegressor`; not to be used itself.

    A subclass says what its targets are (`_task`), which network they need (`_width`, `_loss_name`) and how one
    epoch is scored.
    """

    # parameters, for type checkers; each subclass lists them in __init__, as scikit-learn requires
    hidden_layer_sizes: Any
    activation: Any
    solver: Any
    alpha: Any
    l1: Any
    batch_size: Any
    learning_rate: Any
    learning_rate_init: Any
    power_t: Any
    max_iter: Any
    loss: Any
    dropout: Any
    input_dropout: Any
    input_noise: Any
    max_norm: Any
    clip_norm: Any
    clip_value: Any
    weight_decay: Any
    init: Any
    shuffle: Any
    random_state: Any
    tol: Any
    verbose: Any
    warm_start: Any
    momentum: Any
    nesterovs_momentum: Any
    early_stopping: Any
    validation_fraction: Any
    beta_1: Any
    beta_2: Any
    epsilon: Any
    n_iter_no_change: Any
    standardize: Any
    dtype: Any
    device: Any
    callbacks: Any

    n_features_in_: int
    model_: MLP
    scaler_: FeatureScaler | None
    _moments: dict[str, Any] | None  # of the optimizer, between two calls of partial_fit

    # --- what subclasses say ----------------------------------------------------------------------
    _task: str

    def _width(self) -> int:
        raise NotImplementedError

    def _loss_name(self) -> str:
        raise NotImplementedError

    def _auto_alpha(self, n: int) -> float:
        raise NotImplementedError

    def _auto_hidden(self, n: int) -> tuple[int, ...]:
        raise NotImplementedError

    def _auto_noise(self, n: int) -> float:
        return 0.0

    def _auto_dropout(self, n: int) -> float:
        return 0.0

    def _options(self) -> dict[str, Any]:
        """More arguments of `Trainer`."""
        return {}

    def _score_callback(self, validation: Part) -> Callback | None:
        """What adds "valid_score" to the records, where they do not have it; targets as the network learns them."""
        return None

    # --- fitting ----------------------------------------------------------------------------------
    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Return a context in which a fit that fails leaves the estimator as it was: no new classes with old weights.

        Weights that training goes on from are its own to change. One that is interrupted after an epoch counts as done.
        """
        before = dict(vars(self))
        try:
            yield
        except BaseException as error:
            fitted = isinstance(error, Interrupted) and getattr(self, "loss_curve_", None)
            if not fitted and not isinstance(error, Planned):
                self.__dict__.clear()
                self.__dict__.update(before)
            raise

    def _fit(self, X: Any, y: Any, sample_weight: Any, validation: dict[str, Any]) -> Self:
        """What `fit` does; `validation` is X_val, y_val and sample_weight_val by name."""
        with self._whole():
            goes_on = self.warm_start and hasattr(self, "model_")
            X, y, sample_weight, *given = self._arrived(
                goes_on, X=X, y=y, sample_weight=sample_weight, **validation
            )
            if not took_over(self, X, y, sample_weight):
                self._fit_arrived(X, y, sample_weight, given, goes_on)
            return self

    def _fit_arrived(self, X: Any, y: Any, weight: Any, given: Sequence[Any], goes_on: bool) -> None:
        """Check data that have arrived, and train."""
        raise NotImplementedError

    def _arrived(self, goes_on: bool, **arrays: Any) -> list[Any]:
        """Return arrays that belong together where the network takes them, and remember where X was.

        What lies on the network's device stays there; all else is the host's from here on.
        """
        check_together(**arrays)
        x = arrays["X"]
        if (
            not is_foreign(x) or in_host_memory(x) or current() is not None
        ):  # populations mix data of many fits
            self._place: str | Backend = device_name(x)
            return [to_host(array, name) for name, array in arrays.items()]
        self._place = place(x)
        device = self._place if self.device is None else self.device
        be = self.model_.be if goes_on else get_backend(device)
        found = {name: arrive(array, be, name) for name, array in arrays.items()}
        stays = is_foreign(found["X"])
        return [array if stays else to_host(array, name) for name, array in found.items()]

    def _train(self, part: Part, given: Part | None, *, partial: bool = False) -> None:
        """Train on checked samples, encoded targets and weights; `given` is a validation set of the user's."""
        choices.check_settings(self)
        goes_on = hasattr(self, "model_") and (partial or self.warm_start)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        part = without_absent(*part)
        validation = None if given is None else without_absent(*given)
        if self.early_stopping and given is None and not partial:
            part, validation = hold_out(*part, self.validation_fraction, seed, self._task == "classification")
        x, t, w = part
        n = int(x.shape[0])
        batch = choices.batch_size(self.batch_size, n)
        network = None
        if goes_on:
            self._go_on(partial)
        else:
            network = self._start(x, w, n, batch, seed, partial)
        data = (scaled_examples(x, self.scaler_, self.dtype_), self._scale_targets(t, w, fit=not goes_on))
        callbacks, held, scorer = (
            check_callbacks(() if self.callbacks is None else self.callbacks),
            None,
            None,
        )
        if validation is not None:
            xv, tv, wv = validation
            held = (
                scaled_examples(xv, self.scaler_, self.dtype_), self._scale_targets(tv, wv, fit=False), wv
            )  # fmt: skip
            scorer = self._score_callback((xv, held[1], wv))
        schedule = get_schedule("constant") if partial else choices.schedule(self, n)
        planned = type(schedule) is not Schedule and not isinstance(
            schedule, (choices.InverseScaling, ReduceOnPlateau)
        )
        if isinstance(schedule, ReduceOnPlateau):
            callbacks.append(choices.StopAtFloor())
        # under a schedule that is planned to the end, a loss that rests for a while is no reason to stop
        stops = self.early_stopping or not (planned or isinstance(schedule, ReduceOnPlateau))
        options = {
            "loss": self._loss_name(), "task": self._task, "optimizer": choices.optimizer(self),
            "schedule": schedule, "l1": self.l1, "l2": self.alpha_, "max_norm": self.max_norm,
            "clip_norm": self.clip_norm, "clip_value": self.clip_value, "sample_weight": w,
            "epochs": 1 if partial else int(self.max_iter), "batch_size": batch, "shuffle": self.shuffle,
            "seed": seed + (self.t_ if partial else 0), "min_delta": self.tol, "min_delta_from": "best",
            "patience": choices.patience(self) if stops and not partial else None,
            # by itself training would watch its accuracy, which rests long before the loss does
            "monitor": None if validation is not None else "train_loss", **self._options(),
        }  # fmt: skip
        watched = stops and not partial and validation is None
        plan = Plan(network, data, held, options, callbacks, scorer, n, watched)
        session = current()
        if session is not None and session.planning and not partial:
            raise Planned(self, plan, session.fingerprint)
        self._run(plan, partial=partial)

    def _run(self, plan: Plan, *, partial: bool = False) -> None:
        """Train as planned, by itself."""
        if plan.network is not None:
            self.model_ = MLP(**plan.network)
        # the score goes first, so that every callback sees it
        callbacks = [*([plan.scorer] if plan.scorer is not None else []), *plan.callbacks]
        trainer = Trainer(
            self.model_, plan.data, validation=plan.validation, callbacks=callbacks,
            verbose=self.verbose, one_class=partial, **plan.options,
        )  # fmt: skip
        if partial and plan.network is None and self._moments is not None:
            restore_moments(trainer, self._moments)
        try:
            history = trainer.run()
        except Interrupted:
            if trainer.history:  # hours of training are not lost to Ctrl-C
                trainer.history.stopped = "interrupted"
                trainer.finish()
                self._finish(plan, trainer.history, partial)
            raise
        except DivergedError as error:
            kept = (
                "The estimator is as it was before"
                if plan.network
                else "The network keeps its last good weights"
            )
            raise DivergedError(
                f"training diverged at epoch {error.epoch}, step {error.step}: {error.where}. {kept}. Try a smaller "
                "learning_rate_init, clip_norm=1, or standardize=True",
                epoch=error.epoch, step=error.step, where=error.where,
            ) from error  # fmt: skip
        if not history:
            raise ConfigError(
                "a callback ended training before its first epoch was done, so there is nothing to record"
            )
        self._finish(plan, history, partial)
        self._moments = kept_moments(trainer) if partial else None

    def _finish(self, plan: Plan, history: History, partial: bool = False) -> None:
        """Record what training gave; the network is in `model_`."""
        self._record(history, plan.n, plan.validation is not None, partial)
        if plan.watched and history.stopped == "epochs":
            warnings.warn(
                f"training ended at max_iter={self.max_iter} epochs while the loss still fell by more than "
                f"tol={self.tol}; raise max_iter, or use learning_rate='cosine', which ends by plan",
                ConvergenceWarning,
                stacklevel=5,
            )
        if not partial:
            self._warn_of_bad_end(plan)

    def _warn_of_bad_end(self, plan: Plan) -> None:
        """Warn where the network ends far worse than one that knows nothing, whose outputs are all 0."""
        nothing = float(self.n_outputs_)  # about what a loss gives for each output of a classifier
        if self._task == "regression" and self.loss_ > _FAR:
            loss, t = self.model_.loss_function(), to_host(plan.data[1])
            with np.errstate(over="ignore"):
                nothing = float(np.mean(np.sum(loss.value(np, np.zeros_like(t), t), axis=-1)))
        if self.loss_ > _FAR * max(nothing, 1.0):
            warnings.warn(
                f"training ended with a loss of {self.loss_:.3g}, far above that of a network which knows nothing, "
                f"about {nothing:.3g}; lower learning_rate_init={self.learning_rate_init}, or give clip_norm=1",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _go_on(self, partial: bool) -> None:
        """Take over what may change between two calls, and refuse other settings of the network.

        Raises
        ------
        ConfigError
        """
        call = "partial_fit" if partial else "fit with warm_start=True"
        changed = {k: (was, getattr(self, k)) for k, was in getattr(self, "_made_with", {}).items()}
        known, wanted = self.model_.loss_function(), get_loss(self._loss_name())
        if self._width() != self.model_.sizes[-1] or (known.link == "exp") != (wanted.link == "exp"):
            changed["loss"] = known.name, wanted.name
        for name, (was, now) in changed.items():
            if choices.plain(was) != choices.plain(now):
                raise ConfigError(
                    f"{name} cannot change between two calls of {call}: the network was made with {was!r}, found "
                    f"{now!r}; set it back, or fit anew with warm_start=False"
                )
        for name in ("alpha", "input_noise", "dropout"):
            if not isinstance(value := choices.plain(getattr(self, name)), str):
                setattr(self, f"{name}_", value)
        self.model_ = self.model_.with_rates(
            dropout=self.dropout_, input_dropout=self.input_dropout, input_noise=self.input_noise_
        )

    def _start(self, x: Any, w: Any, n: int, batch: int, seed: int, partial: bool) -> dict[str, Any]:
        """Decide all that a first fit decides, and return the arguments of the network."""
        self.dtype_ = choices.dtype(self.dtype, x, n)
        self.scaler_ = fitted_scaler(x, w) if self.standardize else None
        many = max(n, _STREAM) if partial else n
        noisy = self.standardize and batch < n
        self.alpha_ = choices.or_automatic(
            "alpha", self.alpha, "a number >= 0", lambda: float(self._auto_alpha(many))
        )
        self.input_noise_ = choices.or_automatic(
            "input_noise", self.input_noise, "a number >= 0", lambda: self._auto_noise(many) if noisy else 0.0
        )
        self.dropout_ = choices.or_automatic(
            "dropout", choices.plain(self.dropout), "in [0, 1), one such number per layer,",
            lambda: self._auto_dropout(many),
        )  # fmt: skip
        hidden = choices.or_automatic(
            "hidden_layer_sizes", self.hidden_layer_sizes, "whole numbers", lambda: self._auto_hidden(many)
        )
        hidden = list(hidden) if np.iterable(hidden) else [hidden]
        sizes = [self.n_features_in_, *hidden, self._width()]
        self._begin(sizes)
        return {
            "sizes": sizes, "activation": choices.plain(self.activation),
            "dropout": self.dropout_, "input_dropout": self.input_dropout, "input_noise": self.input_noise_,
            "init": self.init, "seed": seed, "dtype": self.dtype_,
            "device": self._place if self.device is None else self.device,
        }  # fmt: skip

    def _begin(self, sizes: Sequence[int]) -> None:
        """Describe a network of these widths that nothing was recorded about yet."""
        given = self.get_params(deep=False)
        self._made_with = {name: given[name] for name in _MADE_WITH if name in given}
        self.n_outputs_, self.n_layers_ = sizes[-1], len(sizes)
        link = get_loss(self._loss_name()).link
        self.out_activation_ = {"sigmoid": "logistic", None: "identity"}.get(link, link)
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = None
        self.validation_scores_: list[float] | None = None
        self.t_ = self.n_iter_ = 0
        self._moments = None

    def _adopt(self, model: MLP) -> None:
        """Be fitted with a network from elsewhere, without dropout and noise, that takes features as they are."""
        self._begin(model.sizes)
        self.model_, self.scaler_, self.dtype_ = model, None, model.dtype
        self.alpha_, self.input_noise_, self.dropout_ = self.alpha, 0.0, 0.0
        self.n_features_in_, self.best_validation_score_ = model.sizes[0], None

    def _record(self, history: History, n: int, validated: bool, partial: bool) -> None:
        self.history_ = history
        self.n_iter_ = len(history) + (self.n_iter_ if partial else 0)
        self.t_ += n * len(history)
        self.loss_curve_ = [*self.loss_curve_, *history.column("train_loss")]
        self.loss_ = self.loss_curve_[-1]
        self.best_loss_ = None if self.early_stopping else min(self.loss_curve_)
        self.best_validation_score_ = None
        if validated:
            name = "valid_accuracy" if self._task != "regression" else "valid_score"
            self.validation_loss_curve_ = [
                *(self.validation_loss_curve_ or ()),
                *history.column("valid_loss"),
            ]
            self.validation_scores_ = [*(self.validation_scores_ or ()), *history.column(name)]
            self.best_validation_score_ = history[(history.best_epoch or 1) - 1][name]

    def _scale_targets(self, t: Any, w: Any, *, fit: bool) -> Any:
        return t

    # --- predicting -------------------------------------------------------------------------------
    def _through(self, method: Callable[[Any], Any], x: Any) -> Any:
        """Apply a method of the model to samples, chunk by chunk, on its device where they are there."""
        check_is_fitted(self)
        x = arrive(x, self.model_.be)
        if is_foreign(x):
            x = check_samples_there(self, x, reset=False)
        else:
            x = validate_data(self, x, reset=False, accept_sparse="csr", dtype=INPUT_TYPES)
        return in_chunks(x, method, self.scaler_, self.dtype_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "loss_")

    # --- fitted attributes ------------------------------------------------------------------------
    def _tensors(self, kind: str) -> list[np.ndarray]:
        if "model_" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no weights before it is fitted")
        return [v for k, v in self.model_.get_weights().items() if k.endswith(f".{kind}")]

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Copies of the weights of each layer, as scikit-learn shapes them: (in, out)."""
        return [w.T for w in self._tensors("weight")]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Copies of the biases of each layer (out,)."""
        return self._tensors("bias")

    # --- files --------------------------------------------------------------------
    def save(self, path: str | PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, without pickle.

        The file is an ordinary model file, too: `xpnet.load` and ``xpnet predict`` take raw features and give labels or
        targets in their own units.

        Parameters
        ----------
        path : path
            Replaced where it exists, whole or not at all.

        Raises
        ------
        ConfigError
            A setting that is an object (a schedule, an optimizer, callbacks): files hold names and numbers only.

        Warns
        -----
        UserWarning
            Columns had outliers that the estimator compresses (`scaler_.tails_`); as a model the file does not.

        Notes
        -----
        `history_` and what the optimizer remembers between calls of `partial_fit` are not kept.
        """
        from .files import save

        check_is_fitted(self)
        save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Return the estimator that `save` wrote; it predicts the same bits.

        Raises
        ------
        FileFormatError
            The file holds none, it is of another kind, or damaged.
        """
        from .files import load

        return cast(Self, load(cls, path))

    # --- pickles ------------------------------------------------------------------
    def __getstate__(self) -> dict[str, Any]:
        state = dict(cast(Any, super()).__getstate__())
        state.pop("_place", None)  # only the running fit needs it
        if "model_" in state and state["model_"].be.origin is None:
            state["model_"] = state["model_"].to(
                "cpu"
            )  # a device that no name stands for is not the next machine's
        return state

    def __sklearn_tags__(self) -> Any:
        tags = cast(Any, super()).__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
