"""What a head says of each place: loss, rank of the right token, choice; and which drafts would be taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wmtp.models.losses import CHUNK_ROWS
from wmtp.models.targets import IGNORE, shift

NUM_BINS = 15
NO_CHOICE = -1


class HeadFigures(NamedTuple):
    """What one head says of each place; zeros, and no choice, where it has nothing to predict.

    Attributes:
        ce: -log P(target) in nats, fp32.
        rank: How many tokens come before the target by their logits; of equals the one with the lower id does.
        choice: The most probable token, -1 where there is no target.
        confidence: The probability of that token, fp32.
    """

    ce: Float[Tensor, "batch seq"]
    rank: Int[Tensor, "batch seq"]
    choice: Int[Tensor, "batch seq"]
    confidence: Float[Tensor, "batch seq"]


@torch.no_grad()
def head_figures(
    logits_of: Callable[[Tensor], Tensor], hidden: Float[Tensor, "batch seq dim"], targets: Int[Tensor, "batch seq"]
) -> HeadFigures:
    """Return what a head says where it has a target; logits exist for some hundred places at a time.

    Args:
        logits_of: From what the head's unembedding is applied to, to logits; in the dtype of the model, and summed up
            in fp32 whatever that is.
        hidden: What it is applied to; or the logits themselves.
        targets: The right tokens, -100 where there is none.
    """
    places = (targets.flatten() != IGNORE).nonzero().squeeze(1)
    wanted, rows = targets.flatten()[places], hidden.flatten(0, 1)
    found = [
        _row_figures(logits_of(rows[some]).float(), target)
        for some, target in zip(places.split(CHUNK_ROWS), wanted.split(CHUNK_ROWS), strict=True)
        if len(some)
    ]
    empty = torch.zeros(targets.shape, device=targets.device)
    filled = [empty, empty.long(), torch.full_like(targets, NO_CHOICE), empty.clone()]
    if found:
        columns = [torch.cat(column) for column in zip(*found, strict=True)]
        filled = [
            start.flatten().index_copy(0, places, column).view_as(targets)
            for start, column in zip(filled, columns, strict=True)
        ]
    return HeadFigures(*filled)


def _row_figures(logits: Float[Tensor, "rows vocab"], targets: Int[Tensor, "rows"]) -> tuple[Tensor, ...]:
    total = logits.logsumexp(-1)
    right = logits.gather(-1, targets.unsqueeze(-1))
    ids = torch.arange(logits.shape[-1], device=logits.device)
    # Low precision makes equals of many logits. A loss that counted all of them as before, or none, would flatter.
    before = (logits > right) | ((logits == right) & (ids < targets.unsqueeze(-1)))
    highest, choice = logits.max(-1).values, logits.argmax(-1)
    return total - right.squeeze(-1), before.sum(-1), choice, (highest - total).exp()


def agreeing_drafts(choices: Int[Tensor, "batch seq future"]) -> Bool[Tensor, "batch seq drafts"]:
    """Say where a draft is what the model itself says there: head k at t, and head 1 at t + k - 1.

    Args:
        choices: The most probable token of each head, -1 where it has nothing to predict.

    Returns:
        `[b, t, k-2]` for heads 2..H.
    """
    own = choices[..., 0]
    drafts = [choices[..., k - 1] == shift(own, k - 1, NO_CHOICE - 1) for k in range(2, choices.shape[2] + 1)]
    if not drafts:
        return torch.zeros(*own.shape, 0, dtype=torch.bool, device=own.device)
    return torch.stack(drafts, dim=2)


def accepted_drafts(agreeing: Bool[Tensor, "batch seq drafts"]) -> Bool[Tensor, "batch seq drafts"]:
    """Say which drafts are taken: those that agree with the model, as do all before them.

    Source: Stern et al. 2018, "Blockwise Parallel Decoding" (arXiv 1811.03115), section 3: predict, verify, accept the
        longest prefix on which the model agrees. Teacher-forced here: every head reads the text, not what was drafted,
        so that this is what decoding would accept exactly where the model itself would write the text.
    """
    return agreeing.cumprod(dim=2).bool()
