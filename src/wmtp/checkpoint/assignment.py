"""Filling a built model with tensors: straight from the page cache, without a copy where none is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

from wmtp.checkpoint.headers import DTYPE_BYTES, TensorInfo
from wmtp.checkpoint.parameters import TORCH_DTYPES, parameter_slots
from wmtp.checkpoint.plan import Assignment
from wmtp.errors import IntegrityError, StorageError
from wmtp.untrusted import show

# More than this many at once wait for each other in the kernel.
_NUM_THREADS = min(4, os.cpu_count() or 1)


def assign_tensors(
    model: nn.Module,
    assignments: Sequence[Assignment],
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
            False: read each tensor into private memory.
    """
    slots = dict(parameter_slots(model))
    values = _values(assignments, files, torch.device(device), mmap)
    for assignment, value in zip(assignments, values, strict=True):
        first = slots[assignment.names[0]]
        if assignment.repeats:
            _check_repeated(first.tensor, value, assignment)
            continue
        first.assign(value)
        for name in assignment.names[1:]:
            slots[name].assign(first.tensor)


def _values(
    assignments: Sequence[Assignment], files: Mapping[str, Path], device: torch.device, mmap: bool
) -> Iterator[torch.Tensor]:
    on_cpu = device.type == "cpu"
    mapped = {name: _map_file(path) for name, path in files.items()} if mmap and on_cpu else {}

    def is_used_in_place(assignment: Assignment) -> bool:
        return assignment.tensor.file in mapped and assignment.dtype == assignment.tensor.dtype

    def value_of(assignment: Assignment) -> torch.Tensor:
        tensor = assignment.tensor
        if is_used_in_place(assignment):
            raw = mapped[tensor.file][tensor.start : tensor.end]
        elif mmap:
            # A mapping of its own: its pages leave this process's memory once they are copied.
            raw = _map_file(files[tensor.file])[tensor.start : tensor.end]
        else:
            raw = _read_bytes(files[tensor.file], tensor)
        return _stored_tensor(raw, tensor).to(device=device, dtype=TORCH_DTYPES[assignment.dtype])

    # Fresh memory costs time page by page, which every core can spend at once; using a page in place costs less than
    # handing a task to a thread.
    with_threads = on_cpu and not all(is_used_in_place(assignment) for assignment in assignments)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        yield from (pool.map if with_threads else map)(value_of, assignments)


def _stored_tensor(raw: torch.Tensor, tensor: TensorInfo) -> torch.Tensor:
    if len(raw) < tensor.num_bytes:
        raise StorageError(
            f"{show(tensor.file)}: ends within {show(tensor.name)}, which its header puts at bytes"
            f" {tensor.start:,} to {tensor.end:,}",
            hint="the file changed while it was being loaded: load it again once nothing writes to it",
        )
    if raw.data_ptr() % DTYPE_BYTES[tensor.dtype]:
        raw = raw.clone()  # a header of odd length; torch needs aligned data
    return raw.view(TORCH_DTYPES[tensor.dtype]).view(tensor.shape)


def _map_file(path: Path) -> torch.Tensor:
    return torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8)


def _read_bytes(path: Path, tensor: TensorInfo) -> torch.Tensor:
    raw = torch.empty(tensor.num_bytes, dtype=torch.uint8, device="cpu")
    with path.open("rb") as file:
        file.seek(tensor.start)
        return raw[: file.readinto(raw.numpy().data)]


def _check_repeated(kept: torch.Tensor, repeated: torch.Tensor, assignment: Assignment) -> None:
    if not torch.equal(kept, repeated):
        file, name = show(assignment.tensor.file), show(assignment.tensor.name)
        raise IntegrityError(
            f"{file}: {name} differs from the tensor that the model ties it to",
            hint='if the two are meant to differ, set "tie_word_embeddings": false in config.json',
        )
