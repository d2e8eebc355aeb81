"""Tensors that share memory without being the same: a file of weights cannot say that, so they are refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from wmtp.errors import CheckpointError
from wmtp.untrusted import first_few, show

if TYPE_CHECKING:
    from torch import Tensor


def refuse_overlaps(tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that have some memory in common; each is named once, under one name.

    Another layout of the whole of a tensor, such as its transpose, is not refused: it is written with values of its
    own, as it would be from a GPU.

    Raises:
        CheckpointError: If two of them overlap; names every such pair.
    """
    pairs = [f"{show(one)} and {show(other)}" for one, other in _overlapping(tensors)]
    if not pairs:
        return
    more = f" ({len(pairs)} pairs)" if len(pairs) > 1 else ""
    raise CheckpointError(
        f"the tensors {pairs[0]} share memory without being the same tensor{more}, and in a file each stands by itself",
        hint="leave one of them out of the state dict and make it from the other when the model is built, or give it"
        " memory of its own with .clone()",
        faults=first_few(pairs) if len(pairs) > 1 else (),
    )


def _overlapping(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    ranges = {name: _byte_range(tensor) for name, tensor in tensors.items() if tensor.numel()}
    begun: list[str] = []
    for name in sorted(ranges, key=lambda name: (str(tensors[name].device), ranges[name])):
        device, start = tensors[name].device, ranges[name][0]
        begun = [other for other in begun if tensors[other].device == device and ranges[other][1] > start]
        for other in begun:
            if _is_refused(tensors[other], tensors[name], is_same_range=ranges[other] == ranges[name]):
                yield other, name
        begun.append(name)


def _byte_range(tensor: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.element_size()


def _is_refused(one: Tensor, other: Tensor, *, is_same_range: bool) -> bool:
    if one.is_contiguous() and other.is_contiguous():
        return True
    # Columns of one matrix lie between each other without a byte in common.
    return not is_same_range and _share_bytes(one, other)


def _share_bytes(one: Tensor, other: Tensor) -> bool:
    import torch

    start = min(one.data_ptr(), other.data_ptr())
    end = max(_byte_range(one)[1], _byte_range(other)[1])
    taken = torch.zeros(end - start, dtype=torch.bool)

    def bytes_of(tensor: Tensor) -> Tensor:
        size = tensor.element_size()
        # A dimension that repeats its elements has only one of each in memory.
        shape = [1 if stride == 0 else length for length, stride in zip(tensor.shape, tensor.stride(), strict=True)]
        strides = [stride * size for stride in tensor.stride()]
        return taken.as_strided([*shape, size], [*strides, 1], tensor.data_ptr() - start)

    bytes_of(one).fill_(True)
    return bool(bytes_of(other).any())
