"""Figures of places added up: by document, for means and their intervals; by confidence, for calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from wmtp.evaluation.metrics import NUM_BINS, HeadFigures, accepted_drafts, agreeing_drafts

Array = npt.NDArray[Any]

TOP = 5
# Columns of `Sums.heads`, and of the bins.
CE, TOP1, TOP5, TARGETS = range(4)
COUNT, CONFIDENCE, RIGHT = range(3)


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over the places of one model, in fp64.

    Attributes:
        heads: `[unit, head, 4]`: losses in nats, targets that are the first choice, that are among the first five, and
            all targets.
        drafts: `[unit, head]`: places that all heads have a target at, under head 1; accepted drafts of the others.
        confidence: `[head, bin, 3]`: targets by the probability of the head's choice: how many, the sum of these
            probabilities, and how many choices are right.
        agreement: `[head, bin, 3]`: drafts that are reached, all before them being accepted, by their own probability:
            how many, the sum, and how many the model agrees with. Nothing under head 1.
    """

    heads: Array
    drafts: Array
    confidence: Array
    agreement: Array

    @classmethod
    def empty(cls, num_units: int, num_heads: int) -> Self:
        """Return sums of nothing."""
        return cls(
            np.zeros((num_units, num_heads, 4)),
            np.zeros((num_units, num_heads)),
            np.zeros((num_heads, NUM_BINS, 3)),
            np.zeros((num_heads, NUM_BINS, 3)),
        )

    def add(
        self, figures: list[HeadFigures], valid: Bool[Tensor, "batch seq future"], units: Int[Tensor, "batch seq"]
    ) -> None:
        """Add the places of a batch.

        Args:
            figures: Of each head.
            valid: Where it has a target.
            units: Of which unit a place is.
        """
        for head, found in enumerate(figures):
            own = valid[..., head]
            self._add_head(head, HeadFigures(*(each[own] for each in found)), units[own])
        self._add_drafts(figures, valid.all(dim=2), units)

    def _add_head(self, head: int, found: HeadFigures, units: Tensor) -> None:
        is_right = found.rank == 0
        for column, values in ((CE, found.ce), (TOP1, is_right), (TOP5, found.rank < TOP), (TARGETS, None)):
            self.heads[:, head, column] += _by(units, values, len(self.heads))
        _add_bins(self.confidence[head], found.confidence, is_right)

    def _add_drafts(self, figures: list[HeadFigures], is_place: Tensor, units: Tensor) -> None:
        agreeing = agreeing_drafts(torch.stack([each.choice for each in figures], dim=2))
        accepted = accepted_drafts(agreeing)
        self.drafts[:, 0] += _by(units[is_place], None, len(self.drafts))
        reached = is_place
        for head in range(1, len(figures)):
            _add_bins(self.agreement[head], figures[head].confidence[reached], agreeing[..., head - 1][reached])
            reached = is_place & accepted[..., head - 1]
            self.drafts[:, head] += _by(units[reached], None, len(self.drafts))


def _by(units: Tensor, values: Tensor | None, num_units: int) -> Array:
    weights = None if values is None else values.double().numpy()
    return np.bincount(units.numpy(), weights, minlength=num_units)


def _add_bins(bins: Array, confidence: Tensor, is_right: Tensor) -> None:
    place = (confidence * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    for column, values in ((COUNT, None), (CONFIDENCE, confidence), (RIGHT, is_right)):
        bins[:, column] += _by(place, values, NUM_BINS)
