"""The arithmetic that every algorithm shares: prior over heads, the loss sum, and statistics.

Everything is fp32, whatever the model computes in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wmtp.errors import SettingsError

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


def weight_statistics(
    weights: Float[Tensor, "batch seq future"], valid: Bool[Tensor, "batch seq future"]
) -> dict[str, float]:
    """Describe how unequal weights are, over valid pairs; all 0 when there is none.

    Returns:
        `mean` and `max` of the weights. `entropy` of the weights as a distribution, as a share of its largest possible
        value: 1 when all are equal. `effective_share`: effective sample size `(Σw)² / Σw²` as a share of the pairs.
        `share_kept`: pairs with a weight above 0, as a share of the pairs.
    """
    kept = weights.detach().float()[valid]
    if kept.numel() == 0 or not bool(kept.any()):
        return dict.fromkeys(("mean", "max", "entropy", "effective_share", "share_kept"), 0.0)
    total, num_pairs = kept.sum(), kept.numel()
    share = kept / total
    found = {
        "mean": total / num_pairs,
        "max": kept.max(),
        # xlogy is 0 at 0, where a product would be NaN; of a single pair the largest entropy is 0 too.
        "entropy": -torch.xlogy(share, share).sum() / math.log(num_pairs) if num_pairs > 1 else torch.ones_like(total),
        "effective_share": total.square() / kept.square().sum() / num_pairs,
        "share_kept": (kept > 0).float().mean(),
    }
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))
