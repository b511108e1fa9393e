"""xpnet: multilayer perceptrons with one set of layer code on NumPy (CPU) and CuPy (CUDA)."""

from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec
from typing import TYPE_CHECKING as _TYPE_CHECKING

from .backend import Backend, get_backend
from .callbacks import Callback
from .errors import (
    ConfigError,
    DataError,
    DeviceError,
    DivergedError,
    FileFormatError,
    FileWriteError,
    MissingFileError,
    MissingPackageError,
    OutOfMemoryError,
    XpnetError,
)
from .mlp import MLP, load
from .optim import SGD, AdaGrad, Adam, AdamW, RMSProp
from .train import Interrupted, Trainer, evaluate, fit
from .training.history import History

if _TYPE_CHECKING:
    from . import (  # modules whose names are public: `__getattr__` imports them when they are used
        activations as activations,
    )
    from . import (
        backend as backend,
    )
    from . import (
        callbacks as callbacks,
    )
    from . import (
        checkpoint as checkpoint,
    )
    from . import (
        data as data,
    )
    from . import (
        diagnostics as diagnostics,
    )
    from . import (
        errors as errors,
    )
    from . import (
        estimators as estimators,
    )
    from . import (
        exchange as exchange,
    )
    from . import (
        init as init,
    )
    from . import (
        layers as layers,
    )
    from . import (
        logs as logs,
    )
    from . import (
        losses as losses,
    )
    from . import (
        metrics as metrics,
    )
    from . import (
        mlp as mlp,
    )
    from . import (
        optim as optim,
    )
    from . import (
        parity as parity,
    )
    from . import (
        plots as plots,
    )
    from . import (
        populations as populations,
    )
    from . import (
        rng as rng,
    )
    from . import (
        runs as runs,
    )
    from . import (
        schedules as schedules,
    )
    from . import (
        sweep as sweep,
    )
    from . import (
        tabular as tabular,
    )
    from . import (
        testing as testing,
    )
    from . import (
        training as training,
    )
    from .estimators import (
        DeepEnsembleClassifier,
        DeepEnsembleRegressor,
        MLPClassifier,
        MLPRegressor,
        PopulationSearchCV,
    )
    from .populations import fit_many

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Backend",
    "Callback",
    "ConfigError",
    "DataError",
    "DeepEnsembleClassifier",
    "DeepEnsembleRegressor",
    "DeviceError",
    "DivergedError",
    "FileFormatError",
    "FileWriteError",
    "History",
    "Interrupted",
    "MLPClassifier",
    "MLPRegressor",
    "MissingFileError",
    "MissingPackageError",
    "OutOfMemoryError",
    "PopulationSearchCV",
    "RMSProp",
    "Trainer",
    "XpnetError",
    "__version__",
    "evaluate",
    "fit",
    "fit_many",
    "get_backend",
    "load",
]


_ESTIMATORS = (
    "DeepEnsembleClassifier",
    "DeepEnsembleRegressor",
    "MLPClassifier",
    "MLPRegressor",
    "PopulationSearchCV",
)


#: Modules with public names that importing this one does not load.
_LATER = (
    "diagnostics", "estimators", "exchange", "logs", "parity", "plots", "populations", "runs", "sweep", "tabular",
    "testing",
)  # fmt: skip


def __getattr__(name: str) -> object:
    # the estimators need scikit-learn, which takes a second to import
    if name in _ESTIMATORS:
        from . import estimators

        return getattr(estimators, name)
    if name == "fit_many":
        from .populations import fit_many

        return fit_many
    if not name.startswith("_") and _find_spec(f"{__name__}.{name}") is not None:
        return _import_module(f"{__name__}.{name}")  # as xpnet.plots or xpnet.exchange
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_LATER})
