"""What a parameter is made of: stored tensors, and operations on them whose shapes are proven."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from wmtp.checkpoint.tensors import DTYPE_BYTES, TensorInfo
from wmtp.metadata.rearrangement import Rearrangement

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts one behind the other.

    Attributes:
        dim: The dimension along which they lie.
        is_new: Whether the parts lack that dimension (`stack`), or have it (`concatenate`).
        parts: What is joined, in order.
        shape: Of the result.
        dtype: Of the result, in safetensors' notation.
    """

    dim: int
    is_new: bool
    parts: tuple[Node, ...]
    shape: Shape
    dtype: str


@dataclass(frozen=True, slots=True)
class Taken:
    """One of the pieces that a dimension of `of` is cut into: number `take`, of `sizes`."""

    dim: int
    sizes: tuple[int, ...]
    take: int
    of: Node
    shape: Shape
    dtype: str


@dataclass(frozen=True, slots=True)
class Rearranged:
    """The axes of `of` in another order.

    Attributes:
        text: What it does; `text.before` and `text.after` name axes.
        axes: The size of each axis, in the order of `text.before`.
        of: What is rearranged.
        shape: Of the result.
        dtype: Of the result, in safetensors' notation.
    """

    text: Rearrangement
    axes: Shape
    of: Node
    shape: Shape
    dtype: str


@dataclass(frozen=True, slots=True)
class Dequantised:
    """Values in fewer bits times their scales.

    Attributes:
        kind: `fp8_block` or `mxfp4`.
        block: Rows and columns that have one scale; empty where the kind says it.
        of: The values in fewer bits.
        scales: Their scales.
        shape: Of the result.
        dtype: Of the result, in safetensors' notation.
    """

    kind: str
    block: Shape
    of: Node
    scales: Node
    shape: Shape
    dtype: str


Operated = Joined | Taken | Rearranged | Dequantised
Node = TensorInfo | Operated


def parts_of(node: Node) -> tuple[Node, ...]:
    """Return what a node is made of directly; nothing for a stored tensor."""
    if isinstance(node, TensorInfo):
        return ()
    if isinstance(node, Joined):
        return node.parts
    return (node.of, node.scales) if isinstance(node, Dequantised) else (node.of,)


def stored_in(node: Node) -> Iterator[TensorInfo]:
    """Yield every stored tensor below a node, in order."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, TensorInfo):
            yield node
        waiting += reversed(parts_of(node))


@dataclass(frozen=True)
class Made:
    """A parameter that is not simply one stored tensor; it has the properties of a `TensorInfo` that make sense.

    Attributes:
        rule: The name in `state_dict_mapping.tensors` whose rule makes it.
        node: How.
    """

    rule: str
    node: Operated

    @cached_property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The stored tensors that it is made of, in order, each once."""
        return tuple(dict.fromkeys(stored_in(self.node)))

    @property
    def name(self) -> str:
        """What it is made of, in words."""
        first, *others = self.tensors
        return f"{first.name} and {len(others):,} more" if others else first.name

    @property
    def shape(self) -> Shape:
        """Its dimensions."""
        return self.node.shape

    @property
    def dtype(self) -> str:
        """In safetensors' notation."""
        return self.node.dtype

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Bytes of stored data in it; of a tensor that several parameters share, its part."""
        return _num_bytes(self.node)


def _num_bytes(node: Node) -> int:
    if isinstance(node, TensorInfo):
        return node.num_bytes
    if isinstance(node, Taken):
        return math.prod(node.shape) * DTYPE_BYTES[node.dtype]
    return sum(map(_num_bytes, parts_of(node)))


def stored_tensors(source: TensorInfo | Made) -> tuple[TensorInfo, ...]:
    """Return the stored tensors that a parameter is filled from."""
    return source.tensors if isinstance(source, Made) else (source,)
