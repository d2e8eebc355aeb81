"""Figures over past optimizer steps, that neither accumulation nor the number of processes changes.

Within an optimizer step they stand still: micro-batches only add sums, and sums do not care how a batch was cut. After
it the sums of all micro-batches and processes become part of what is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wmtp.errors import CheckpointError

# About the last twenty optimizer steps count: enough tokens for a steady figure, few enough to follow the model.
DECAY = 0.95


class RunningSums:
    """Sums in which each optimizer step counts `DECAY` times as much as the one after it.

    A figure is always the ratio of two of them. They began at 0 alike, so a ratio is right from the first step on: the
    correction that a running mean needs for its begin cancels. A step with more tokens counts more, as it should.

    Args:
        size: How many sums.
    """

    def __init__(self, size: int) -> None:
        # float64 on the processor: the order in which micro-batches are added must not show.
        self.kept: Float[Tensor, "size"] = torch.zeros(size, dtype=torch.float64)
        self._added: list[Tensor] = []

    def add(self, sums: Float[Tensor, "size"]) -> None:
        """Add the sums of a micro-batch. They count from the end of the optimizer step on."""
        self._added.append(sums.detach())

    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:
        """Take in what was added; `total` sums over processes, and is called once, whatever was added."""
        step = torch.zeros_like(self.kept)
        if self._added:
            step = torch.stack(self._added).cpu().double().sum(0)
        self._added = []
        self.kept = DECAY * self.kept + (1 - DECAY) * total(step).to(self.kept)

    def mean(self) -> Float[Tensor, ""] | None:
        """Return the first sum divided by the second; None before there is anything to divide by."""
        return self.kept[0] / self.kept[1] if self.kept[1] > 0 else None

    def restore(self, kept: Float[Tensor, "size"]) -> None:
        """Go on from sums that were kept elsewhere, and from the begin of an optimizer step.

        Raises:
            CheckpointError: If one is below 0 or not finite: all are sums of counts, weights and squares.
        """
        if not bool((kept.isfinite() & (kept >= 0)).all()):
            raise CheckpointError(
                "a running sum is below 0 or not finite",
                hint="take the state again from the checkpoint that the run has published",
            )
        self._added = []
        self.kept = kept.detach().to(self.kept, copy=True)


def pair_sums(
    weights: Float[Tensor, "batch seq future"],
    valid: Bool[Tensor, "batch seq future"],
    prior: Float[Tensor, "future"],
) -> Float[Tensor, "2"]:
    """Return the sum of `prior * w` over valid pairs, and that of `prior`: what a running mean weight is made of."""
    counted = prior * valid
    return torch.stack([(counted * weights).sum(), counted.sum()])


def by_running_mean(
    weights: Float[Tensor, "batch seq future"],
    valid: Bool[Tensor, "batch seq future"],
    prior: Float[Tensor, "future"],
    running: RunningSums,
) -> Float[Tensor, "batch seq future"]:
    """Return weights divided by the mean weight of past steps, and add theirs for later ones.

    Their mean is 1 on average, not in every batch. Before there is a mean above 0, all weights are 1.
    """
    running.add(pair_sums(weights, valid, prior))
    mean = running.mean()
    return torch.ones_like(weights) if mean is None or mean <= 0 else weights / mean
