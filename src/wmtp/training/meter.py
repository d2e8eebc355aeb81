"""Sums over the batches seen since the last report, per head, and the figures made from them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
    """Statistics of weights over the micro-batches seen since the last report."""

    def __init__(self) -> None:
        self._entries: list[dict[str, float]] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._entries

    def add(self, statistics: dict[str, float]) -> None:
        """Add what `weight_statistics` returned."""
        self._entries.append(statistics)

    def figures(self) -> dict[str, float]:
        """Return `weight_<name>`: the mean of each statistic over micro-batches; of the maximum, the largest."""
        gathered = {name: [entry[name] for entry in self._entries] for name in self._entries[0]}
        return {
            f"weight_{name}": max(values) if name == "max" else sum(values) / len(values)
            for name, values in gathered.items()
        }


def _numbered(name: str, values: Tensor) -> dict[str, float]:
    return {f"{name}_{k}": value for k, value in enumerate(values.tolist(), start=1)}


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
