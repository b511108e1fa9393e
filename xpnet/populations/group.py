"""Groups: members that mix, with everything that they share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..backend import Backend
from ..data.checks import check_trainable_labels
from ..errors import ConfigError, DataError
from ..interchange import arrive, dtype_name, is_foreign, to_host
from ..losses import Loss, get_loss
from ..mlp import MLP
from ..optim import Optimizer
from ..training.examples import TASKS, Examples, default_loss, example_weights, infer_task, pair, prepare
from ..training.passes import Targets
from ..training.settings import check_combination, check_infogain, check_monitor, frozen_parameters
from .members import Member


class Data:
    """Training and validation data, prepared once for all groups that take them alike.

    Parameters
    ----------
    data : (X, y)
    validation : (X, y) or (X, y, sample_weight), optional
    be : Backend
        Of the models; what is on its device stays there.
    """

    def __init__(self, data: Any, validation: Any, be: Backend):
        self.x, self.y = pair("data", data, be)
        self.n = int(self.y.shape[0]) if is_foreign(self.y) else len(self.y)
        if validation is not None and not (
            isinstance(validation, (tuple, list)) and len(validation) in (2, 3)
        ):
            raise DataError(
                f"validation must be (X, y) or (X, y, sample_weight), found {type(validation).__name__}"
            )
        parts = () if validation is None else validation
        self.held_out = tuple(arrive(part, be, f"part {i} of validation") for i, part in enumerate(parts))
        self._known: dict[tuple[Any, ...], Examples] = {}

    @cached_property
    def y_on_host(self) -> np.ndarray:
        """The targets on the host, brought there once for all members."""
        return np.asarray(to_host(self.y))

    def examples(self, model: MLP, loss: Loss, task: str) -> Examples:
        """The training data, without weights, for networks like `model`."""
        return self._prepared("train", model, loss, task)

    def validation(self, model: MLP, loss: Loss, task: str) -> Examples | None:
        """The common validation data for networks like `model`."""
        return self._prepared("valid", model, loss, task) if self.held_out else None

    def _prepared(self, part: str, model: MLP, loss: Loss, task: str) -> Examples:
        key = (part, model.sizes[0], model.sizes[-1], loss.name, task)
        if key not in self._known:
            if part == "train":
                made = prepare(model, self.x, self.y, loss=loss, task=task)
            else:
                x, y, *weight = self.held_out
                model.check_names(x, "validation X")
                made = prepare(
                    model, x, y, loss=loss, task=task, sample_weight=weight[0] if weight else None,
                    name="validation ", training=False,
                )  # fmt: skip
            self._known[key] = made
        return self._known[key]

    @property
    def n_bytes(self) -> int:
        """Bytes of the prepared data that are copies."""
        raw = {id(self.x), id(self.y)} | {id(part) for part in self.held_out}
        arrays = [
            a for e in self._known.values() for a in (e.x, e.labels, e.targets, e.weights) if a is not None
        ]
        copies = [a for a in arrays if id(a) not in raw and getattr(a, "base", None) is None]
        return sum(math.prod(a.shape) * np.dtype(dtype_name(a)).itemsize for a in copies)


@dataclass(kw_only=True, eq=False)
class Group:
    """Members that train in batched products, and what is the same for all of them.

    Attributes
    ----------
    members : list of Member
    prototype : MLP
        A model of the members' architecture, not trained.
    examples : Examples
        Without weights.
    held_out : Examples or None
        The common validation data, where members have no rows of their own for it.
    n_rows, n_valid : int
        Examples that each member is trained and validated on.
    frozen : tuple of str
        The parameters that keep their weights.
    weights : dict
        Per index of a member its weights of the examples (N,), where there are any.
    ready : dict
        Per index of a member its model, where it has been made already.
    """

    members: list[Member] = field(default_factory=list)
    prototype: MLP
    dtype: str
    loss: Loss
    task: str
    targets: Targets
    monitor: str
    examples: Examples
    held_out: Examples | None
    n_rows: int
    n_valid: int
    frozen: tuple[str, ...] = ()
    weights: dict[int, np.ndarray] = field(default_factory=dict)
    ready: dict[int, MLP] = field(default_factory=dict)

    @property
    def network(self) -> dict[str, Any]:
        """Options of `MLP` of the first member."""
        return self.members[0].network

    @property
    def training(self) -> dict[str, Any]:
        """Options of `fit` of the first member; what members need not share is read from each."""
        return self.members[0].training

    @property
    def batch_size(self) -> int:
        return self.training["batch_size"]

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.n_rows / self.batch_size)

    @property
    def restores(self) -> bool:
        """Whether the weights of the best epoch are kept."""
        return bool(self.training["restore_best"] and self.n_valid)


def make_groups(members: list[Member], data: Data, model_options: dict[str, Any]) -> list[Group]:
    """Sort members into groups.

    Parameters
    ----------
    members : list of Member
    data : Data
    model_options : dict
        dtype, device and the like, as `Member.model` takes them.

    Raises
    ------
    ConfigError, DataError
        Settings or data that do not fit the model; the message says of which configuration.
    """
    groups: dict[tuple, Group] = {}
    prototypes: dict[tuple, tuple[int, MLP]] = {}
    for member in members:
        try:
            network = _network_key(member)
            if network not in prototypes:
                prototypes[network] = member.index, member.model(**model_options)
            owner, model = prototypes[network]
            group = _place(member, network, model, data, groups)
            if owner == member.index:
                group.ready[owner] = model
        except (ConfigError, DataError) as error:
            raise type(error)(f"configuration {member.index}: {error}") from error
    return list(groups.values())


def _place(member: Member, network: tuple, model: MLP, data: Data, groups: dict[tuple, Group]) -> Group:
    t = member.training
    chosen = None if t["loss"] is None else get_loss(t["loss"])
    if t["task"] is not None and t["task"] not in TASKS:
        raise ConfigError(f"task must be one of {', '.join(TASKS)}, found {t['task']!r}")
    task = t["task"] or infer_task(data.y, chosen, model.sizes[-1])
    loss = chosen or default_loss(task, model.sizes[-1])
    check_combination(loss, task, model)
    examples = data.examples(model, loss, task)
    held_out = None if member.validation_rows is not None else data.validation(model, loss, task)
    n_rows = examples.n if member.rows is None else len(member.rows)
    n_valid = held_out.n if held_out else 0 if member.validation_rows is None else len(member.validation_rows)
    monitor, _ = check_monitor(t["monitor"], task, validated=n_valid > 0)
    if member.rows is not None and task == "classification":  # they must do for training alone
        check_trainable_labels(data.y_on_host[member.rows])
    weighted = t["sample_weight"] is not None or t["class_weight"] is not None
    infogain, frozen = t["infogain"], frozen_parameters(t["freeze"], model)
    key = (
        network, _optimizer_key(member.optimizer), task, loss.name, id(chosen) if isinstance(t["loss"], Loss) else None,
        t["max_norm"], t["clip_norm"], t["clip_value"], t["label_smoothing"], t["batch_size"],
        None if infogain is None else np.asarray(infogain).tobytes(), bool(t["restore_best"]), monitor, n_rows,
        n_valid, member.validation_rows is None, weighted, frozen,
    )  # fmt: skip
    if key not in groups:
        targets = Targets(label_smoothing=t["label_smoothing"], infogain=check_infogain(infogain, model))
        groups[key] = Group(
            prototype=model, dtype=model.dtype, loss=loss, task=task, targets=targets, monitor=monitor,
            examples=examples, held_out=held_out, n_rows=n_rows, n_valid=n_valid,
            frozen=frozen,
        )  # fmt: skip
    group = groups[key]
    if weighted:
        group.weights[member.index] = _weights(member, task, model, data)
    group.members.append(member)
    return group


def _network_key(member: Member) -> tuple:
    """What the networks of members that mix have in common: all but the numbers of rates and how weights start."""
    n = member.network
    hidden = max(len(n["sizes"]) - 2, 0) if np.ndim(n["sizes"]) else 0
    rates = n.get("dropout", 0.0)
    each = tuple(rates) if np.ndim(rates) else (rates,) * hidden
    activation = n.get("activation", "relu")
    return (
        tuple(n["sizes"]) if np.ndim(n["sizes"]) else n["sizes"],
        activation if isinstance(activation, str) else tuple(activation), n.get("output_activation", "identity"),
        tuple(bool(p) for p in each), bool(n.get("input_dropout")), bool(n.get("input_noise")),
        # these two start the weights, and a bad one has to be noticed for each
        n.get("init", "auto"), n.get("bias", 0.0),
    )  # fmt: skip


def _optimizer_key(optimizer: Optimizer) -> tuple:
    switches = [getattr(optimizer, f.name) for f in fields(optimizer) if f.type in ("bool", bool)]
    return (type(optimizer), *switches)


def _weights(member: Member, task: str, model: MLP, data: Data) -> np.ndarray:
    """The weights (N,) of the examples for one member; those it does not see have none."""
    t = member.training
    y = data.y_on_host
    rows = slice(None) if member.rows is None else member.rows
    weight = t["sample_weight"]
    if weight is not None:
        weight = np.asarray(to_host(weight, "sample_weight"))
        if weight.shape != (data.n,):
            raise DataError(
                f"sample_weight has shape {weight.shape}, expected one per example of the data: ({data.n},)"
            )
        weight = weight[rows]
    own = example_weights(
        y[rows], len(y[rows]), task=task, n_classes=max(model.sizes[-1], 2), dtype=model.dtype,
        sample_weight=weight, class_weight=t["class_weight"],
    )  # fmt: skip
    result = np.zeros(data.n, model.dtype)
    result[rows] = own
    return result


def mixed_optimizer(members: list[Member], *, each: bool) -> Optimizer:
    """One optimizer for members of a group: numbers in which they differ become lists.

    Parameters
    ----------
    members : list of Member
    each : bool
        Whether every member needs a rate of its own in any case.
    """
    first = members[0].optimizer
    changes: dict[str, Any] = {}
    for f in fields(first):
        values = [getattr(m.optimizer, f.name) for m in members]
        if any(v != values[0] for v in values) or (each and f.name == "lr"):
            changes[f.name] = [float(v) for v in values]
    return replace(first, **changes)


def mixed_number(members: list[Member], name: str) -> Any:
    """A number of the training: one for all, or a list."""
    values = [float(m.training[name]) for m in members]
    return values[0] if all(v == values[0] for v in values) else values


def mixed_rates(members: list[Member]) -> dict[str, Any]:
    """Options of `MLP` for a population of members of a group."""
    network = dict(members[0].network)
    if len(members) == 1:
        return network
    hidden = len(network["sizes"]) - 2
    rates = [m.network.get("dropout", 0.0) for m in members]
    each = [tuple(r) if np.ndim(r) else (r,) * hidden for r in rates]
    network["dropout"] = [tuple(r[layer] for r in each) for layer in range(hidden)]
    for name in ("input_dropout", "input_noise"):
        network[name] = tuple(m.network.get(name, 0.0) for m in members)
    for name in ("dropout", "input_dropout", "input_noise"):
        network[name] = _collapsed(network[name])
    return network


def _collapsed(value: Any) -> Any:
    """One number where all members have the same."""
    if isinstance(value, list):
        return [_collapsed(v) for v in value]
    return value[0] if all(v == value[0] for v in value) else value
