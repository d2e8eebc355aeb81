"""Proving from headers what an operation gives: its shape and dtype, or why it cannot be done."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.load_plan.conversion.nodes import Dequantised, Joined, Node, Operated, Rearranged, Shape, Taken, parts_of
from wmtp.metadata.operations import Concatenate, Dequantise, Operation, Rearrange, Split, Stack
from wmtp.metadata.rearrangement import parse_rearrangement
from wmtp.untrusted import plain

_FP4_VALUES_PER_BYTE = 2
_MXFP4_BYTES_PER_SCALE = 16


class Unfit(ValueError):
    """An operation does not fit what it is given; the text says why."""


def applied(operation: Operation, parts: Sequence[Node]) -> Operated:
    """Return what an operation makes of its parts.

    Raises:
        Unfit: If their shapes or dtypes do not allow it.
    """
    match operation:
        case Stack():
            return _stacked(operation, parts)
        case Concatenate():
            return _concatenated(operation, parts)
        case Split():
            return _taken(operation, parts[0])
        case Rearrange():
            return _rearranged(operation, parts[0])
        case Dequantise():
            return _dequantised(operation, *parts)


def _stacked(operation: Stack, parts: Sequence[Node]) -> Joined:
    dim, shape = operation.stack, parts[0].shape
    if dim > len(shape):
        raise Unfit(f"stack is {dim}, and its parts have {len(shape)} dimensions")
    _check_alike("stack", parts, lambda node: node.shape)
    return Joined(dim, True, tuple(parts), (*shape[:dim], len(parts), *shape[dim:]), parts[0].dtype)


def _concatenated(operation: Concatenate, parts: Sequence[Node]) -> Joined:
    dim, shape = operation.concatenate, parts[0].shape
    _check_dimension("concatenate", dim, parts[0])
    _check_alike("concatenate", parts, lambda node: (*node.shape[:dim], *node.shape[dim + 1 :], len(node.shape)))
    length = sum(part.shape[dim] for part in parts)
    return Joined(dim, False, tuple(parts), (*shape[:dim], length, *shape[dim + 1 :]), parts[0].dtype)


def _taken(operation: Split, of: Node) -> Taken:
    dim, sizes, shape = operation.split, operation.sizes, of.shape
    _check_dimension("split", dim, of)
    if sum(sizes) != shape[dim]:
        raise Unfit(f"sizes of split add up to {sum(sizes):,}, and {_named(of)} has {shape[dim]:,} in dimension {dim}")
    size = sizes[operation.take]
    return Taken(dim, tuple(sizes), operation.take, of, (*shape[:dim], size, *shape[dim + 1 :]), of.dtype)


def _rearranged(operation: Rearrange, of: Node) -> Rearranged:
    text = parse_rearrangement(operation.rearrange)
    try:
        sizes = text.axis_sizes(of.shape, operation.sizes)
    except ValueError as error:
        raise Unfit(f"rearrange of {_named(of)} {error}") from error
    axes = tuple(sizes[axis] for group in text.before for axis in group)
    shape = tuple(math.prod(sizes[axis] for axis in group) for group in text.after)
    return Rearranged(text, axes, of, shape, of.dtype)


def _dequantised(operation: Dequantise, of: Node, scales: Node) -> Dequantised:
    kind, block = operation.dequantise, tuple(operation.block or ())
    prove = _fp8_shape if kind == "fp8_block" else _mxfp4_shape
    return Dequantised(kind, block, of, scales, prove(of, scales, block), operation.dtype)


def _fp8_shape(of: Node, scales: Node, block: Shape) -> Shape:
    if of.dtype != "F8_E4M3" or scales.dtype not in (*FLOATING, "F8_E8M0"):
        raise Unfit(f"fp8_block is of F8_E4M3 with floating scales, found {of.dtype} with {scales.dtype}")
    if len(of.shape) < len(block):
        raise Unfit(f"fp8_block is of matrices, and {_named(of)} is {list(of.shape)}")
    *outer, rows, columns = of.shape
    expected = (*outer, -(-rows // block[0]), -(-columns // block[1]))
    if scales.shape != expected:
        raise Unfit(f"{_named(of)} of {list(of.shape)} needs scales of {list(expected)}, found {list(scales.shape)}")
    return of.shape


def _mxfp4_shape(of: Node, scales: Node, block: Shape) -> Shape:  # noqa: ARG001  its block is always the same
    if (of.dtype, scales.dtype) not in (("U8", "U8"), ("U8", "F8_E8M0")):
        raise Unfit(f"mxfp4 is of U8 with scales of U8 or F8_E8M0, found {of.dtype} with {scales.dtype}")
    if len(of.shape) < 2 or of.shape[-1] != _MXFP4_BYTES_PER_SCALE or of.shape[:-1] != scales.shape:
        expected = f"[..., n, {_MXFP4_BYTES_PER_SCALE}] with scales of [..., n]"
        raise Unfit(f"mxfp4 is of {expected}, and {_named(of)} is {list(of.shape)} with {list(scales.shape)}")
    *outer, groups, size = of.shape
    return (*outer, groups * size * _FP4_VALUES_PER_BYTE)


def _check_dimension(operation: str, dim: int, of: Node) -> None:
    if dim >= len(of.shape):
        raise Unfit(f"{operation} is {dim}, and {_named(of)} has {len(of.shape)} dimensions, counted from 0")


def _check_alike(operation: str, parts: Sequence[Node], shape_of: Callable[[Node], Shape]) -> None:
    first = parts[0]
    for part in parts:
        if shape_of(part) != shape_of(first):
            raise Unfit(f"{operation} of {_named(first)} {list(first.shape)} and {_named(part)} {list(part.shape)}")
        if part.dtype != first.dtype:
            raise Unfit(f"{operation} of {_named(first)} in {first.dtype} and {_named(part)} in {part.dtype}")


def _named(node: Node) -> str:
    while not isinstance(node, TensorInfo):
        node = parts_of(node)[0]
    return plain(node.name)
