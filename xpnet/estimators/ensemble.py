"""Deep ensembles: several networks that differ in their seed, trained as one population and averaged."""

from __future__ import annotations

import warnings
from os import PathLike
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from ..errors import ConfigError
from ..interchange import follow, to_host
from ..training.settings import flag
from .arriving import INPUT_TYPES
from .base import BaseMLP
from .classifier import MLPClassifier
from .regressor import MLPRegressor
from .session import Session
from .together import Job, check_training, plan, train


class _Ensemble(MetaEstimatorMixin, BaseEstimator):
    """What both ensembles share."""

    _kind: type[BaseMLP]
    estimators_: list[Any]

    def __init__(
        self,
        estimator: Any = None,
        n_members: int = 5,
        *,
        bootstrap: bool = False,
        random_state: Any = None,
        batches: str = "own",
        memory: int | None = None,
        workers: int | None = None,
    ):
        self.estimator = estimator
        self.n_members = n_members
        self.bootstrap = bootstrap
        self.random_state = random_state
        self.batches = batches
        self.memory = memory
        self.workers = workers

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        sample_weight_val: Any = None,
    ) -> Self:
        """Train all members.

        Parameters
        ----------
        X, y, sample_weight, X_val, y_val, sample_weight_val
            As the estimator of a member takes them.

        Raises
        ------
        ValueError
            Data or settings that cannot be used (`DataError`, `ConfigError`).
        DivergedError
            All members diverged. Some that do are left out, with a warning.
        """
        self._check()
        given = (sample_weight, X_val, y_val, sample_weight_val)
        random = check_random_state(self.random_state)
        seeds = random.randint(2**31 - 1, size=self.n_members)
        session, jobs = Session(replays=False), []
        for seed in seeds:
            member = self._member().set_params(random_state=int(seed))
            job = plan(session, lambda member=member: member.fit(X, y, *given))  # type: ignore[misc]
            assert job is not None
            if self.bootstrap:
                job.rows = np.sort(random.randint(job.plan.n, size=job.plan.n))
            jobs.append(job)
        session.forget_data()
        train(jobs, batches=self.batches, memory=self.memory, workers=self.workers)
        self._take(jobs, seeds)
        return self

    def _check(self) -> None:
        n = self.n_members
        if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
            raise ConfigError(f"n_members must be a whole number >= 1, found {n!r}")
        flag("bootstrap", self.bootstrap)
        check_training(self.batches, self.memory, self.workers)
        if self.estimator is not None and not isinstance(self.estimator, self._kind):
            raise ConfigError(
                f"{type(self).__name__} averages members of {self._kind.__name__}, found {self.estimator!r:.80}"
            )
        if getattr(self.estimator, "warm_start", False):
            raise ConfigError(
                "warm_start has no meaning for the members of an ensemble: each fit starts anew"
            )

    def _member(self) -> Any:
        return self._kind() if self.estimator is None else clone(self.estimator)

    def _take(self, jobs: list[Job], seeds: np.ndarray) -> None:
        failed = [k for k, job in enumerate(jobs) if job.error is not None]
        if len(failed) == len(jobs):
            error = jobs[0].error
            assert error is not None
            raise error
        if failed:
            warnings.warn(
                f"{len(failed)} of {len(jobs)} members are left out: {jobs[failed[0]].error}",
                ConvergenceWarning,
                stacklevel=3,
            )
        good = [k for k in range(len(jobs)) if k not in failed]
        self.estimators_ = [jobs[k].estimator for k in good]
        self.seeds_ = [int(seeds[k]) for k in good]
        self._describe()

    def _describe(self) -> None:
        """Take over what all members know about the data, and forget what an earlier fit knew."""
        first = vars(self.estimators_[0])
        for name in ("n_features_in_", "feature_names_in_", "classes_"):
            self.__dict__.pop(name, None)
            if name in first:
                setattr(self, name, first[name])

    def _each(self, method: str, X: Any) -> np.ndarray:
        """What every member says about samples that were checked once, (M, N, ...)."""
        check_is_fitted(self)
        x = validate_data(self, to_host(X), reset=False, accept_sparse="csr", dtype=INPUT_TYPES)
        with warnings.catch_warnings():  # names of columns were compared here
            warnings.filterwarnings(
                "ignore", message="X does not have valid feature names", category=UserWarning
            )
            return np.stack([getattr(e, method)(x) for e in self.estimators_])

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the ensemble to a folder: one ordinary model file per member, and what joins them.

        No pickle. `xpnet.load` opens each member by itself; see `xpnet.estimators.ensemble_files`.

        Parameters
        ----------
        folder : path
            Created where absent. What an ensemble saved there before is replaced; other files are not touched.

        Raises
        ------
        ConfigError
            A setting that is an object (a schedule, an optimizer, callbacks): files hold names and numbers only.
        """
        from .ensemble_files import save

        check_is_fitted(self)
        save(self, folder)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Self:
        """Return the ensemble that `save` wrote.

        Raises
        ------
        FileFormatError
            The folder holds none, it is of another kind, or a file is damaged.
        """
        from .ensemble_files import load

        return load(cls, folder)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        own = self._member().__sklearn_tags__()
        tags.input_tags, tags.target_tags = own.input_tags, own.target_tags
        tags.classifier_tags, tags.regressor_tags = own.classifier_tags, own.regressor_tags
        tags.array_api_support = own.array_api_support
        return tags


class DeepEnsembleClassifier(ClassifierMixin, _Ensemble):
    """Classifier that averages the probabilities of several networks.

    The members have the same settings and differ in their seed: weights, order of samples, masks, and the part
    held out for early stopping. They are trained as one population; each equals its estimator fitted alone.

    Parameters
    ----------
    estimator : MLPClassifier, optional
        Settings of each member, without its `random_state`; by default those of `MLPClassifier`.
    n_members : int, default 5
        M.
    bootstrap : bool, default False
        Train each member on as many samples drawn with replacement. Scaling is fitted on all of them.
    random_state : int, RandomState or None, default None
        Of the seeds of the members.
    batches : {"own", "shared"}, default "own"
        "shared" is faster: all members meet the samples in one order.
    memory : int, optional
        Most bytes for training; by default what is free.
    workers : int, optional
        Threads; by default one per processor where there is enough work.

    Attributes
    ----------
    estimators_ : list of MLPClassifier
        The members, fitted; those that diverged are left out.
    seeds_ : list of int
        `random_state` of each.
    classes_ : numpy.ndarray (C,)
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> ensemble = DeepEnsembleClassifier(
    ...     MLPClassifier((8,), max_iter=30, learning_rate_init=0.02), n_members=3, random_state=0).fit(X, y)
    >>> ensemble.predict(X[:2]).tolist(), ensemble.member_probabilities(X[:2]).shape
    ([0, 0], (3, 2, 3))
    """

    _kind = MLPClassifier
    classes_: np.ndarray

    def _check(self) -> None:
        super()._check()
        member = self._member()
        if not hasattr(member, "predict_proba"):
            raise ConfigError(
                f"an ensemble averages probabilities, which the {member.loss} loss does not give"
            )

    def member_probabilities(self, X: Any) -> Any:
        """Return the probabilities of each member, (M, N, C), or (M, N, O) for multi-label y."""
        return follow(X, self._each("predict_proba", X))

    def predict_proba(self, X: Any) -> Any:
        """Return the mean of the members' probabilities, (N, C), or (N, O) for multi-label y."""
        return follow(X, self._each("predict_proba", X).mean(axis=0))

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return follow(X, np.log(self._each("predict_proba", X).mean(axis=0)))

    def predict(self, X: Any) -> Any:
        """Return the label with the largest mean probability (N,), or 0 and 1 per label (N, O)."""
        p = self._each("predict_proba", X).mean(axis=0)
        if self.estimators_[0]._multilabel:
            return follow(X, (p > 0.5).astype(np.int64))
        return follow(X, self.classes_[p.argmax(axis=1)])

    def uncertainty(self, X: Any) -> dict[str, np.ndarray]:
        """Return how unsure the prediction for each sample is, and why, in nats.

        Parameters
        ----------
        X : array_like or CSR matrix (N, I)

        Returns
        -------
        dict
            "entropy" (N,) of the mean probabilities: all uncertainty. "expected_entropy" (N,), the mean of the
            members' entropies: the part that they agree on, in the data. "mutual_information" (N,), the difference:
            the part that they disagree on, which is large far from the training data. (N, O) for multi-label y.

        Notes
        -----
        H(mean p) = mean H(p) + I; Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep Learning" (2018).
        """
        p = self._each("predict_proba", X).astype(np.float64)
        if self.estimators_[0]._multilabel:
            p = np.stack([1.0 - p, p], axis=-1)
        total, within = _entropy(p.mean(axis=0)), _entropy(p).mean(axis=0)
        return {
            "entropy": total, "expected_entropy": within, "mutual_information": np.maximum(total - within, 0.0)
        }  # fmt: skip


