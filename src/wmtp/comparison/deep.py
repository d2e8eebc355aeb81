"""Reading every byte of a checkpoint: digests, and values that no trained weight should have."""

from __future__ import annotations

from pathlib import Path

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.errors import CheckpointError
from wmtp.manifest import MANIFEST_FILE, Manifest
from wmtp.metadata.file import METADATA_FILE
from wmtp.untrusted import first_few, show


def verify_bytes(checkpoint: Checkpoint) -> list[str]:
    """Read a whole checkpoint, and return a line for each thing that was verified.

    Raises:
        IntegrityError: If a file differs from its digest in `files` of metadata.json, or in manifest.json.
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
    floating = [tensor for tensor in checkpoint.tensors if tensor.dtype in FLOATING]
    faults = [fault for tensor in floating if (fault := _unfit_values(paths[tensor.file], tensor))]
    if faults:
        raise CheckpointError(
            f"{checkpoint.where}: {len(faults)} tensors have values that are not finite",
            hint="go back to a checkpoint from before the training diverged, or fetch the files again",
            faults=first_few(faults),
        )
    return [*verified, f"all values of {len(floating)} tensors are finite"]


def _unfit_values(path: Path, tensor: TensorInfo) -> str | None:
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        values = file.get_tensor(tensor.name)
    num_nan = int(torch.isnan(values).sum())
    num_infinite = int(torch.isinf(values).sum())
    if num_nan == num_infinite == 0:
        return None
    return f"{show(tensor.name)} in {show(tensor.file)}: {num_nan:,} NaN, {num_infinite:,} infinite"
