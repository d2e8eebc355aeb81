"""What a model with prediction heads returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.utils.generic import ModelOutput

from wmtp.models.logits import UNCHANGED, LogitChange
from wmtp.models.losses import Backend, Unembedding, per_head_cross_entropy, per_head_top1
from wmtp.models.targets import IGNORE


class Wanted(NamedTuple):
    """What is asked of an answer to labels: where the most probable token is right, and cross-entropy.

    Both are of the logits as the model answers with them, after what it does to them behind the unembedding. `shares`
    are those of `per_head_cross_entropy`.
    """

    top1: bool
    ce: bool
    change: LogitChange = UNCHANGED
    shares: tuple[float, ...] | None = None


# A ModelOutput, not a plain dataclass: FSDP2 looks for the output's tensors in it to prepare the backward pass.
@dataclass
class MTPOutput(ModelOutput):
    """Losses or logits of every head; which fields are set depends on what was asked.

    Attributes:
        ce: With labels: -log P_k(token t + k) in nats, fp32; 0 where not valid, and everywhere without `with_ce`.
        valid: With labels: where there is such a token to predict.
        top1: With `with_top1`: where the most probable token is the right one.
        logits: Without labels.
        hidden_states: The trunk's final hidden state; position t has consumed tokens 0..t. None where a foreign model
            gives none.
        state_values: With value heads: the expected reward after tokens 0..t by each fold's head, fp32.
        token_values: Where tokens are valued: the expected reward once token j is chosen after tokens 0..j-1, fp32.
    """

    ce: Float[Tensor, "batch seq future"] | None = None
    valid: Bool[Tensor, "batch seq future"] | None = None
    top1: Bool[Tensor, "batch seq future"] | None = None
    logits: Float[Tensor, "batch seq future vocab"] | None = None
    hidden_states: Float[Tensor, "batch seq dim"] | None = None
    state_values: Float[Tensor, "batch seq folds"] | None = None
    token_values: Float[Tensor, "batch seq folds"] | None = None

    @classmethod
    def of_targets(
        cls,
        head_hidden: Sequence[Float[Tensor, "batch seq dim"]],
        unembedding: Unembedding,
        targets: Int[Tensor, "batch seq future"],
        *,
        backend: Backend,
        wanted: Wanted,
        hidden_states: Float[Tensor, "batch seq dim"] | None = None,
    ) -> MTPOutput:
        """Return losses and validity from what each head's unembedding is applied to; without losses, zeros."""
        return cls(
            ce=per_head_cross_entropy(head_hidden, unembedding, targets, backend, wanted.change, wanted.shares)
            if wanted.ce
            else torch.zeros(targets.shape, device=targets.device),
            valid=targets != IGNORE,
            top1=per_head_top1(head_hidden, unembedding, targets, wanted.change) if wanted.top1 else None,
            hidden_states=hidden_states,
        )
