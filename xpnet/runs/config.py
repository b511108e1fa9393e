"""One schema for a training run: the command's flags, the TOML file and the record in the run folder.

Each field of `TrainConfig` is a key of the file (``batch_size``) and a flag (``--batch-size``). Flags
overrule the file, which overrules the defaults.
"""

from __future__ import annotations

import functools
import math
import shlex
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..backend import PRECISIONS
from ..data.dataset import TASKS
from ..data.spelling import MISSING
from ..data.table_sources import is_table
from ..errors import ConfigError, unknown_name
from ..optim import Optimizer, get_optimizer
from ..schedules import Schedule, get_schedule

#: The word that leaves a setting to the data; it is None until they are known. See `xpnet.runs.automatic`.
AUTO = "auto"


def _option(default: Any, help: str, group: str, **kwargs: Any) -> Any:
    metadata = {"help": help, "group": group, **kwargs}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _left_to_data(help: str, group: str) -> Any:
    return _option(None, help, group, auto=True)


@dataclass(kw_only=True)
class TrainConfig:
    """Settings of a run.

    Those whose help says what "auto" is are None until the data are known: `xpnet.runs.automatic.resolve` then decides.

    Examples
    --------
    >>> TrainConfig(hidden=[500], lr=0.01).get_optimizer().lr
    0.01
    """

    data: str = _option(
        "digits", "digits, mnist, fashion-mnist, or a file: CSV, Parquet, NPZ, NPY, IDX, or a folder.", "data"
    )
    data_dir: str | None = _option(
        None, "Folder that holds the named data set (default: $XPNET_DATA).", "data"
    )
    labels: str | None = _option(None, "File of labels, where the data file has none (NPY, IDX).", "data")
    target: str | None = _option(
        None, "Column of a table (default: the last), or key of an NPZ file, that is predicted.", "data"
    )
    task: str | None = _option(
        None, "classification, multilabel (arrays) or regression (default: by the target of a table or a loss that is "
        "for numbers only, else classification).", "data", choices=TASKS,
    )  # fmt: skip
    valid: str | None = _option(None, "Validation data of your own, a file like --data.", "data")
    valid_fraction: float = _left_to_data(
        "Share of the training data held out for validation; 0 for none. auto: 0.1; none where features have 1000 "
        "rows or fewer, unless --patience or --monitor needs it.",
        "data",
    )
    test: str | None = _option(None, "Test data of your own, a file like --data.", "data")
    test_fraction: float | None = _option(
        None,
        "Share held out for the test, the same for every seed (default: 0.1 for tables, else 0).",
        "data",
    )
    categorical: list[str] = _option(  # noqa: RUF009
        [], "Columns of numbers that are categories: class,zip.", "tables"
    )
    ignore: list[str] = _option([], "Columns to leave out: name,ticket.", "tables")  # noqa: RUF009
    weight: str | None = _option(
        None, "Column of what each row counts in training; no feature. (In NPZ files: the array sample_weight.)",
        "tables",
    )  # fmt: skip
    decimal: str | None = _option(
        None, "What stands before the decimals of numbers in CSV files (default: as their cells say).", "tables",
        choices=(".", ","),
    )  # fmt: skip
    missing_values: list[str] = _option(  # noqa: RUF009
        list(MISSING), "Cells of CSV files without a value, beside empty ones; in any case.", "tables"
    )
    drop_missing_target: bool = _option(
        False, "Leave out rows without a value in the target column.", "tables"
    )
    max_categories: int = _option(50, "Features for one column; rarer categories share one.", "tables")
    impute: str = _option(
        "median", "What fills missing numbers: median or mean.", "tables", choices=("median", "mean")
    )
    missing_indicator: bool = _option(True, "Add a feature that says where a number is missing.", "tables")
    standardize: bool = _option(
        True, "Bring numbers to mean 0 and scale 1: columns of tables, and samples of NPZ and NPY files (pixels, "
        "of types uint8 and uint16, are brought to 0..1 instead).", "data",
    )  # fmt: skip
    scale_target: bool = _option(
        True,
        "Learn the targets of a regression at mean 0 and scale 1; answers are in their own units.",
        "data",
    )
    hidden: list[int] = _left_to_data(  # noqa: RUF009
        "Widths of the hidden layers: 500 or 300,100; none for a linear model. auto: 256; features: 512 for classes of "
        "1000 rows or fewer, 256,128 for numbers.",
        "model",
    )
    activation: str = _option("relu", "Activation of hidden layers; one, or one each: relu,tanh.", "model")
    output_activation: str = _option(
        "identity", "Activation of the last layer; identity for logits.", "model"
    )
    dropout: list[float] = _left_to_data(  # noqa: RUF009
        "Share of hidden units dropped; one, or one per hidden layer. auto: 0; for numbers from 2000 rows of features "
        "on 0.1.",
        "model",
    )
    input_dropout: float = _option(0.0, "Share of inputs dropped.", "model")
    input_noise: float = _left_to_data(
        "Standard deviation of Gaussian noise on inputs. auto: 0; for classes of features 0.33 N^(-1/I).",
        "model",
    )
    init: str = _option(
        "auto", "Weight initialiser: auto, he_normal, glorot_uniform, normal:0.01, ...", "model"
    )
    bias: float = _option(0.0, "Initial value of biases.", "model")
    loss: str | None = _option(
        None, "Loss; default: cross-entropy for classes, else squared error.", "training"
    )
    label_smoothing: float = _left_to_data(
        "Label smoothing, 0 to below 1. auto: 0; for classes of features 0.1.", "training"
    )
    class_weight: str | None = _option(
        None, "balanced: weigh classes by their frequency.", "training", choices=("balanced",)
    )
    l1: float = _option(0.0, "Penalty l1 * sum |w|.", "training")
    l2: float = _left_to_data(
        "Penalty l2 / 2 * sum w^2. auto: 0; features: for classes 1/N within 0.001 and 0.01, for numbers 12000/N^2 "
        "within 0.0001 and 0.1.",
        "training",
    )
    max_norm: float | None = _option(None, "Limit on the norm of each unit's incoming weights.", "training")
    clip_norm: float | None = _option(None, "Limit on the norm of the gradient.", "training")
    clip_value: float | None = _option(None, "Limit on each entry of the gradient.", "training")
    optimizer: str = _option(
        "adam",
        "sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw; options: adamw:weight_decay=0.05.",
        "training",
    )
    lr: float | None = _left_to_data(
        "Learning rate. auto: the optimizer's own; features with adam or adamw: 0.003.", "training"
    )
    momentum: float | None = _option(None, "Momentum of sgd.", "training")
    schedule: str = _left_to_data(
        "constant, step, exponential, cosine, linear, one_cycle, plateau; options: step:every=5,factor=0.5. "
        "auto: constant; features: cosine.",
        "training",
    )
    warmup: float | None = _option(None, "Share of the run in which the rate first rises from 0.", "training")
    epochs: int = _left_to_data(
        "Passes over the data, in all (also of a resumed run). auto: 30; features: 200, fewer beyond 40000 updates.",
        "training",
    )
    batch_size: int = _left_to_data(
        "Examples per update. auto: 64; features: N/128 within 64 and 256.", "training"
    )
    patience: int | None = _option(None, "Stop after so many epochs without improvement.", "training")
    min_delta: float = _option(0.0, "The least change that counts as an improvement.", "training")
    monitor: str | None = _option(
        None, "What to improve: valid_accuracy, valid_loss, train_loss, train_accuracy.", "training"
    )
    seed: int = _option(0, "Seed of weights, order, masks and the validation split.", "training")
    dtype: str = _option("float32", "float32 or float64.", "training", choices=("float32", "float64"))
    precision: str | None = _option(
        None, "Of products: float32, float64 (sets --dtype), tf32, bf16 (on CUDA; weights stay float32); "
        "default: --dtype.", "training", choices=PRECISIONS,
    )  # fmt: skip
    statistics: bool = _option(
        False, "Record gradient norms, dead and saturated units per layer.", "training"
    )
    device: str = _option("cpu", "cpu, numba, cuda, cuda:N or auto.", "run")
    threads: int | None = _option(
        None, "Threads of the matrix library (default: one for small networks, else its own choice).", "run"
    )
    capture: bool = _option(
        True, "Capture a step once and repeat it; without, slower and easy to debug.", "run"
    )
    autotune: bool = _option(
        False, "On CUDA: time several ways to do products and steps, and keep the quickest.", "run"
    )
    log: list[str] = _option(  # noqa: RUF009
        [], "Also keep a log for other programs: csv, tensorboard, or both.", "run"
    )
    save_every: int = _option(0, "Also save the state every N updates (0: after each epoch only).", "run")

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.metadata.get("auto") and value in (None, AUTO):
                setattr(self, f.name, None)
                continue
            setattr(self, f.name, converted(f.name, hints()[f.name], value))
            choices = f.metadata.get("choices")
            if choices and getattr(self, f.name) is not None and getattr(self, f.name) not in choices:
                raise unknown_name(f.name.replace("_", "-"), getattr(self, f.name), choices)
        for name in self.log:
            if name not in LOGS:
                raise unknown_name("log", name, LOGS)
        if self.valid_fraction is not None and not 0.0 <= self.valid_fraction < 1.0:
            raise ConfigError(f"valid_fraction must be in [0, 1), found {self.valid_fraction}")
        if self.test_fraction is not None and not 0.0 <= self.test_fraction < 1.0:
            raise ConfigError(f"test_fraction must be in [0, 1), found {self.test_fraction}")
        if self.test is not None and self.test_fraction:
            raise ConfigError(
                "test and test_fraction exclude each other: name a test set, or a share of the data"
            )
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, found {value}")
        if self.precision == "float64":
            self.dtype = "float64"
        elif self.precision is not None and self.dtype == "float64":
            raise ConfigError(
                f"precision {self.precision!r} does not fit dtype 'float64'; leave one of them out"
            )
        if self.target == "":
            raise ConfigError("target is empty; name a column or array, or leave it out")
        if self.weight == "":
            raise ConfigError("weight is empty; name a column, or leave it out")
        if self.get_optimizer().lr == 0.0:
            raise ConfigError("lr is 0, with which nothing is learned; it must be above 0")
        self.get_schedule()

    def get_optimizer(self) -> Optimizer:
        """The optimizer that the settings describe."""
        given = {key: getattr(self, key) for key in ("lr", "momentum")}
        return get_optimizer(
            self.optimizer, **{key: value for key, value in given.items() if value is not None}
        )

    def get_schedule(self) -> Schedule:
        """The schedule that the settings describe; a constant rate where it is left to the data still."""
        return get_schedule(self.schedule or None, **({} if self.warmup is None else {"warmup": self.warmup}))

    def to_toml(self, kind: str = "run", command: str = "train") -> str:
        """The settings as a TOML file; those that are not set are left out, those left to the data are "auto"."""
        lines = [f"# Settings of an xpnet {kind}; xpnet {command} --config FILE runs it again."]
        for f in fields(self):
            value = getattr(self, f.name)
            if value is None and f.metadata.get("auto"):
                value = AUTO
            if value is not None:
                lines.append(f"{f.name} = {toml_value(value)}")
        return "\n".join(lines) + "\n"


