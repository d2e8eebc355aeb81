"""Values of parameters that are made of several stored tensors; and stored tensors made of parameters again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.conversion.dequantise import dequantised
from wmtp.load_plan.conversion.nodes import (
    Dequantised,
    Joined,
    Made,
    Node,
    Rearranged,
    Taken,
    stored_in,
)
from wmtp.load_plan.parameters import TORCH_DTYPES

_DIRECT_BYTES = 1 << 20  # smaller ones are read together with their neighbours


# Steps to a part of a tensor: dimension, first index, and how many; None: that one, without the dimension.
_Place = tuple[tuple[int, int, int | None], ...]


@dataclass
class _Region:
    """A part of a parameter, and what is to be copied into it."""

    place: _Place
    node: Node
    waits_for: set[str]

    def of(self, value: Tensor) -> Tensor:
        for dim, start, length in self.place:
            value = value.select(dim, start) if length is None else value.narrow(dim, start, length)
        return value


class Assembly:
    """A parameter that is being made, as the tensors that it is made of arrive in any order.

    Args:
        made: What it is made of.
        dtype: Of the parameter, in safetensors' notation.
    """

    def __init__(self, made: Made, dtype: str) -> None:
        self._made, self._dtype, self._lock = made, TORCH_DTYPES[dtype], threading.RLock()
        self._value: Tensor | None = None
        self._arrived: dict[str, Tensor] = {}
        self._regions: dict[str, list[_Region]] = {}
        self._num_waiting = 0
        self._num_uses: Counter[str] = Counter()  # regions that are not filled yet, of each stored tensor
        for place, node in _regions(made.node, ()):
            region = _Region(place, node, {tensor.name for tensor in stored_in(node)})
            self._num_waiting += 1
            self._num_uses.update(region.waits_for)
            for name in region.waits_for:
                self._regions.setdefault(name, []).append(region)

    def memory_for(self, tensor: TensorInfo) -> Tensor:
        """Return the bytes of the parameter that a stored tensor's bytes can be read to."""
        (region,) = self._regions[tensor.name]
        return region.of(self._memory()).view(-1).view(torch.uint8)

    def reads_directly(self, tensor: TensorInfo) -> bool:
        """Whether a stored tensor's bytes can be read to where they belong, rather than copied there."""
        (region, *others) = self._regions[tensor.name]
        as_stored = not others and region.node is tensor and TORCH_DTYPES[tensor.dtype] == self._dtype
        if not as_stored or tensor.num_bytes < _DIRECT_BYTES:
            return False
        return region.of(torch.empty(self._made.shape, device="meta")).is_contiguous()

    def deliver(self, tensor: TensorInfo, value: Tensor) -> Tensor | None:
        """Take a stored tensor's values, and return the parameter once it is whole; called from any thread."""
        with self._lock:
            self._arrived[tensor.name] = value
            ready = []
            for region in self._regions.pop(tensor.name):
                region.waits_for.discard(tensor.name)
                if not region.waits_for:
                    ready.append(region)
        for region in ready:
            self._fill(region)
        with self._lock:
            self._num_waiting -= len(ready)
            return None if self._num_waiting else self._memory()

    def _fill(self, region: _Region) -> None:
        place, value = region.of(self._memory()), evaluate(region.node, self._arrived)
        if place.data_ptr() != value.data_ptr():  # else it was read there
            place.copy_(value)
        with self._lock:
            for name in {tensor.name for tensor in stored_in(region.node)}:
                self._num_uses[name] -= 1
                if not self._num_uses[name]:
                    del self._arrived[name]

    def _memory(self) -> Tensor:
        with self._lock:
            if self._value is None:
                self._value = torch.empty(self._made.shape, dtype=self._dtype, device="cpu")
            return self._value


def _regions(node: Node, place: _Place) -> Iterator[tuple[_Place, Node]]:
    if not isinstance(node, Joined):
        yield place, node
        return
    start = 0
    for part in node.parts:
        length = None if node.is_new else part.shape[node.dim]
        yield from _regions(part, (*place, (node.dim, start, length)))
        start += 1 if length is None else length


def evaluate(node: Node, stored: Mapping[str, Tensor]) -> Tensor:
    """Return the values of a node.

    Args:
        node: What is computed.
        stored: The values of the stored tensors below it, by their names in the files.
    """
    match node:
        case TensorInfo():
            return stored[node.name]
        case Joined():
            join = torch.stack if node.is_new else torch.cat
            return join([evaluate(part, stored) for part in node.parts], dim=node.dim)
        case Taken():
            return evaluate(node.of, stored).narrow(node.dim, sum(node.sizes[: node.take]), node.sizes[node.take])
        case Rearranged():
            return evaluate(node.of, stored).reshape(node.axes).permute(node.text.order).reshape(node.shape)
        case Dequantised():
            return dequantised(node, evaluate(node.of, stored), evaluate(node.scales, stored))
