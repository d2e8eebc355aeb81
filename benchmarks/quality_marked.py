"""What becomes of marked tokens under an algorithm: how many are kept, and what weight they have."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from wmtp.algorithms.base import Algorithm, Score
from wmtp.algorithms.signals import Signals
from wmtp.models.targets import shift

MARKED = "marked"


class Watched(Algorithm):
    """An algorithm as it is, which also counts what becomes of marked tokens.

    Args:
        algorithm: Gives the weights. The rows need a score `marked`: 1 at the tokens to count, 0 elsewhere.
    """

    name = "watched"
    training_algorithm = "mtp"

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.inner = algorithm
        self.roles = algorithm.roles
        self.scores = (*algorithm.scores, Score(MARKED, "column", column=MARKED))
        self._sums = torch.zeros(4, dtype=torch.float64)

    @override
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        weights = self.inner.weights(signals)
        of_tokens = shift(weights[..., 0], -1, fill=0.0)[signals.learned]
        marked = signals.scores[MARKED][signals.learned]
        parts = (marked, marked * (of_tokens > 0), marked * of_tokens, of_tokens)
        self._sums += torch.stack([part.double().sum() for part in parts])
        return weights

    @override
    def begin(self, scores: Mapping[str, Float[Tensor, "documents"]]) -> None:
        self.inner.begin(scores)

    @override
    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:
        self.inner.end_step(total)

    def figures(self) -> dict[str, float]:
        """Return the share of marked tokens that were kept (weight above 0), and their share of all weight."""
        marked, kept, weight, all_weight = self._sums.tolist()
        return {"share_kept": kept / max(marked, 1), "share_of_weight": weight / max(all_weight, 1)}
