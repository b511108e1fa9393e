"""Training that diverges: noticed at the step where it happens, named, and ended with weights that are good."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np

from ..backend import Array
from ..errors import DivergedError
from .judge import Judge
from .step import TrainingStep


class Divergence:
    """Watches the losses and weights of a training, and ends it when no model has finite ones any more.

    Steps are looked at one by one (`check_step`), or many together, where a device was told about them ahead
    (`check_ahead`): then those since all was well last are done again to find the one that failed.

    Parameters
    ----------
    step : TrainingStep
    judge : Judge
        Is told which members diverged, and has the weights to come back to.
    """

    def __init__(self, step: TrainingStep, judge: Judge):
        self._step, self._judge, self._model = step, judge, step.model
        #: The number of updates when all was well last, and weights and moments then.
        self._well: tuple[int, list[Array]] | None = None

    def check_step(self, rows: np.ndarray, epoch: int) -> None:
        """Look at the loss of the step just done on the examples `rows`."""
        if self._step.tally.is_finite():
            return
        loss = self._step.tally.last_loss()
        finite = np.isfinite(loss)
        self._judge.exclude(~finite)
        if self._judge.diverged.all():
            from ..diagnostics import locate_nonfinite

            why = f"the loss of the batch is {loss[~finite].flat[0]}"
            self._end(epoch, locate_nonfinite(self._step, rows), why)

    def check_weights(self, epoch: int) -> None:
        """Look at the weights after an epoch, and remember them where they are good."""
        self._judge.keep_good()
        if self._judge.diverged.all():
            self._end(epoch, self._bad_parameters(), "the last update made them so")

    def keep_well(self) -> None:
        """Copy weights and moments on the device, to come back to where a later step goes wrong."""
        be, flats = self._model.be, self._flats()
        copies = (
            [be.empty(flat.shape, self._model.dtype) for flat in flats]
            if self._well is None
            else self._well[1]
        )
        for copy, flat in zip(copies, flats, strict=True):
            copy[...] = flat
        self._well = (self._step.n_updates, copies)

    def check_ahead(self, epoch: int, redo: Callable[[int], np.ndarray]) -> None:
        """Look whether a loss was not finite in the steps done since the last look; waits for the device.

        Parameters
        ----------
        epoch : int
        redo : callable
            ``redo(number)`` does that update, counted from 0, by itself, and returns the examples of its batch.
        """
        step, judge = self._step, self._judge
        bad = np.broadcast_to(step.first_bad(), self._model.lead)
        last = step.tally.last_loss()  # a smaller batch at the end of an epoch is a step of its own
        failed = (bad >= 0) | ~np.isfinite(last)
        if not failed.any():
            return
        before = judge.diverged
        judge.exclude(failed)
        if judge.diverged.all():
            known = bad[failed & ~before & (bad >= 0)]
            number = int(known.min()) if known.size else step.n_updates - 1
            why = "the loss of that batch is not finite"
            where = None if before.any() else self._retrace(number, redo)
            if where is None:
                where = self._bad_parameters()
                why += "; without capture, the first layer that fails is named"
            self._end(epoch, where, why, number + 1)

    def _retrace(self, number: int, redo: Callable[[int], np.ndarray]) -> str | None:
        """Say where update `number` failed: do those since all was well again, one by one.

        Afterwards the buffers of the step are those of that update, which several at once have overwritten. The same
        operations give the same bits, so it fails again; None where it does not.
        """
        from ..diagnostics import locate_nonfinite

        step = self._step
        if self._well is None or number < self._well[0]:
            return None
        started, copies = self._well
        ended, multiplier = step.n_updates, step.multiplier
        for copy, flat in zip(copies, self._flats(), strict=True):
            flat[...] = copy
        step.n_updates = started
        try:
            for n in range(started, number + 1):
                rows = redo(n)
            return None if step.tally.is_finite() else locate_nonfinite(step, rows)
        finally:
            step.n_updates, step.multiplier = ended, multiplier

    def _flats(self) -> list[Array]:
        return [self._model.weights, *self._step.update.moments.values()]

    def _bad_parameters(self) -> str:
        from ..diagnostics import nonfinite_parameters

        return nonfinite_parameters(self._model) or "the weights are finite again"

    def _end(self, epoch: int, where: str, why: str, step: int | None = None) -> NoReturn:
        self._judge.put_back()
        step = step or self._step.n_updates
        raise DivergedError(
            f"training diverged at epoch {epoch}, step {step}: {where}; {why}. The model keeps its last good weights. "
            "Try a smaller learning rate, clip_norm=1, or inputs scaled to about 0..1.",
            epoch=epoch, step=step, where=where,
        )  # fmt: skip