def _entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log(np.where(p > 0.0, p, 1.0)), axis=-1)


class DeepEnsembleRegressor(RegressorMixin, _Ensemble):
    """Regressor that averages the predictions of several networks, and says how far they spread.

    The members have the same settings and differ in their seed: weights, order of samples, masks, and the part
    held out for early stopping. They are trained as one population; each equals its estimator fitted alone.

    Parameters
    ----------
    estimator : MLPRegressor, optional
        Settings of each member, without its `random_state`; by default those of `MLPRegressor`.
    n_members : int, default 5
        M.
    bootstrap : bool, default False
        Train each member on as many samples drawn with replacement. Scaling is fitted on all of them.
    random_state : int, RandomState or None, default None
        Of the seeds of the members.
    batches : {"own", "shared"}, default "own"
        "shared" is faster: all members meet the samples in one order.
    memory : int, optional
        Most bytes for training; by default what is free.
    workers : int, optional
        Threads; by default one per processor where there is enough work.

    Attributes
    ----------
    estimators_ : list of MLPRegressor
        The members, fitted; those that diverged are left out.
    seeds_ : list of int
        `random_state` of each.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> X = np.linspace(-1.0, 1.0, 60)[:, None]
    >>> member = MLPRegressor((16,), max_iter=80, learning_rate_init=0.02)
    >>> ensemble = DeepEnsembleRegressor(member, random_state=0).fit(X, X[:, 0] ** 2)
    >>> mean, std = ensemble.predict([[0.5], [4.0]], return_std=True)
    >>> bool(abs(mean[0] - 0.25) < 0.1), bool(std[1] > std[0])
    (True, True)
    """

    _kind = MLPRegressor

    def member_predictions(self, X: Any) -> Any:
        """Return the predictions of each member, (M, N), or (M, N, O)."""
        return follow(X, self._each("predict", X))

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the mean prediction (N,), or (N, O).

        Parameters
        ----------
        X : array_like or CSR matrix (N, I)
        return_std : bool, default False
            Also return the standard deviation of the members' predictions, of the same shape: how far they
            disagree. It does not contain the noise of the targets, so it is no interval for new targets.
        """
        each = self._each("predict", X)
        mean = follow(X, each.mean(axis=0))
        return (mean, follow(X, each.std(axis=0))) if return_std else mean
