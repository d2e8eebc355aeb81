"""Sums over the batches seen since the last report, per head, and the figures made from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wmtp.algorithms.weighting import describe_weights

_SUMS = ("ce", "valid", "positions", "top1")


def row_sums(
    ce: Float[Tensor, "batch seq future"],
    valid: Bool[Tensor, "batch seq future"],
    top1: Bool[Tensor, "batch seq future"] | None = None,
) -> Float[Tensor, "batch sums future"]:
    """Sum a batch over its positions: cross-entropy, valid pairs, all pairs, right predictions.

    Rows stay apart so that, with several processes, the rows that pad the last batch can be left out.
    """
    right = torch.zeros_like(valid) if top1 is None else top1 & valid
    return torch.stack([ce.float().sum(1), valid.sum(1), torch.ones_like(valid).sum(1), right.sum(1)], dim=1).float()


class HeadMeter:
    """Means per head over any number of batches, whatever their sizes.

    Args:
        horizon: Number of heads.
    """

    def __init__(self, horizon: int) -> None:
        # On the CPU and in fp64: thousands of batches are summed, and MPS has no fp64.
        self._sums = torch.zeros(len(_SUMS), horizon, dtype=torch.float64)

    def add(self, rows: Float[Tensor, "batch sums future"]) -> None:
        """Add what `row_sums` returned."""
        self._sums += rows.sum(0).cpu().double()

    def sums(self) -> list[list[float]]:
        """Return what is summed so far, as `add_sums` takes it."""
        return cast("list[list[float]]", self._sums.tolist())

    def add_sums(self, sums: list[list[float]]) -> None:
        """Add what `sums` of a meter of as many heads returned."""
        self._sums += torch.tensor(sums, dtype=torch.float64)

    def mean_ce(self, prior: Float[Tensor, "future"]) -> float:
        """Return the mean cross-entropy over valid pairs in nats, each head's pairs weighted by its prior."""
        weight = prior.cpu().double()
        return float((weight * self._sums[0]).sum() / (weight * self._sums[1]).sum())

    def figures(self, *, with_top1: bool = False) -> dict[str, float]:
        """Return the figures of every head `k`, which predicts token t + k.

        Returns:
            `ce_<k>`: mean cross-entropy in nats, NaN where nothing was valid. `share_valid_<k>`: valid pairs, of all
            positions. `top1_<k>`: share of valid pairs whose most probable token is right. `perplexity`: exp(ce_1).
        """
        ce, valid, positions, top1 = self._sums
        figures = _numbered("ce", ce / valid) | _numbered("share_valid", valid / positions)
        if with_top1:
            figures |= _numbered("top1", top1 / valid)
        return figures | {"perplexity": _exp(figures["ce_1"])}

    def reduce(self, total: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums by their total over all processes."""
        self._sums = total(self._sums)


class WeightMeter:
    """Statistics of weights over any number of batches."""

    def __init__(self) -> None:
        self._sums = torch.zeros(6, dtype=torch.float64)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return not bool(self._sums.any())

    def add(self, sums: Float[Tensor, "6"]) -> None:
        """Add what `weight_sums` returned."""
        found = sums.cpu().double()
        largest = torch.maximum(self._sums[-1], found[-1])
        self._sums = torch.cat([(self._sums + found)[:-1], largest.unsqueeze(0)])

    def sums(self) -> list[float]:
        """Return what is summed so far, and the largest weight, as `add_sums` takes it."""
        return cast("list[float]", self._sums.tolist())

    def add_sums(self, sums: list[float]) -> None:
        """Add what `sums` of a meter returned."""
        self.add(torch.tensor(sums, dtype=torch.float64))

    def reduce(self, total: Callable[[Tensor], Tensor], process: int, num_processes: int) -> None:
        """Replace the figures by those of all processes; `total` only sums, so each gives its largest a place."""
        largest = torch.zeros(num_processes, dtype=torch.float64)
        largest[process] = self._sums[-1]
        reduced = total(torch.cat([self._sums[:-1], largest]))
        self._sums = torch.cat([reduced[:5], reduced[5:].amax().unsqueeze(0)])

    def figures(self) -> dict[str, float]:
        """Return `weight_<name>` for each statistic of `describe_weights`."""
        return {f"weight_{name}": value for name, value in describe_weights(self._sums).items()}


def _numbered(name: str, values: Tensor) -> dict[str, float]:
    return {f"{name}_{k}": value for k, value in enumerate(values.tolist(), start=1)}


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
