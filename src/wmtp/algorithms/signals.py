"""What is known about a batch when its tokens are weighed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float, Int
from torch import Tensor

from wmtp.models.targets import shift


@dataclass(frozen=True)
class Signals:
    """What an algorithm may look at. Nothing but `values` and `token_values` has a gradient.

    Attributes:
        ce: Cross-entropy of head k at position t in nats, fp32; 0 where not valid.
        valid: Where head k has a token t + k to predict.
        prior: One factor a head, with mean 1.
        document_ids: Equal within a document; padding has an id of its own.
        scores: The algorithm's scores by name, indexed by token: of token j at place j.
        values: What each value head expects of the document after tokens 0..t; None without one.
        token_values: The same once token j is chosen after tokens 0..j-1, at place j; None where no head says it.
        folds: Which fold each token's document is in, from 0; None where there is one.
        step: Optimizer steps done.
    """

    ce: Float[Tensor, "batch seq future"]
    valid: Bool[Tensor, "batch seq future"]
    prior: Float[Tensor, "future"]
    document_ids: Int[Tensor, "batch seq"]
    scores: Mapping[str, Float[Tensor, "batch seq"]]
    values: Float[Tensor, "batch seq folds"] | None = None
    token_values: Float[Tensor, "batch seq folds"] | None = None
    folds: Int[Tensor, "batch seq"] | None = None
    step: int = 0

    @cached_property
    def learned(self) -> Bool[Tensor, "batch seq"]:
        """Which tokens head 1 has to predict, and with it any head: at place j, whether token j is one."""
        return shift(self.valid[..., 0], -1, fill=False)

    @cached_property
    def token_ce(self) -> Float[Tensor, "batch seq"]:
        """Cross-entropy of head 1 at each token that it predicts, -log P(x_j | x_<j); 0 at the others."""
        return shift(self.ce[..., 0], -1, fill=0.0)
