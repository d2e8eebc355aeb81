"""The arithmetic that every algorithm shares: prior over heads, weights from gates, the loss sum, and statistics.

Everything is fp32, whatever the model computes in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wmtp.algorithms.grouping import group_sum
from wmtp.errors import SettingsError
from wmtp.models.targets import shift

HeadPrior = Literal["uniform"] | Mapping[str, float] | Sequence[float]


def head_prior(spec: HeadPrior, horizon: int) -> Float[Tensor, " future"]:
    """Return one factor a head, with mean 1.

    Args:
        spec: `uniform`; `{"decay": b}` for b ** (k - 1) at head k; or one factor for each head.
        horizon: Number of heads, H.

    Raises:
        SettingsError: If a list has another length, or its factors are not finite, at least 0 and somewhere above it.
    """
    if spec == "uniform":
        return torch.ones(horizon)
    if isinstance(spec, Mapping):
        factors = [float(spec["decay"]) ** k for k in range(horizon)]
    else:
        factors = [float(factor) for factor in spec]
    prior = torch.tensor(factors, dtype=torch.float32)
    if len(factors) != horizon:
        raise SettingsError(
            f"loss.head_prior has {len(factors)} factors, and {horizon} heads are trained",
            hint=f"give {horizon} factors, or write uniform or {{decay: 0.8}}",
        )
    if not (torch.isfinite(prior).all() and (prior >= 0).all() and prior.sum() > 0):
        raise SettingsError(
            f"loss.head_prior is {factors}", hint="give finite factors, none below 0 and at least one above it"
        )
    return prior / prior.mean()


def spread(
    gate: Float[Tensor, "batch seq"], valid: Bool[Tensor, "batch seq future"]
) -> Float[Tensor, "batch seq future"]:
    """Return the gate of the token that each head predicts: `w[t, k] = g[t + k]`, 0 where not valid."""
    moved = torch.stack([shift(gate, k, 0.0) for k in range(1, valid.shape[2] + 1)], dim=2)
    return torch.where(valid, moved, 0)


def normalised(
    weights: Float[Tensor, "batch seq future"],
    valid: Bool[Tensor, "batch seq future"],
    prior: Float[Tensor, "future"],
    groups: Int[Tensor, "batch seq"] | None = None,
) -> Float[Tensor, "batch seq future"]:
    """Return weights with mean 1 over valid pairs, each pair counted with its head's prior.

    `sum(prior * w * valid) == sum(prior * valid)`, over the batch, or over each group of positions. Where weights sum
    to 0, or nothing is valid, they are 1 at all valid pairs.
    """
    counted = prior * valid
    found, wanted = (counted * weights).sum(2), counted.sum(2)  # [batch, seq]
    if groups is None:
        found, wanted = found.sum().expand_as(found), wanted.sum().expand_as(wanted)
    else:
        found, wanted = group_sum(found, groups), group_sum(wanted, groups)
    some = (found > 0).unsqueeze(2)
    factor = (wanted / torch.where(found > 0, found, 1)).unsqueeze(2)
    return torch.where(some, weights * factor, valid.float())


def head_softmax(
    scores: Float[Tensor, "batch seq"],
    valid: Bool[Tensor, "batch seq future"],
    prior: Float[Tensor, "future"],
) -> Float[Tensor, "batch seq future"]:
    """Return a softmax over the heads of each position, of the scores of the tokens that they predict, with mean 1.

    `w[t, k] = exp(s[t+k]) * n / sum_k' exp(s[t+k'])` over the n valid heads of t. With a prior both n and the sum count
    each head with its prior, and a head whose prior is 0 has weight 0. Nothing of another position has a part in it,
    so that batching changes nothing; and no position can be dropped, as each has mean 1.
    """
    counted = prior * valid
    logits = torch.stack([shift(scores, k, 0.0) for k in range(1, valid.shape[2] + 1)], dim=2)
    logits = logits.float().masked_fill(counted == 0, -torch.inf)
    # Less the largest, which changes nothing; a position without heads has -inf there, and its weights are 0.
    largest = logits.amax(2, keepdim=True)
    powers = torch.where(counted > 0, (logits - largest).exp(), 0)
    total = (counted * powers).sum(2, keepdim=True)
    return powers * (counted.sum(2, keepdim=True) / torch.where(total > 0, total, 1))


def weighted_sum(
    ce: Float[Tensor, "batch seq future"],
    weights: Float[Tensor, "batch seq future"],
    valid: Bool[Tensor, "batch seq future"],
) -> Float[Tensor, ""]:
    """Return the sum of `w * CE` over valid pairs in nats; the gradient reaches `ce` alone.

    The caller divides by the number of valid pairs of the whole optimizer step, which no single batch knows.
    """
    # where, not a product: an infinite cross-entropy at a pair that does not count must not become NaN.
    return torch.where(valid, ce.float() * weights.detach().float(), 0).sum()


def weight_sums(
    weights: Float[Tensor, "batch seq future"], valid: Bool[Tensor, "batch seq future"]
) -> Float[Tensor, "6"]:
    """Return what describes the weights of valid pairs, on their device; of several batches all but the last add up.

    Their number, and the sums of `w`, `w^2`, `w log w` and `w > 0`; the last is the largest weight.
    """
    counted = torch.where(valid, weights.detach().float(), 0)
    sums = [
        valid.sum(),
        counted.sum(),
        counted.square().sum(),
        torch.xlogy(counted, counted).sum(),
        (counted > 0).sum(),
    ]
    return torch.stack([*(each.float() for each in sums), counted.amax()])


def describe_weights(sums: Float[Tensor, "6"]) -> dict[str, float]:
    """Describe how unequal weights are, from `weight_sums`; all 0 when there is none.

    Returns:
        `mean` and `max` of the weights. `entropy` of the weights as a distribution, as a share of its largest possible
        value: 1 when all are equal. `effective_share`: effective sample size `(Σw)² / Σw²` as a share of the pairs.
        `share_kept`: pairs with a weight above 0, as a share of the pairs.
    """
    num_pairs, total, squares, logs, kept, largest = sums.tolist()
    if total == 0:
        return dict.fromkeys(("mean", "max", "entropy", "effective_share", "share_kept"), 0.0)
    return {
        "mean": total / num_pairs,
        "max": largest,
        # Of a single pair the largest entropy is 0 too.
        "entropy": (math.log(total) - logs / total) / math.log(num_pairs) if num_pairs > 1 else 1.0,
        "effective_share": total**2 / squares / num_pairs,
        "share_kept": kept / num_pairs,
    }
