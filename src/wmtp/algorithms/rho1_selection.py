"""rho1: which tokens a model can still learn, from its loss and a reference's.

Scores, gates and choices belong to tokens: `[batch, seq]`, of token j at place j. Losses and scores are in nats.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wmtp.algorithms.grouping import counts, num_before
from wmtp.algorithms.signals import Signals

REFERENCE_NLL = "ref_nll"
# sigmoid(30) is 1 in fp32, and sigmoid(-30) is still above 0.
_LARGEST_ARGUMENT = 30.0
# A histogram of scores: 8192 bins of 1/256 nat. What lies beyond 16 nats is in the outermost bins.
_BINS_PER_NAT = 256
_LOWEST_SCORE, NUM_BINS = -16, 32 * _BINS_PER_NAT


def excess_loss(signals: Signals) -> Float[Tensor, "batch seq"]:
    """Return by how much head 1 is worse at a token than the reference, both given all tokens before; 0 if not learned.

    Source: Lin et al. 2024 (arXiv 2404.07965), equation 3. Signed, as there: an absolute value would rank tokens that
        the model knows better than the reference, mostly noise, beside those that it still has to learn.
    """
    excess = signals.token_ce.float() - signals.scores[REFERENCE_NLL].float()
    return torch.where(signals.learned, excess, 0)


def top_share(
    scores: Float[Tensor, "batch seq"],
    learned: Bool[Tensor, "batch seq"],
    keep_ratio: float,
    groups: Int[Tensor, "batch seq"],
) -> Bool[Tensor, "batch seq"]:
    """Return which tokens are kept: in each group exactly `ceil(keep_ratio * n)` of its n learned ones.

    Those of the highest scores; of equal scores the first in the batch.

    Args:
        scores: Of each token.
        learned: Which tokens can be kept at all.
        keep_ratio: Above 0, at most 1, and taken as the decimal number that it is written as.
        groups: Numbers from 0, at most as many as tokens; tokens with the same number are one group.

    Source: Lin et al. 2024 (arXiv 2404.07965), equations 4 and 5; how the share is rounded and ties fall is ours.
    """
    flat = scores.flatten()
    # Stable sorts, least important first: by index (as they come), by score, learned before others, by group.
    order = flat.argsort(descending=True, stable=True)
    order = order[(~learned.flatten())[order].int().argsort(stable=True)]
    order = order[groups.flatten()[order].argsort(stable=True)]
    ordered_groups = groups.flatten()[order].unsqueeze(0)
    rank = num_before(torch.ones_like(ordered_groups, dtype=torch.bool), ordered_groups)
    ranks = torch.empty_like(order).index_copy(0, order, rank.squeeze(0)).view_as(groups)
    return learned & (ranks < num_kept(counts(learned, groups), keep_ratio))


def num_kept(num_learned: Int[Tensor, "*shape"], keep_ratio: float) -> Int[Tensor, "*shape"]:
    """Return `ceil(keep_ratio * n)`, in whole numbers: 7 of 100 at 0.07, where floats would give 8."""
    # A denominator below 10^9 keeps the product within 64 bits for 10^9 tokens.
    share = Fraction(str(keep_ratio)).limit_denominator(10**9)
    kept = (num_learned * share.numerator + share.denominator - 1) // share.denominator
    return torch.maximum(kept, (num_learned > 0).long())


def soft_gate(
    scores: Float[Tensor, "batch seq"],
    learned: Bool[Tensor, "batch seq"],
    kept: Bool[Tensor, "batch seq"],
    groups: Int[Tensor, "batch seq"],
    temperature: float,
) -> Float[Tensor, "batch seq"]:
    """Return `sigmoid((s - q) / temperature)`, with q the `cut_off` of a group.

    Towards a temperature of 0 this is `kept` itself, except among equal scores at q. Where all are kept it is 1.
    """
    return threshold_gate(scores, learned, cut_off(scores, learned, kept, groups), temperature)


def cut_off(
    scores: Float[Tensor, "batch seq"],
    learned: Bool[Tensor, "batch seq"],
    kept: Bool[Tensor, "batch seq"],
    groups: Int[Tensor, "batch seq"],
) -> Float[Tensor, "batch seq"]:
    """Return the score midway between the last that a token's group keeps and the next; -inf where it drops none."""
    flat = groups.flatten()
    empty = torch.full_like(scores.flatten(), torch.inf)
    last = empty.scatter_reduce(0, flat, torch.where(kept, scores, torch.inf).flatten(), "amin")
    dropped = torch.where(learned & ~kept, scores, -torch.inf)
    following = (-empty).scatter_reduce(0, flat, dropped.flatten(), "amax")
    # A group that drops nothing has no next score.
    return torch.where(following.isfinite(), (last + following) / 2, -torch.inf)[groups]


def threshold_gate(
    scores: Float[Tensor, "batch seq"],
    learned: Bool[Tensor, "batch seq"],
    threshold: Float[Tensor, "*shape"],
    temperature: float | None,
) -> Float[Tensor, "batch seq"]:
    """Return how far scores are above a threshold, from 0 to 1: softly, or 0 and 1 without a temperature."""
    if temperature is None:
        return (learned & (scores >= threshold)).float()
    argument = ((scores - threshold) / temperature).clamp(-_LARGEST_ARGUMENT, _LARGEST_ARGUMENT)
    return torch.where(learned, argument.sigmoid(), 0)


def score_histogram(
    scores: Float[Tensor, "batch seq"], learned: Bool[Tensor, "batch seq"]
) -> Float[Tensor, "num_bins"]:
    """Return how many learned tokens have a score in each bin; sums of histograms are histograms of sums."""
    bins = ((scores - _LOWEST_SCORE) * _BINS_PER_NAT).floor().clamp(0, NUM_BINS - 1).long()
    return torch.zeros(NUM_BINS, device=scores.device).index_add(0, bins.flatten(), learned.float().flatten())


def running_threshold(histogram: Float[Tensor, "num_bins"], keep_ratio: float) -> Float[Tensor, ""]:
    """Return the highest score, in steps of 1/256 nat, above which the share `keep_ratio` of a histogram lies.

    It is a bin's lower bound, so that at least the share lies above it, however many scores are equal. At a ratio of 1
    it is -inf: what is lower than anything before is kept too.
    """
    if keep_ratio == 1:
        return histogram.new_tensor(-torch.inf)
    above = histogram.flip(0).cumsum(0)  # from the highest bin down
    # A little less than the share: the sum of many steps is not exact, and the next bin may be far below.
    enough = above >= keep_ratio * above[-1] * (1 - 1e-9)
    bin_number = NUM_BINS - 1 - enough.int().argmax()
    return bin_number.to(histogram) / _BINS_PER_NAT + _LOWEST_SCORE
