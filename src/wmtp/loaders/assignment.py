"""Filling a built model with tensors: straight from the page cache, without a copy where none is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import nn

from wmtp.checkpoint.headers import DTYPE_BYTES, TensorInfo
from wmtp.checkpoint.parameters import TORCH_DTYPES, parameter_slots
from wmtp.checkpoint.plan import Assignment
from wmtp.errors import IntegrityError, StorageError
from wmtp.untrusted import show


def assign_tensors(
    model: nn.Module,
    assignments: Iterable[Assignment],
    files: Mapping[str, Path],
    *,
    device: str | torch.device,
    mmap: bool,
) -> None:
    """Carry out the assignments of a plan.

    Args:
        model: The model that the plan was made for.
        assignments: Its plan.
        files: Local path of every file that the plan names.
        device: Where parameters and buffers end up.
        mmap: Use the files' pages as the parameters' memory (private: writing to a parameter never reaches the file).
            False: read each file into private memory first.
    """
    contents = {name: (_map_file if mmap else _read_file)(path) for name, path in files.items()}
    slots = dict(parameter_slots(model))
    for assignment in assignments:
        stored = _stored_tensor(contents[assignment.tensor.file], assignment.tensor)
        value = stored.to(device=device, dtype=TORCH_DTYPES[assignment.dtype])
        first = slots[assignment.names[0]]
        if assignment.repeats:
            _check_repeated(first.tensor, value, assignment)
            continue
        first.assign(value)
        for name in assignment.names[1:]:
            slots[name].assign(first.tensor)


def _map_file(path: Path) -> torch.Tensor:
    return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)


def _read_file(path: Path) -> torch.Tensor:
    content = torch.empty(path.stat().st_size, dtype=torch.uint8)
    with path.open("rb", buffering=0) as file:
        view, filled = content.numpy().data, 0
        while count := file.readinto(view[filled:]):
            filled += count
    return content[:filled]


def _stored_tensor(content: torch.Tensor, tensor: TensorInfo) -> torch.Tensor:
    if tensor.end > len(content):
        raise StorageError(
            f"{show(tensor.file)}: {len(content):,} bytes, its header puts {show(tensor.name)} at {tensor.end:,}",
            hint="the file changed while it was being loaded: load it again once nothing writes to it",
        )
    raw = content[tensor.start : tensor.end]
    if tensor.start % DTYPE_BYTES[tensor.dtype]:
        raw = raw.clone()  # a header of odd length; torch needs aligned data
    return raw.view(TORCH_DTYPES[tensor.dtype]).view(tensor.shape)


def _check_repeated(kept: torch.Tensor, repeated: torch.Tensor, assignment: Assignment) -> None:
    if not torch.equal(kept, repeated):
        file, name = show(assignment.tensor.file), show(assignment.tensor.name)
        raise IntegrityError(
            f"{file}: {name} differs from the tensor that the model ties it to",
            hint='if the two are meant to differ, set "tie_word_embeddings": false in config.json',
        )
