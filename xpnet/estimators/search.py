"""PopulationSearchCV: a search over settings whose candidates, folds and seeds are trained together."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler, check_cv
from sklearn.utils import _safe_indexing, check_random_state, get_tags, indexable

from ..errors import ConfigError, DataError, unknown_name
from .base import BaseMLP
from .session import Session, entered
from .together import Job, check_training, plan, train

Split = tuple[Any, Any]


class PopulationSearchCV(GridSearchCV):
    """Search for good settings by cross-validation, with all networks of the search trained together.

    It takes the place of scikit-learn's `GridSearchCV` and `RandomizedSearchCV`: the same attributes, the same
    scores as fitting each candidate on each fold by itself, found in batched products over candidates, folds and
    seeds. Candidates may differ in everything; those with networks of one shape share a population.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor, or an estimator around one
        Such as a `Pipeline` that ends in one. Where ``fit`` trains several networks, only the first is trained with
        the others.
    param_grid : dict or list of dict
        Values to try by name of the parameter, as `GridSearchCV` takes them; with `n_iter` also distributions
        (objects with ``rvs``), as `RandomizedSearchCV` takes them.
    n_iter : int, optional
        Draw so many candidates at random instead of trying all.
    scoring : str, callable, list, tuple or dict, optional
        By default the estimator's ``score``. Several are possible.
    refit : bool, str or callable, default True
        Fit the best candidate on all samples; with several scores the name of the one that decides. A callable
        gets `cv_results_` and returns the index of the best.
    cv : int, splitter or iterable, optional
        Folds; by default 5, keeping the shares of classes.
    n_seeds : int, default 1
        Networks per candidate and fold, which differ in `random_state`: r, r + 1, ... where it is a number. Each
        fold then counts `n_seeds` times in `n_splits_` and `cv_results_`: first all folds with the first seed.
    random_state : int, RandomState or None, default None
        Of the candidates that are drawn.
    batches : {"own", "shared"}, default "own"
        "own": each network meets the samples in an order of its own, as if it was fitted alone. "shared" is faster:
        those on the same samples share one order.
    memory : int, optional
        Most bytes for training; by default what is free.
    workers : int, optional
        Threads; by default one per processor where there is enough work.
    error_score : "raise" or float, default NaN
        The score of a candidate that cannot be fitted or diverges.
    return_train_score : bool, default False
    verbose : int, default 0

    Attributes
    ----------
    best_params_, best_score_, best_index_, best_estimator_, refit_time_, scorer_, multimetric_, n_splits_
        As in `GridSearchCV`.
    cv_results_ : dict
        As in `GridSearchCV`; the times to fit are the shares of each network in the time of its population.
    population_time_ : float
        Seconds that preparing and training all networks took.

    Notes
    -----
    A regressor with ``early_stopping`` has its `validation_scores_` for the best epoch only. Candidates with
    ``learning_rate="adaptive"``, ``callbacks`` or ``verbose`` are trained one by one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from xpnet import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> search = PopulationSearchCV(
    ...     MLPClassifier((8,), max_iter=20, random_state=0), {"learning_rate_init": [1e-4, 0.02]}, cv=3)
    >>> search.fit(X, y).best_params_
    {'learning_rate_init': 0.02}
    """

    # of the base class; everything runs in this process, on threads of its own
    n_jobs = 1
    pre_dispatch = "2*n_jobs"

    def __init__(
        self,
        estimator: Any,
        param_grid: Mapping[str, Any] | list[Mapping[str, Any]],
        *,
        n_iter: int | None = None,
        scoring: Any = None,
        refit: bool | str | Callable[..., Any] = True,
        cv: Any = None,
        n_seeds: int = 1,
        random_state: Any = None,
        batches: str = "own",
        memory: int | None = None,
        workers: int | None = None,
        error_score: str | float = np.nan,
        return_train_score: bool = False,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.param_grid = param_grid
        self.n_iter = n_iter
        self.scoring = scoring
        self.refit = refit
        self.cv = cv
        self.n_seeds = n_seeds
        self.random_state = random_state
        self.batches = batches
        self.memory = memory
        self.workers = workers
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, **params: Any) -> PopulationSearchCV:
        """Try all candidates, and fit the best one on all samples.

        Parameters
        ----------
        X, y
            As the estimator takes them.
        **params
            For ``fit`` of the estimator (``sample_weight``) and for the folds (``groups``).

        Raises
        ------
        ConfigError
            No candidates, an unknown parameter, or an estimator without a network of xpnet.
        ValueError
            More folds than samples; or, with ``error_score="raise"``, what a candidate raised.
        """
        self._check()
        if y is None:
            raise DataError("PopulationSearchCV requires y to be passed, but the target y is None")
        given = self.cv
        try:
            folds = check_cv(given, y, classifier=is_classifier(self.estimator))  # splits may come only once
            self.cv = folds if self.n_seeds == 1 else _Repeated(folds, self.n_seeds)
            self._samples: tuple[Any, Any, dict[str, Any]] = (*indexable(X, y), params)
            super().fit(X, y, **params)
        finally:
            self.cv = given
            self._samples = (None, None, {})
        self._report_times()
        return self

    def _check(self) -> None:
        if not isinstance(self.n_seeds, (int, np.integer)) or self.n_seeds < 1:
            raise ConfigError(f"n_seeds must be a whole number >= 1, found {self.n_seeds!r}")
        if self.n_iter is not None and (not isinstance(self.n_iter, (int, np.integer)) or self.n_iter < 1):
            raise ConfigError(f"n_iter must be a whole number >= 1, found {self.n_iter!r}")
        check_training(self.batches, self.memory, self.workers)
        if not _networks(self.estimator):
            raise ConfigError(
                f"PopulationSearchCV trains xpnet's MLPClassifier and MLPRegressor together, alone or inside another "
                f"estimator, and found none in {type(self.estimator).__name__}; for other estimators take "
                "scikit-learn's GridSearchCV"
            )

        from .ensemble import _Ensemble

        for inside in (self.estimator, *self.estimator.get_params(deep=True).values()):
            if isinstance(inside, (_Ensemble, PopulationSearchCV)):
                raise ConfigError(
                    f"{type(inside).__name__} trains a population of its own, so nothing is gained by training several "
                    "of them together; search over it with scikit-learn's GridSearchCV"
                )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags = deepcopy(get_tags(self.estimator).target_tags)
        return tags

    # --- called by the base class -----------------------------------------------------------------
    def _run_search(self, evaluate_candidates: Callable[..., Any], **ignored: Any) -> None:
        candidates = self._candidates()
        X, y, params = self._samples
        routed = self._get_routed_params_for_fit(params)
        # drawn once, so that the networks are scored on the folds they were not trained on
        splits = list(check_cv(self.cv, y, classifier=is_classifier(self.estimator)).split(
            X, y, **routed.splitter.split
        ))  # fmt: skip
        started = time.perf_counter()
        session = Session()
        jobs: dict[tuple[int, int], Job] = {}
        with entered(session):
            for c, candidate in enumerate(candidates):
                for k, split in enumerate(splits):
                    job = self._plan(session, candidate, split, k, len(splits), routed.estimator.fit)
                    if job is not None:
                        jobs[c, k] = job
        session.forget_data()
        train(list(jobs.values()), batches=self.batches, memory=self.memory, workers=self.workers)
        self.population_time_ = time.perf_counter() - started
        for job in jobs.values():
            job.plan.data = job.plan.validation = None  # type: ignore[assignment]
        session.planning, session.round = False, 0
        session.waiting = [job.trained() for job in jobs.values()]
        self._seconds = np.zeros((len(candidates), len(splits)))
        for place, job in jobs.items():
            self._seconds[place] = job.seconds
        with entered(session):
            evaluate_candidates(candidates, cv=_Fixed(splits))

    def _plan(
        self,
        session: Session,
        candidate: Mapping[str, Any],
        split: Split,
        k: int,
        n_splits: int,
        fit_params: Any,
    ) -> Job | None:
        """Return what fitting this candidate on this split trains; None where that fails, which scoring will report."""
        X, y, _ = self._samples
        estimator = clone(self.estimator).set_params(**clone(candidate, safe=False))
        session.round = k // (n_splits // self.n_seeds)
        if session.round:
            _reseed(estimator, session.round)
        rows = split[0]
        own = {name: _of_rows(value, rows, X) for name, value in fit_params.items()}
        parts = (_safe_indexing(X, rows), *(() if y is None else (_safe_indexing(y, rows),)))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scoring goes the same way and says the same
                return plan(session, lambda: estimator.fit(*parts, **own))
        except Exception:
            return None

    def _candidates(self) -> list[dict[str, Any]]:
        grid = self.param_grid
        listed = [grid] if isinstance(grid, Mapping) else grid
        if not isinstance(listed, Iterable) or not all(isinstance(g, Mapping) for g in listed):
            raise ConfigError(
                f"param_grid must be a dict of values by parameter, or a list of such, found {grid!r}"
            )
        listed = list(listed)
        known = self.estimator.get_params(deep=True)
        for one in listed:
            for name, values in one.items():
                # parameters of a step that is itself searched for are known only when the candidate is built
                if name not in known and not any(name.startswith(f"{step}__") for step in one):
                    raise unknown_name(f"parameter of {type(self.estimator).__name__}", name, known)
                if not hasattr(values, "rvs") and (
                    isinstance(values, str) or not isinstance(values, Iterable)
                ):
                    raise ConfigError(f"param_grid: {name} must be a list of values, found {values!r}")
                if not hasattr(values, "rvs") and not len(list(values)):
                    raise ConfigError(f"param_grid: there are no values for {name}; give at least one")
                if hasattr(values, "rvs") and self.n_iter is None:
                    raise ConfigError(
                        f"param_grid: {name} is a distribution; say with n_iter how many to draw"
                    )
        if not listed:
            raise ConfigError("param_grid is empty: give values by parameter, such as {'alpha': [0.0, 1e-3]}")
        if self.n_iter is None:
            return list(ParameterGrid(listed))
        return list(ParameterSampler(listed, int(self.n_iter), random_state=self.random_state))

    def _report_times(self) -> None:
        """Give each network the share of its population's time, which scoring could not see."""
        seconds, self._seconds = self._seconds, np.zeros((0, 0))
        fitting = self.cv_results_["mean_fit_time"] + seconds.mean(axis=1)
        self.cv_results_["mean_fit_time"], self.cv_results_["std_fit_time"] = fitting, seconds.std(axis=1)


