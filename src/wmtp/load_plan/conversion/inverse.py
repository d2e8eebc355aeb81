"""Stored tensors made again of the parameters that they made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError
from wmtp.load_plan.conversion.nodes import Dequantised, Joined, Made, Node, Rearranged, Shape, Taken, stored_in
from wmtp.untrusted import show

_Cut = tuple[int, Shape, Node]


def stored_again(sources: Mapping[str, TensorInfo | Made], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as they were stored, by their names in the files.

    Args:
        sources: What each parameter was filled from.
        values: The parameters. Their dtype is kept.

    Raises:
        CheckpointError: If a parameter was dequantised: that cannot be undone without loss.
    """
    stored: dict[str, Tensor] = {}
    pieces: dict[_Cut, dict[int, Tensor]] = {}
    waiting: list[tuple[Node, Tensor]] = [
        (source.node if isinstance(source, Made) else source, values[name]) for name, source in sources.items()
    ]
    while waiting:
        node, value = waiting.pop()
        match node:
            case TensorInfo():
                stored[node.name] = value
            case Taken():
                cut = (node.dim, node.sizes, node.of)
                taken = pieces.setdefault(cut, {})
                taken[node.take] = value
                if len(taken) == len(node.sizes):
                    waiting.append((node.of, torch.cat([taken[take] for take in sorted(taken)], dim=node.dim)))
            case Joined():
                waiting += zip(node.parts, _apart(node, value), strict=True)
            case Rearranged():
                waiting.append((node.of, _turned_back(node, value)))
            case Dequantised():
                raise CheckpointError(
                    f"{show(next(stored_in(node)).name)} was stored in fewer bits ({node.kind}), and its values are not"
                    " put into those again: that loses some",
                    hint="write it under the model's own names, in the dtype in which it is loaded",
                )
    return stored


def _apart(node: Joined, value: Tensor) -> Iterator[Tensor]:
    if node.is_new:
        return iter(value.unbind(node.dim))
    return iter(torch.split(value, [part.shape[node.dim] for part in node.parts], dim=node.dim))


def _turned_back(node: Rearranged, value: Tensor) -> Tensor:
    order = node.text.order
    axes = [node.axes[axis] for axis in order]
    return value.reshape(axes).permute([order.index(axis) for axis in range(len(order))]).reshape(node.of.shape)
