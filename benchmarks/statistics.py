"""Ratios of samples that were taken round by round."""

from __future__ import annotations

import statistics as st
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How long one side takes compared with another.

    Attributes
    ----------
    medians, minima : float
        Ratio of the two medians, and of the two shortest times.
    low, high : float
        Quartiles of the ratios within a round: the spread.
    """

    medians: float
    minima: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.medians:.2f} (min {self.minima:.2f}; {self.low:.2f} to {self.high:.2f})"


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Compare samples of two sides; sample i of both is from round i.

    Examples
    --------
    >>> ratio([2.0, 4.0, 2.2], [1.0, 2.0, 1.1])
    Ratio(medians=2.0, minima=2.0, low=2.0, high=2.0)
    """
    each = sorted(o / u for o, u in zip(over, under, strict=True))
    low, high = quartiles(each)
    return Ratio(st.median(over) / st.median(under), min(over) / min(under), low, high)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = st.quantiles(values, n=4, method="inclusive")
    return first, third


def verdict(met_by_medians: bool, met_by_minima: bool) -> str:
    """A goal is met where both ratios say so; where they differ the machine was too noisy to tell."""
    if met_by_medians and met_by_minima:
        return "met"
    return "unclear" if met_by_medians or met_by_minima else "missed"
