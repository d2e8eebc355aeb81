"""Filling a built model with tensors: straight from the page cache, without a copy where none is needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import nn

from wmtp.checkpoint.headers import DTYPE_BYTES, TensorInfo, parse_header
from wmtp.checkpoint.parameters import TORCH_DTYPES, ParameterSlot, parameter_slots
from wmtp.checkpoint.plan import Assignment
from wmtp.errors import IntegrityError, StorageError, TrustError
from wmtp.manifest import verify_digest
from wmtp.untrusted import show, show_all

# More than this many at once wait for each other in the kernel.
_NUM_THREADS = min(4, os.cpu_count() or 1)


def assign_tensors(
    slots: Mapping[str, ParameterSlot],
    assignments: Sequence[Assignment],
    files: Mapping[str, Path],
    *,
    device: str | torch.device,
    mmap: bool,
    digests: Mapping[str, str] | None = None,
) -> dict[str, torch.Tensor]:
    """Carry out the assignments of a plan.

    Args:
        slots: Where the parameters of the model hang that the plan was made for, by name.
        assignments: Its plan.
        files: Local path of every file that the plan names.
        device: Where parameters and buffers end up.
        mmap: Use the files' pages as the parameters' memory (private: writing to a parameter never reaches the file).
            False: read each tensor into private memory.
        digests: `sha256:<hex>` that files must have. Private memory is held to them itself; for a file that stays
            mapped, the caller has verified it.

    Returns:
        What each parameter and buffer was given, by every name of it.

    Raises:
        IntegrityError: If private memory has another digest, or a tied tensor differs from its twin.
    """
    given: dict[str, torch.Tensor] = {}
    values = _values(assignments, _whole_files(assignments, files, device, mmap, digests or {}), files, device, mmap)
    for assignment, value in zip(assignments, values, strict=True):
        first = slots[assignment.names[0]]
        if assignment.repeats:
            _check_repeated(first.tensor, value, assignment)
            continue
        first.assign(value)
        for name in assignment.names[1:]:
            slots[name].assign(first.tensor)
        given |= dict.fromkeys(assignment.names, value)
    return given


def verify_assigned(model: nn.Module, given: Mapping[str, torch.Tensor], *, where: str) -> None:
    """Raise TrustError unless a model holds exactly what it was given.

    Code that the operator agreed to can give its class other ways to store and show parameters.

    Args:
        model: The model.
        given: What `assign_tensors` returned, and initial values that a plan let through.
        where: The file that the class is built from, as errors show it.
    """
    held = {name: slot.tensor for name, slot in parameter_slots(model)}
    changed = [name for name in held.keys() | given.keys() if not _is_same(held.get(name), given.get(name))]
    if changed:
        raise TrustError(
            f"{where}: the model does not hold the weights that it was given: {', '.join(show_all(sorted(changed)))}",
            hint="the class changes its own parameters: look at what it does with them, or do not use it",
        )


def _is_same(held: torch.Tensor | None, given: torch.Tensor | None) -> bool:
    if held is None or given is None:
        return False
    return (held.data_ptr(), held.shape, held.dtype) == (given.data_ptr(), given.shape, given.dtype)


def _whole_files(
    assignments: Sequence[Assignment],
    files: Mapping[str, Path],
    device: str | torch.device,
    mmap: bool,
    digests: Mapping[str, str],
) -> dict[str, torch.Tensor]:
    """Files that are held in memory as a whole: mapped where parameters can stay there, else only to verify them."""
    if mmap:
        return {name: _map_file(path) for name, path in files.items()} if torch.device(device).type == "cpu" else {}
    planned = {name: [a.tensor for a in assignments if a.tensor.file == name] for name in files}
    return {name: _read_verified(path, digests[name], planned[name]) for name, path in files.items() if name in digests}


def _values(
    assignments: Sequence[Assignment],
    whole: Mapping[str, torch.Tensor],
    files: Mapping[str, Path],
    device: str | torch.device,
    mmap: bool,
) -> Iterator[torch.Tensor]:
    def is_used_in_place(assignment: Assignment) -> bool:
        return assignment.tensor.file in whole and assignment.dtype == assignment.tensor.dtype

    def value_of(assignment: Assignment) -> torch.Tensor:
        tensor = assignment.tensor
        if is_used_in_place(assignment) or (tensor.file in whole and not mmap):
            raw = whole[tensor.file][tensor.start : tensor.end]
        elif mmap:
            # A mapping of its own: its pages leave this process's memory once they are copied.
            raw = _map_file(files[tensor.file])[tensor.start : tensor.end]
        else:
            raw = _read_bytes(files[tensor.file], tensor.start, tensor.num_bytes)
        try:
            return _stored_tensor(raw, tensor).to(device=device, dtype=TORCH_DTYPES[assignment.dtype])
        except (RuntimeError, MemoryError) as error:
            raise _no_memory(files[tensor.file], tensor.num_bytes, error) from error

    # Fresh memory costs time page by page, which every core can spend at once; using a page in place costs less than
    # handing a task to a thread.
    with_threads = torch.device(device).type == "cpu" and not all(map(is_used_in_place, assignments))
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
    size = path.stat().st_size
    try:
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise _no_memory(path, size, error) from error


def _no_memory(path: Path, num_bytes: int, error: Exception) -> StorageError:
    return StorageError(
        f"{path}: {num_bytes:,} bytes of it cannot be held in memory: {show(str(error))}",
        hint="load it on a machine or device with more memory, or in a smaller dtype",
    )


def _read_bytes(path: Path, start: int, length: int) -> torch.Tensor:
    try:
        raw = torch.empty(length, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise _no_memory(path, length, error) from error
    with path.open("rb") as file:
        file.seek(start)
        return raw[: file.readinto(raw.numpy().data)]


def _read_verified(path: Path, digest: str, planned: list[TensorInfo]) -> torch.Tensor:
    size = path.stat().st_size
    raw = _read_bytes(path, 0, size)
    verify_digest(str(path), f"sha256:{hashlib.sha256(raw.numpy().data).hexdigest()}", digest)
    # The plan was made from a header read before: whoever can write the file may have shown another one then.
    header = bytes(raw[8 : 8 + int.from_bytes(bytes(raw[:8].tolist()), "little")].numpy().data)
    if not set(planned) <= set(parse_header(header, where=str(path), file=planned[0].file, size=size)):
        raise IntegrityError(f"{path}: its header changed while it was being loaded", hint="load it again")
    return raw


def _check_repeated(kept: torch.Tensor, repeated: torch.Tensor, assignment: Assignment) -> None:
    # Bits as well: NaN is not equal to itself.
    if not torch.equal(kept, repeated) and not torch.equal(_bits(kept), _bits(repeated)):
        file, name = show(assignment.tensor.file), show(assignment.tensor.name)
        raise IntegrityError(
            f"{file}: {name} differs from the tensor that the model ties it to",
            hint='if the two are meant to differ, set "tie_word_embeddings": false in config.json',
        )


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
