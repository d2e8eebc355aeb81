"""How sure a figure is: bootstrap over documents, the same draws for every model, so that differences are paired."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval.

    Attributes:
        value: What was measured; NaN where there was nothing to measure.
        low: Lower end of the interval; None where no interval can be had.
        high: Upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return plain JSON values; what could not be measured is null."""
        found = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if each is None or not np.isfinite(each) else each for name, each in found.items()}


@dataclass(frozen=True)
class Resampling:
    """How intervals are made.

    Attributes:
        resamples: How many times documents are drawn anew.
        confidence: The share of these that an interval holds.
        seed: Of the draws.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def sums(self, figures: Array) -> Array | None:
        """Return sums over units drawn with replacement, as many as there are.

        Args:
            figures: `[unit, figure]`.

        Returns:
            `[resample, figure]`; the draws depend on the seed and the number of units alone. None for fewer than two
            units, of which nothing can be said.
        """
        count = len(figures)
        if count < 2:
            return None
        generator = np.random.default_rng(self.seed)
        found = np.empty((self.resamples, figures.shape[1]))
        for place in range(self.resamples):
            drawn = np.bincount(generator.integers(0, count, count), minlength=count)
            # Row by row, not as a product of matrices: equal figures get sums that are equal to the last bit.
            found[place] = (drawn[:, None] * figures).sum(axis=0)
        return found

    def estimate(self, value: float, drawn: Array | None) -> Estimate:
        """Return a figure with the interval that holds the middle of what was drawn.

        Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13: percentiles. A figure that
            has no value in a resample is left out of it.
        """
        drawn = None if drawn is None else drawn[np.isfinite(drawn)]
        if drawn is None or not len(drawn) or not np.isfinite(value):
            return Estimate(value)
        tail = (1 - self.confidence) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return Estimate(value, float(low), float(high))


def ratio(numerator: Array, denominator: Array) -> Array:
    """Return quotients, NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)
