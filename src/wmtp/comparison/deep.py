"""Reading every byte of a checkpoint: digests, values that are not finite, and all else that filling a model checks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.errors import CheckpointError
from wmtp.load_plan.conversion.nodes import Made, stored_tensors
from wmtp.manifest import MANIFEST_FILE, Manifest
from wmtp.metadata.file import METADATA_FILE
from wmtp.untrusted import first_few, show
from wmtp.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from wmtp.loaders.base import PreparedLoad


def verify_bytes(checkpoint: Checkpoint) -> list[str]:
    """Read a whole checkpoint, and return a line for each thing that was verified.

    Raises:
        IntegrityError: If a file differs from its digest in `files` of metadata.json, in manifest.json, or in a lock.
        StorageError: If a file is shorter than its header says by now.
        CheckpointError: If a tensor has NaN or infinite values; names each.
    """
    store = checkpoint.store
    paths = store.local_paths(info.name for info in store.list_files())
    verified = []
    if checkpoint.metadata.files is not None:
        Manifest(files=checkpoint.metadata.files).verify_paths(paths, where=checkpoint.where)
        verified.append(f"{len(checkpoint.metadata.files)} files have the digests that {METADATA_FILE} gives")
    if store.has(MANIFEST_FILE):
        # Without metadata.json, which a person may edit: what it says is proven by the plan, not by a digest.
        published = [entry for entry in Manifest.read(paths[MANIFEST_FILE]).files if entry.path != METADATA_FILE]
        Manifest(files=published).verify_paths(paths, where=checkpoint.where)
        verified.append(f"{len(published)} files have the digests that {MANIFEST_FILE} gives")
    faults = [fault for tensor, values in _stored_values(checkpoint) if (fault := unfit_values(tensor, values))]
    refuse_unfit(faults, where=checkpoint.where)
    num_floating = sum(tensor.dtype in FLOATING for tensor in checkpoint.tensors)
    return [*verified, f"all values of {counted(num_floating, 'tensor')} are finite"]


def verify_filling(prepared: PreparedLoad) -> list[str]:
    """Check what loading checks while it fills a model, and return a line for each thing that was verified.

    The model is not filled, and is of no use afterwards: memory is that of the largest tensors that stand twice, and of
    a plain construction where `allow_missing` lets parameters keep their initial values.

    Raises:
        WmtpError: What `wmtp.load` would raise.
    """
    from wmtp.load_plan.filling import assign_blanks
    from wmtp.loaders.base import execute
    from wmtp.loaders.tokenizer import load_tokenizer

    execute(prepared, assign_blanks)
    num_repeated = sum(assignment.repeats for assignment in prepared.plan.assignments)
    verified = [f"{num_repeated} tensors of tied parameters are equal to the ones they repeat"] if num_repeated else []
    if load_tokenizer(prepared.checkpoint) is not None:
        verified.append("the tokenizer makes the tokens of its files")
    return verified


def _stored_values(checkpoint: Checkpoint) -> Iterator[tuple[TensorInfo, Tensor]]:
    """Yield every tensor as it is stored, one at a time, read as a model's are."""
    from wmtp.load_plan.plan import Assignment
    from wmtp.load_plan.weights import planned_values

    store = checkpoint.store
    # What lies on this machine is read into private memory, which is given back; a mapping of it would only grow.
    is_elsewhere = store.directory is None
    for file, tensors in groupby(checkpoint.tensors, key=lambda tensor: tensor.file):
        as_stored = [Assignment((tensor.name,), tensor, tensor.dtype) for tensor in tensors]
        # A file that must have a digest is read in one go, a few runs of it at a time; else it would be hashed anew.
        is_hashed = not is_elsewhere and store.expected(file) is not None
        for some in [as_stored] if is_hashed else ([one] for one in as_stored):
            for assignment, value in planned_values(store, some, device="cpu", mmap=is_elsewhere):
                yield assignment.tensors[0], value


def refuse_unfit(faults: Sequence[str], *, where: str) -> None:
    """Raise CheckpointError when tensors have values that are not finite, each as `unfit_values` describes it."""
    if faults:
        raise CheckpointError(
            f"{where}: {len(faults)} tensors have values that are not finite",
            hint="go back to a checkpoint from before the training diverged, or fetch the files again",
            faults=first_few(faults),
        )


def unfit_values(tensor: TensorInfo | Made, values: Tensor) -> str | None:
    """Say how many values of a tensor are NaN or infinite; None: it has none such, or is not floating."""
    import torch

    if tensor.dtype not in FLOATING:
        return None
    num_nan = int(torch.isnan(values).sum())
    num_infinite = int(torch.isinf(values).sum())
    if num_nan == num_infinite == 0:
        return None
    return f"{show(tensor.name)} in {show(stored_tensors(tensor)[0].file)}: {num_nan:,} NaN, {num_infinite:,} infinite"