#: What `log` may name; see `xpnet.logs`.
LOGS = ("csv", "tensorboard")

_LEAST = {"epochs": 1, "batch_size": 1, "save_every": 0, "threads": 1, "patience": 1, "max_categories": 2}

#: Settings that name files: what they hold is checked when a run goes on, not what they are called.
FILES = ("data", "labels", "valid", "test")

#: Settings that only tables (CSV, Parquet) have.
TABLE_SETTINGS = (
    "categorical", "ignore", "weight", "decimal", "missing_values", "drop_missing_target",
    "max_categories", "impute", "missing_indicator",
)  # fmt: skip


@functools.cache
def hints() -> dict[str, Any]:
    return typing.get_type_hints(TrainConfig)


def converted(name: str, hint: Any, value: Any) -> Any:
    """Check `value` against the type of the field; whole numbers may stand for real ones."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None:
        if type(None) in options:
            return None
        raise ConfigError(f"{name} needs a value")
    kind = next(o for o in options if o is not type(None))
    origin = typing.get_origin(kind)
    if origin is list:
        (inner,) = typing.get_args(kind)
        return [converted(name, inner, v) for v in (value if isinstance(value, list | tuple) else [value])]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{name} must be {_KINDS[kind]}, found {value!r}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{name} must be a finite number, found {value}")
    if kind is str:
        _check_unicode(name, value)
    return value


def _check_unicode(name: str, text: str) -> None:
    """Refuse names of bytes that are not UTF-8, which no record can hold: Python keeps them as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        said = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise ConfigError(
            f"{name} is '{said}', which is not UTF-8, so that no record can name it; rename it"
        ) from None


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(toml_value(v) for v in value)}]"
    if isinstance(value, str):
        # TOML basic strings escape like JSON's, except that DEL must be escaped too
        import json

        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def load_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file, whatever its keys.

    Raises
    ------
    ConfigError
        Missing or malformed file.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error


