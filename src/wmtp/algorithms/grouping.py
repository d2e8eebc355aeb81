"""Figures of documents, where a batch is rows of tokens: everything for all documents at once, without a loop."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def documents(document_ids: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Return a number for each token's document that no other document of the batch has.

    The ids of a batch tell documents of one row apart and come again in the next row. The numbers begin at 0 and grow
    along the batch; there are at most as many as tokens.
    """
    begins = torch.ones_like(document_ids)
    begins[:, 1:] = document_ids.diff(dim=1) != 0
    return (begins.flatten().cumsum(0) - 1).view_as(document_ids)


def group_sum(values: Float[Tensor, "batch seq"], groups: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq"]:
    """Return, at each token, the sum over all tokens of its group; groups are numbered as in `documents`."""
    sums = torch.zeros_like(values.flatten()).index_add(0, groups.flatten(), values.flatten())
    return sums[groups]


def counts(chosen: Bool[Tensor, "batch seq"], groups: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Return, at each token, how many tokens of its group are chosen."""
    zeros = torch.zeros(groups.numel(), dtype=torch.long, device=groups.device)
    return zeros.index_add(0, groups.flatten(), chosen.flatten().long())[groups]


def num_before(chosen: Bool[Tensor, "batch seq"], groups: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Return, at each token, how many tokens before it in its group are chosen; groups lie together, in order."""
    flat, numbers = chosen.flatten().long(), groups.flatten()
    before = flat.cumsum(0) - flat
    begins = torch.ones_like(numbers)
    begins[1:] = numbers.diff() != 0
    # What was counted before a group began: `before` never falls, so the last begin holds the largest.
    return (before - (before * begins).cummax(0).values).view_as(groups)
