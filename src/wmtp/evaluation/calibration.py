"""Whether a probability says how often something holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from wmtp.evaluation.metrics import NUM_BINS
from wmtp.evaluation.sums import CONFIDENCE, COUNT, RIGHT, Array


def calibration_error(bins: Array) -> float:
    """Return how far, on the mean, a probability is from the share of times that it holds; 0 to 1.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599), equation 3, with their 15
        bins of equal width. Nothing to measure gives NaN.
    """
    total = bins[:, COUNT].sum()
    return float(np.abs(bins[:, RIGHT] - bins[:, CONFIDENCE]).sum() / total) if total else float("nan")


@dataclass(frozen=True)
class Calibration:
    """How well a probability says how often something holds.

    Attributes:
        error: Expected calibration error, 0 to 1; NaN where nothing was measured.
        bins: `[bin, 3]`: how many, the sum of probabilities, and how often it held; bins of equal width from 0 to 1.
    """

    error: float
    bins: Array

    @classmethod
    def of(cls, bins: Array) -> Calibration:
        """Return what bins say."""
        return cls(calibration_error(bins), bins)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without empty bins."""
        held = [
            {
                "low": place / NUM_BINS,
                "high": (place + 1) / NUM_BINS,
                "count": int(row[COUNT]),
                "confidence": row[CONFIDENCE] / row[COUNT],
                "share": row[RIGHT] / row[COUNT],
            }
            for place, row in enumerate(self.bins.tolist())
            if row[COUNT]
        ]
        return {"error": self.error if math.isfinite(self.error) else None, "bins": held}
