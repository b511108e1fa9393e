"""What the inputs and outputs of a network mean: all that it knows beside its weights, and how files keep it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..data.dataset import Preprocessing
from ..errors import DataError
from ..interchange import astype, column_names, follow
from ..losses import Loss

_SHOWN = 8  # names of columns in a message


@dataclass(frozen=True, eq=False)
class TargetUnits:
    """The units that a regression learns its targets in: ``(y - mean) / scale``, one of each per output.

    The network computes in these, near 0 and 1, and only its answers are brought back, in float64: as part of float32
    weights a mean far above the scale would leave nothing of what was learned.

    Parameters
    ----------
    mean, scale : (O,) float64 array
        Under a loss with a log link mean is 0.

    Examples
    --------
    >>> units = TargetUnits(np.array([1e9]), np.array([50.0]))
    >>> units.learnt(np.array([[1e9 + 25.0]])).tolist(), units.own(np.array([[0.5]], "float32")).tolist()
    ([[0.5]], [[1000000025.0]])
    """

    mean: np.ndarray
    scale: np.ndarray

    def learnt(self, y: Any) -> Any:
        """Targets (..., O) in the units that are learnt, float64, where they are."""
        y = astype(y, "float64")
        return (y - follow(y, self.mean)) / follow(y, self.scale)

    def own(self, values: Any) -> Any:
        """Predictions (..., O) in the targets' own units, float64, where they are."""
        values = astype(values, "float64")
        return values * follow(values, self.scale) + follow(values, self.mean)


@dataclass(eq=False, repr=False)
class Meaning:
    """What goes with a network from device to device, to its members, into pickles and files.

    Attributes
    ----------
    preprocessing : Preprocessing or None
        How raw samples become rows of numbers; applied by every method that takes samples.
    classes : tuple of str or None
        Names of the classes in the order of the outputs, where known.
    tabular : dict or None
        How the columns of a table become the rows it takes, as `TabularPreprocessing.to_metadata` records it.
    task : str or None
        "classification", "multilabel" or "regression"; set by `fit`.
    loss : str or None
        Name of the loss it was trained with, which says how outputs become probabilities; set by `fit`.
    unsmoothing : float or None
        Label smoothing that probabilities undo (see `answers.unsmoothed`); set by estimators.
    feature_names : tuple of str or None
        The columns of the data frame that it was trained on; set by `fit`. A frame with others is refused.
    target_units : TargetUnits or None
        What `predict` undoes in the outputs of a regression, and `fit` and `evaluate` do to its targets.
    """

    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    tabular: dict[str, Any] | None = None
    task: str | None = None
    loss: str | None = None
    unsmoothing: float | None = None
    feature_names: tuple[str, ...] | None = None
    target_units: TargetUnits | None = None

    def meaning(self) -> dict[str, Any]:
        """All of it by name."""
        return {field.name: getattr(self, field.name) for field in fields(Meaning)}

    def meaning_to_metadata(self) -> dict[str, Any]:
        """All of it as plain numbers and lists, ready for JSON; what came later than the first files only where set."""
        units = self.target_units
        later = {
            "tabular": self.tabular, "unsmoothing": self.unsmoothing,
            "feature_names": self.feature_names and list(self.feature_names),
            "target_units": units and {"mean": units.mean.tolist(), "scale": units.scale.tolist()},
        }  # fmt: skip
        return {
            "task": self.task, "loss": self.loss, "classes": self.classes and list(self.classes),
            "preprocessing": self.preprocessing and self.preprocessing.to_metadata(),
        } | {name: value for name, value in later.items() if value is not None}  # fmt: skip

    def mean_by(self, metadata: Mapping[str, Any]) -> None:
        """Take over what `meaning_to_metadata` returned."""
        recipe, units = metadata["preprocessing"], metadata.get("target_units")
        self.task, self.loss = metadata["task"], metadata["loss"]
        self.classes = metadata["classes"] and tuple(metadata["classes"])
        self.preprocessing = None if recipe is None else Preprocessing.from_metadata(recipe)
        self.tabular, self.unsmoothing = metadata.get("tabular"), metadata.get("unsmoothing")
        names = metadata.get("feature_names")
        self.feature_names = names and tuple(names)
        self.target_units = units and TargetUnits(
            *(np.asarray(units[name], float) for name in ("mean", "scale"))
        )

    def check_names(self, x: Any, name: str = "X") -> None:
        """Check that a data frame has the columns that the model learned from, in their order.

        Raises
        ------
        DataError
        """
        found, known = column_names(x), self.feature_names
        if found is None or known is None or found == known:
            return
        if sorted(found) == sorted(known):
            raise DataError(
                f"{name} has the columns in another order than the frame that the model was trained on: "
                f"{_listed(found)}, expected {_listed(known)}; pick them by name, {name}[list(model.feature_names)]"
            )
        missing, new = [n for n in known if n not in found], [n for n in found if n not in known]
        raise DataError(
            f"{name} has other columns than the frame that the model was trained on: "
            f"{_listed(missing) or 'none'} missing, {_listed(new) or 'none'} new; expected {_listed(known)}"
        )

    def learns(self, task: str, loss: Loss) -> None:
        """Take note of a task and a loss that it is to be trained with, and forget what only belonged to others."""
        self.target_units = self.units_for(task, loss)
        self.unsmoothing = None
        if self.task is not None and self.task != task:
            self.classes = None
            if self.tabular is not None:
                self.tabular = {**self.tabular, "target": None}
        self.task, self.loss = task, loss.name

    def units_for(self, task: str, loss: Loss) -> TargetUnits | None:
        """The units that targets of `task` are learnt in, with this loss; None for their own."""
        units = self.target_units
        # a prediction that is e to the output cannot be shifted
        shifted = units is not None and loss.link == "exp" and bool(units.mean.any())
        return None if task != "regression" or shifted else units


def _listed(names: Sequence[str]) -> str:
    """Names for a message, the first of many."""
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
