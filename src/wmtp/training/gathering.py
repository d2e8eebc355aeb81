"""A plain model beside one in shards, which is given all values when a checkpoint is due."""

from __future__ import annotations

import copy
import mmap
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from wmtp.load_plan.parameters import parameter_slots
from wmtp.models.value_heads import ValueHeads
from wmtp.training.restoring import TrainedModel


class PlainCopy:
    """The same model without shards, on the first process: whatever writes checkpoints needs to know of one kind only.

    Its values are pages of a file that has no name, so no process holds the model in memory: tensors are gathered one
    at a time, and the system puts pages on the disk when it needs room.

    Args:
        model: What will be sharded, before it is; its parameters are shared, not copied.
        dtype: In which a checkpoint holds trunk and prediction heads; value heads stay as they are.

    Attributes:
        model: The plain model. Its values are those of the last `update`, and before it those it was made with.
        dtype: As given.
    """

    def __init__(self, model: TrainedModel, dtype: torch.dtype) -> None:
        held: Iterable[Tensor] = (*model.parameters(), *model.buffers())
        memo: dict[int, Any] = {id(tensor): tensor for tensor in held}
        self.model: TrainedModel = copy.deepcopy(model, memo=memo)
        self.dtype = dtype

    @torch.no_grad()
    def update(self, sharded: nn.Module, directory: Path) -> None:
        """Take over the values of the model in shards. Every process joins in; the first one keeps them.

        Args:
            sharded: What the plain model is a copy of.
            directory: On a disk with room for the whole model.
        """
        plain = dict(parameter_slots(self.model))
        pages = _Pages(directory) if torch.distributed.get_rank() == 0 else None
        dtypes = self._dtypes(sharded)
        given: dict[Tensor, Tensor | None] = {}
        for name, slot in parameter_slots(sharded):
            if not isinstance(shards := slot.tensor, DTensor):
                continue  # a buffer, which training leaves as it is
            if shards not in given:
                whole = cast("DTensor", shards.to(dtypes.get(shards, self.dtype))).full_tensor()
                given[shards] = None if pages is None else pages.put(whole)
            if (value := given[shards]) is not None:
                plain[name].assign(value)

    def _dtypes(self, sharded: nn.Module) -> dict[Tensor, torch.dtype]:
        heads = [module for module in sharded.modules() if isinstance(module, ValueHeads)]
        return {parameter: parameter.dtype for module in heads for parameter in module.parameters()}


@torch.no_grad()
def gathered(tensors: Mapping[str, Tensor], directory: Path) -> dict[str, Tensor]:
    """Return tensors that are in shards whole; every process joins in, and where there are shards the first has them.

    Args:
        tensors: By name, the same on all processes.
        directory: Where the file goes whose pages they are.
    """
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return dict(tensors)
    pages = _Pages(directory) if torch.distributed.get_rank() == 0 else None
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if pages is not None:
            found[name] = pages.put(whole)
    return found


class _Pages:
    """A file without a name whose pages are tensors; it goes when they go, also when the process is killed."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  tensors hold on to it
        self._end = 0

    def put(self, value: Tensor) -> Tensor:
        """Write a tensor, and return one whose memory is what was written."""
        if not value.numel():
            return value.cpu()
        start, size = self._end, value.nbytes
        self._file.seek(start)
        self._file.write(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        self._file.flush()
        self._end = -(-(start + size) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        pages = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_COPY, offset=start)
        return torch.frombuffer(pages, dtype=value.dtype).view(value.shape)
