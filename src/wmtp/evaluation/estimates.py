"""From sums over documents to figures with intervals, and to differences of two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from wmtp.evaluation.calibration import Calibration
from wmtp.evaluation.intervals import Estimate, Resampling, ratio
from wmtp.evaluation.results import Difference, HeadResult, ModelResult
from wmtp.evaluation.sums import CE, TARGETS, TOP1, TOP5, Array, Sums

_COLUMNS = {"cross_entropy": CE, "top1": TOP1, "top5": TOP5}


@dataclass(frozen=True, eq=False)
class Figures:
    """Sums of one model over all units, and over units as they were drawn anew.

    Attributes:
        heads: `[1 + resamples, head, 4]`, the first being what was measured; see `Sums`.
        drafts: `[1 + resamples, head]`.
        num_bytes: `[1 + resamples]`, of what head 1 has to predict.
        resampling: How they were drawn.
    """

    heads: Array
    drafts: Array
    num_bytes: Array
    resampling: Resampling

    @classmethod
    def of(cls, sums: Sums, num_bytes: Array, resampling: Resampling) -> Self:
        """Return the sums of a model with those of its resamples; `num_bytes` are those of each unit."""
        num_units, num_heads, _ = sums.heads.shape
        flat = np.concatenate([sums.heads.reshape(num_units, -1), sums.drafts, num_bytes[:, None]], axis=1)
        drawn = resampling.sums(flat)
        all_of_them = flat.sum(axis=0)[None]
        together = all_of_them if drawn is None else np.concatenate([all_of_them, drawn])
        heads = together[:, : 4 * num_heads].reshape(len(together), num_heads, 4)
        return cls(heads, together[:, 4 * num_heads : -1], together[:, -1], resampling)

    @property
    def num_heads(self) -> int:
        """Heads, counting the next-token head."""
        return int(self.heads.shape[1])

    def of_head(self, head: int, name: str) -> Array:
        """Return a figure of a head, counted from 1: `cross_entropy`, `top1`, `top5` or `acceptance`."""
        if name == "acceptance":
            return ratio(self.drafts[:, head - 1], self.drafts[:, 0])
        return ratio(self.heads[:, head - 1, _COLUMNS[name]], self.heads[:, head - 1, TARGETS])

    def tokens_per_forward(self) -> Array:
        """Return 1 and the accepted drafts of a forward pass."""
        return ratio(self.drafts.sum(axis=1), self.drafts[:, 0])

    def bits_per_byte(self) -> Array:
        """Return the loss of head 1 for each byte of text, in bits."""
        return ratio(self.heads[:, 0, CE] / np.log(2), self.num_bytes)

    def estimate(self, figures: Array) -> Estimate:
        """Return a figure with its interval, from what was measured and what was drawn."""
        return self.resampling.estimate(float(figures[0]), figures[1:] if len(figures) > 1 else None)


def model_result(model: str, dtype: str, sums: Sums, figures: Figures) -> ModelResult:
    """Return the figures of a model."""
    heads = [_head(head, sums, figures) for head in range(1, figures.num_heads + 1)]
    places = int(sums.drafts[:, 0].sum())
    bits, tokens = figures.estimate(figures.bits_per_byte()), figures.estimate(figures.tokens_per_forward())
    return ModelResult(model, dtype, heads, bits, tokens, places)


def _head(head: int, sums: Sums, figures: Figures) -> HeadResult:
    found = {name: figures.estimate(figures.of_head(head, name)) for name in _COLUMNS}
    ce = found["cross_entropy"]
    ends = (None if end is None else float(np.exp(end)) for end in (ce.low, ce.high))
    is_draft = head > 1
    return HeadResult(
        head=head,
        targets=int(sums.heads[:, head - 1, TARGETS].sum()),
        perplexity=Estimate(float(np.exp(ce.value)), *ends),
        calibration=Calibration.of(sums.confidence[head - 1]),
        acceptance=figures.estimate(figures.of_head(head, "acceptance")) if is_draft else None,
        draft_calibration=Calibration.of(sums.agreement[head - 1]) if is_draft else None,
        **found,
    )


def differences(names: Sequence[str], found: Sequence[Figures]) -> list[Difference]:
    """Return by how much each model but the first is above the first; all were measured on the same units."""
    return [_difference(name, names[0], figures, found[0]) for name, figures in zip(names[1:], found[1:], strict=True)]


def _difference(name: str, against: str, figures: Figures, first: Figures) -> Difference:
    heads = {}
    for head in range(1, min(figures.num_heads, first.num_heads) + 1):
        metrics = [*_COLUMNS, *(["acceptance"] if head > 1 else [])]
        heads[head] = {
            metric: figures.estimate(figures.of_head(head, metric) - first.of_head(head, metric)) for metric in metrics
        }
    whole = figures.estimate(figures.tokens_per_forward() - first.tokens_per_forward())
    return Difference(name, against, heads, whole)
