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
from wmtp.load_plan.conversion.nodes import Dequantised, Joined, Made, Node, Rearranged, Taken, stored_in
from wmtp.load_plan.parameters import TORCH_DTYPES
from wmtp.load_plan.reading import no_memory
from wmtp.load_plan.share import Share, blank

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

    def rows(self, length: int) -> range:
        """Return which rows of the parameter, which has so many, it has a part in."""
        first, count = 0, length
        for dim, start, taken in self.place:
            if dim == 0:
                first, count = first + start, 1 if taken is None else taken
                if taken is None:
                    break  # further steps go on within one row
        return range(first, first + count)


class Assembly:
    """A parameter that is being made, as the tensors that it is made of arrive in any order.

    Args:
        made: What it is made of.
        dtype: Of the parameter, in safetensors' notation.
        share: Which rows are wanted; parts that have none of them are left zero. None: all.
    """

    def __init__(self, made: Made, dtype: str, share: Share | None = None) -> None:
        self._made, self._dtype, self._lock = made, TORCH_DTYPES[dtype], threading.RLock()
        self._share = share
        self._value: Tensor | None = None
        self._arrived: dict[str, Tensor] = {}
        self._regions: dict[str, list[_Region]] = {}
        self._num_uses: Counter[str] = Counter()  # regions that are still to be filled from a tensor
        self._num_waiting = 0
        for place, node in _regions(made.node, ()):
            region = _Region(place, node, {tensor.name for tensor in stored_in(node)})
            if not self._is_wanted(region):
                continue
            self._num_waiting += 1
            for name in region.waits_for:
                self._regions.setdefault(name, []).append(region)
                self._num_uses[name] += 1

    def _is_wanted(self, region: _Region) -> bool:
        if self._share is None or not self._made.shape:
            return True
        length = self._made.shape[0]
        found, wanted = region.rows(length), self._share.rows(length)
        return max(found.start, wanted.start) < min(found.stop, wanted.stop)

    def waits_for(self, tensor: TensorInfo) -> bool:
        """Whether a stored tensor is yet to be delivered, for a part that is wanted."""
        return tensor.name in self._regions

    @property
    def blank(self) -> Tensor | None:
        """The parameter, where it is whole without any tensor: no row of it is wanted."""
        return None if self._num_waiting else self._memory()

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
            self._let_go(ready)
            return None if self._num_waiting else self._memory()

    def _fill(self, region: _Region) -> None:
        place, value = region.of(self._memory()), evaluate(region.node, self._arrived)
        if place.data_ptr() != value.data_ptr():  # else it was read there
            place.copy_(value)

    def _let_go(self, filled: list[_Region]) -> None:
        """Drop values that no other region waits for."""
        for name in (name for region in filled for name in {tensor.name for tensor in stored_in(region.node)}):
            self._num_uses[name] -= 1
            if not self._num_uses[name]:
                del self._arrived[name]

    def _memory(self) -> Tensor:
        with self._lock:
            if self._value is None:
                self._value = self._empty()
            return self._value

    def _empty(self) -> Tensor:
        try:
            if self._share is not None:
                return blank(self._made.shape, self._dtype)
            return torch.empty(self._made.shape, dtype=self._dtype, device="cpu")
        except RuntimeError as error:
            num_bytes = self._made.num_elements * self._dtype.itemsize
            raise no_memory(self._made.rule, num_bytes, error) from error


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
