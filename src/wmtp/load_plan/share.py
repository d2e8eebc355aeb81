"""The rows of a model's parameters that one of several processes keeps, where the others are not even read."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Share:
    """What one process reads of a model that several keep in shards: its rows of each parameter.

    Attributes:
        rank: Its number, from 0.
        count: How many processes share the model.
        num_bytes: Bytes of stored tensors that it has read so far.
        in_memory: Names of parameters that were read; others are pages of their files, and no row of them is read yet.
        whole: Names of what every process has whole: buffers.
        reads_all: Whether the rows of the others are read too.
    """

    rank: int
    count: int
    num_bytes: int = 0
    in_memory: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    reads_all: bool = False

    def rows(self, length: int) -> range:
        """Return which of so many rows it reads: those that FSDP2 gives it, fewer or none to the last process."""
        if self.reads_all:
            return range(length)
        each = -(-length // self.count)
        return range(min(self.rank * each, length), min((self.rank + 1) * each, length))


def blank(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return zeros of which only those take memory that are written to."""
    num_bytes = torch.Size(shape).numel() * dtype.itemsize
    if not num_bytes:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, num_bytes), dtype=dtype).view(shape)
