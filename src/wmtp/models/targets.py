"""What each head has to predict: shifting, validity, and the bounds of packed documents.

Head `k` (1..H) at position `t` predicts token `t + k`. Everything that shifts along the sequence calls `shift`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from wmtp.errors import TrainingError

IGNORE = -100


def shift(values: Tensor, k: int, fill: float) -> Tensor:
    """Return `values` moved `k` places towards the front along the sequence, or `-k` places towards the back.

    Args:
        values: Anything of shape `[batch, seq, ...]`.
        k: How far: position `t` of the result holds `values[:, t + k]`. Below 0 it is what stood before.
        fill: What stands where `t + k` lies outside the row; nothing wraps round.
    """
    if k == 0:
        return values
    moved = torch.full_like(values, fill)
    if k > 0:
        moved[:, :-k] = values[:, k:]
    else:
        moved[:, -k:] = values[:, :k]
    return moved


def head_targets(
    labels: Int[Tensor, "batch seq"],
    horizon: int,
    document_ids: Int[Tensor, "batch seq"] | None = None,
) -> Int[Tensor, "batch seq future"]:
    """Return the token that each head must predict at each position, -100 where there is none.

    Args:
        labels: Unshifted token ids; -100 on prompt and padding.
        horizon: Number of heads, H.
        document_ids: Which document a token belongs to. A target in another document than its position is not
            valid. None: every row is one document.

    Returns:
        `[b, t, k-1]` is the label at `t + k`. A pair is valid where this is not -100.
    """
    shifted = []
    for k in range(1, horizon + 1):
        target = shift(labels, k, IGNORE)
        if document_ids is not None:
            target = target.masked_fill(shift(document_ids, k, -1) != document_ids, IGNORE)
        shifted.append(target)
    return torch.stack(shifted, dim=2)


@dataclass(frozen=True)
class Rows:
    """How the tokens of a batch may see each other, and which belong together.

    Attributes:
        attention_mask: `[batch, seq]`, 1 on real tokens, for rows that are one padded document each; else None.
        position_ids: `[batch, seq]`, restarting at 0 with each document of a packed row; None: 0, 1, 2, ...
        document_ids: `[batch, seq]`, equal within a document; None: every row is one document.
    """

    attention_mask: Tensor | None
    position_ids: Tensor | None
    document_ids: Tensor | None

    @classmethod
    def of(cls, attention_mask: Tensor | None, position_ids: Tensor | None, document_ids: Tensor | None) -> Rows:
        """Complete what a batch says about its rows: positions give documents, and documents give positions.

        Raises:
            TrainingError: If a batch has both document ids and an attention mask. transformers takes a mask to mean
                rows that are not packed, and tokens would see other documents.
        """
        if attention_mask is not None:
            if document_ids is not None:
                raise TrainingError(
                    "a batch has both attention_mask and document_ids, so documents in one row would see each other",
                    hint="leave attention_mask out of packed rows; give padding a document id of its own, labels -100",
                )
            return cls(attention_mask, position_ids, attention_mask.long())
        if document_ids is None and position_ids is not None:
            document_ids = _documents(position_ids)
        elif position_ids is None and document_ids is not None:
            position_ids = _positions(document_ids)
        return cls(None, position_ids, document_ids)

    def targets(self, labels: Int[Tensor, "batch seq"], horizon: int) -> Int[Tensor, "batch seq future"]:
        """Return `head_targets` of these rows; padding is never a target, whatever its label says."""
        if self.attention_mask is not None:
            labels = labels.masked_fill(self.attention_mask == 0, IGNORE)
        return head_targets(labels, horizon, self.document_ids)

    @property
    def trunk_arguments(self) -> dict[str, Any]:
        """What the trunk is called with beside its tokens."""
        given = {"attention_mask": self.attention_mask, "position_ids": self.position_ids}
        # With a cache transformers would take a packed row for one document.
        return {name: value for name, value in given.items() if value is not None} | {"use_cache": False}

    def following(self, input_ids: Int[Tensor, "batch seq"], k: int) -> Int[Tensor, "batch seq"]:
        """Return the token `k` places after each one; 0 where that is outside its document, so none reads another's."""
        moved = shift(input_ids, k, 0)
        if self.document_ids is None:
            return moved
        return moved.masked_fill(shift(self.document_ids, k, -1) != self.document_ids, 0)

    def first_positions(self, input_ids: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
        """Say which positions begin a document."""
        documents = torch.ones_like(input_ids) if self.document_ids is None else self.document_ids
        first = torch.ones_like(documents, dtype=torch.bool)
        first[:, 1:] = documents.diff(dim=1) != 0
        return first if self.attention_mask is None else first & (self.attention_mask != 0)


def _documents(position_ids: Tensor) -> Tensor:
    # The rule by which transformers finds packed documents: one begins where a position is not its predecessor plus 1.
    begins = torch.ones_like(position_ids)
    begins[:, 1:] = position_ids.diff(dim=1) != 1
    return begins.cumsum(dim=1)


def _positions(document_ids: Tensor) -> Tensor:
    index = torch.arange(document_ids.shape[1], device=document_ids.device).expand_as(document_ids)
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids.diff(dim=1) != 0
    return index - (index * begins).cummax(dim=1).values