def known_settings(path: str | Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that `values`, read from `path`, hold, under their names in `TrainConfig`.

    Raises
    ------
    ConfigError
        A key that is no setting (the nearest spelling is shown), or the table of a sweep.
    """
    if isinstance(values.get("sweep"), Mapping):
        raise ConfigError(
            f"{path} holds the settings of a sweep, in its table [sweep]: xpnet sweep --config {shlex.quote(str(path))}"
        )
    known = [f.name for f in fields(TrainConfig)]
    result = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            raise unknown_name(f"setting in {path}:", key, known)
        result[name] = value
    return result


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read the settings of a TOML file.

    Raises
    ------
    ConfigError
        Missing or malformed file, or a key that is no setting (the nearest spelling is shown).
    """
    return known_settings(path, load_toml(path))


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, then, now) for what differs; settings that an older xpnet did not have were at their defaults.

    Examples
    --------
    >>> list(changed({"lr": 0.1}, {"lr": 0.2, "bias": 0.0}))
    [('lr', 0.1, 0.2)]
    """
    defaults = vars(TrainConfig())
    for name, value in now.items():
        then = before.get(name, defaults.get(name))
        if then != value:
            yield name, then, value


def only_for_tables(setting: str, data: str) -> ConfigError:
    """Build the error for a setting of tables where there is none."""
    return ConfigError(
        f"{setting} is a setting for tables (CSV, Parquet), but the data are {data!r}; leave it out"
    )


def resolve(file: str | Path | None, flags: Mapping[str, Any]) -> TrainConfig:
    """Combine a file (or None) with flags, which win."""
    return combine({} if file is None else read_toml(file), flags)


def combine(settings: Mapping[str, Any], flags: Mapping[str, Any]) -> TrainConfig:
    """Combine the settings of a file with flags, which win; a dtype also wins over a precision, and the reverse.

    Raises
    ------
    ConfigError
        Impossible settings; or a flag, even one that names the default, that means nothing for the data.
    """
    values = dict(settings)
    for one, other in (("dtype", "precision"), ("precision", "dtype")):
        if one in flags and other not in flags:
            values.pop(other, None)
    values |= flags
    if values.get("precision") == "float64" and values.get("dtype", "float64") != "float64":
        raise ConfigError(
            f"precision 'float64' does not fit dtype {values['dtype']!r}; leave one of them out"
        )
    config = TrainConfig(**values)
    for name in flags:
        if name in TABLE_SETTINGS and not is_table(config.data):
            raise only_for_tables(name, config.data)
    return config