def _networks(estimator: Any) -> list[str]:
    """Names under which the parameters of `estimator` hold networks; "" for itself."""
    if isinstance(estimator, BaseMLP):
        return [""]
    return [k for k, v in estimator.get_params(deep=True).items() if isinstance(v, BaseMLP)]


def _reseed(estimator: Any, k: int) -> None:
    """Give the networks in `estimator` the k-th of their seeds; one without a seed draws anew in any case."""
    for name in _networks(estimator):
        network = estimator if not name else estimator.get_params(deep=True)[name]
        state = network.random_state
        if isinstance(state, (int, np.integer)):
            network.set_params(random_state=int(state) + k)
        elif state is not None:
            draws = check_random_state(state).randint(2**31 - 1, size=k)
            network.set_params(random_state=int(draws[-1]))


def _of_rows(value: Any, rows: Any, x: Any) -> Any:
    """The entries of `rows`, where a parameter of ``fit`` has one per sample."""
    n = x.shape[0] if hasattr(x, "shape") else len(x)
    long = hasattr(value, "__len__") or hasattr(value, "shape")
    if value is None or isinstance(value, (str, Mapping)) or not long:
        return value
    length = value.shape[0] if hasattr(value, "shape") and value.shape else len(value)
    return _safe_indexing(value, rows) if length == n else value


class _Fixed:
    """A splitter whose splits are known."""

    def __init__(self, splits: list[Split]):
        self.splits = splits

    def split(self, X: Any = None, y: Any = None, groups: Any = None) -> list[Split]:
        return self.splits

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return len(self.splits)


class _Repeated:
    """All folds of a splitter, once per seed."""

    def __init__(self, cv: Any, times: int):
        self.cv, self.times = cv, times

    def split(self, X: Any, y: Any = None, groups: Any = None) -> list[Split]:
        return list(self.cv.split(X, y, groups)) * self.times

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        return int(self.cv.get_n_splits(X, y, groups)) * self.times
