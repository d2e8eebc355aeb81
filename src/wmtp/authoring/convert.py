"""From pickled weights to safetensors. The pickles are opened in a limited process only, never in this one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from wmtp.authoring.meta_release import declare, find_release, refuse_undeclared_heads
from wmtp.authoring.pickles.confined import Job, Reply, SourceFile, part_name, run_confined
from wmtp.authoring.pickles.report import ConversionReport
from wmtp.authoring.pickles.sources import PickledWeights, check_beginnings, files_to_copy, find_weights, merge_sizes
from wmtp.checkpoint.headers import SINGLE_FILE, read_tensors
from wmtp.checkpoint.tensors import DTYPE_BYTES
from wmtp.confinement.limits import Limits
from wmtp.errors import CheckpointError, TrustError
from wmtp.metadata.file import METADATA_FILE, read_metadata, write_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import MAX_SHARD_BYTES, shard_name, write_index
from wmtp.storage.opening import open_store
from wmtp.storage.store import Store
from wmtp.untrusted import show_all

_BASE_MEMORY_BYTES = 1 << 30
_BASE_SECONDS = 600
_BYTES_PER_SECOND = 20_000_000  # of a slow network disk
# Views that overlap are written one by one; a pickle can name any number of them for a few bytes each.
_MAX_GROWTH = 4
_BASE_OUTPUT_BYTES = 1 << 20


def convert(
    source: str | Path,
    destination: Path,
    *,
    key: str | None = None,
    memory_limit_bytes: int | None = None,
    time_limit_seconds: int | None = None,
    allow_symlinks: bool = False,
) -> ConversionReport:
    """Write the pickled weights of a directory as safetensors, with the small files beside them.

    Args:
        source: A directory with one weights file (`.bin`, `.pt`, `.pth`, `.ckpt`), with shards and their index, or
            with tensor-parallel shards (`consolidated.NN.pth`), which are merged. It is left as it is. Where
            params.json says how many tokens are predicted, config.json and metadata.json are made from it.
        destination: A directory that does not exist yet, outside the source.
        key: The entry that holds the tensors, where several could.
        memory_limit_bytes: What opening may take beyond Python and torch; None: twice what is opened at once, and
            1 GiB.
        time_limit_seconds: Of processor time; None: ten minutes, and a second for every 20 MB.
        allow_symlinks: Follow links out of the source's directory.

    Raises:
        TrustError: If a pickle asks for anything that weights do not need. Nothing in it is run.
        FormatError: If a file is no pickle of weights, or does not fit its index or params.json.
        CheckpointError: If it is not clear what to convert, or a limit was reached.
        WmtpError: For what else fails; nothing stands at the destination then.
    """
    store = open_store(source, allow_symlinks=allow_symlinks)
    refuse_inside(store, destination)
    weights = find_weights(store)
    check_beginnings(store, weights)
    metadata = read_metadata(store) if store.has(METADATA_FILE) else None
    required = metadata.loading_strategy.required_files if metadata else ()
    release = find_release(store, weights)
    copied = files_to_copy(store, weights, required)
    limits = _limits(store, weights, memory_limit_bytes, time_limit_seconds)
    with publish_directory(destination) as directory:
        parts = directory / "parts"
        parts.mkdir()
        reply = run_confined(_job(store, weights, parts, key, limits), where=str(store.uri))
        written, num_bytes = _take_over(parts, directory, reply)
        copy_files(store, copied, directory)
        if metadata is not None:
            write_metadata(directory, _with_weights(metadata, weights, written[0]))
        if release is not None:
            declare(directory, release, reply.same)
        else:
            refuse_undeclared_heads(store, [tensor.name for tensor in reply.tensors])
    gone = {*weights.files, weights.index, *copied, METADATA_FILE}
    return ConversionReport(
        path=str(destination),
        sources=weights.files,
        weights=tuple(written),
        num_tensors=len(reply.tensors),
        num_bytes=num_bytes,
        unwrapped=reply.unwrapped,
        dropped=reply.dropped,
        same=reply.same,
        copied=tuple(copied),
        left_out=tuple(info.name for info in store.list_files() if info.name not in gone),
        with_metadata=metadata is not None,
        num_heads=release.params.n_future_tokens if release is not None else None,
        network_cut=reply.network_cut,
        writes_confined=reply.writes_confined,
        memory_limited=reply.memory_limited,
        memory_limit_bytes=limits.memory_bytes,
        time_limit_seconds=limits.seconds,
    )


def copy_files(store: Store, names: Iterable[str], directory: Path) -> None:
    """Copy files of a checkpoint into a directory, under their names."""
    for name, path in store.local_paths(names).items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, directory / name)


def refuse_inside(store: Store, destination: Path) -> None:
    """Raise CheckpointError for a destination within the source."""
    if destination.resolve().is_relative_to(Path(store.uri.path).resolve()):
        raise CheckpointError(
            f"{destination}: inside the source, which is left as it is", hint="name a directory beside it"
        )


def _limits(store: Store, weights: PickledWeights, memory: int | None, seconds: int | None) -> Limits:
    sizes = [store.stat(name).size_bytes for name in weights.files]
    at_once = sum(sizes) if weights.parallel else max(sizes)
    for name, value in (("memory_limit_bytes", memory), ("time_limit_seconds", seconds)):
        if value is not None and value < 1:
            raise CheckpointError(f"{name} is {value}", hint="give a whole number from 1, or leave it out")
    return Limits(
        memory_bytes=2 * at_once + _BASE_MEMORY_BYTES if memory is None else memory,
        seconds=_BASE_SECONDS + sum(sizes) // _BYTES_PER_SECOND if seconds is None else seconds,
        output_bytes=_MAX_GROWTH * sum(sizes) + _BASE_OUTPUT_BYTES,
    )


def _job(store: Store, weights: PickledWeights, parts: Path, key: str | None, limits: Limits) -> Job:
    expected = weights.expected or {}
    return Job(
        files=tuple(
            SourceFile(name, str(path.resolve()), expected.get(name))
            for name, path in store.local_paths(weights.files).items()
        ),
        directory=str(parts.resolve()),
        key=key,
        merge=merge_sizes(store) if weights.parallel else None,
        max_shard_bytes=MAX_SHARD_BYTES,
        limits=limits,
    )


def _take_over(parts: Path, directory: Path, reply: Reply) -> tuple[list[str], int]:
    """Give the written files their names, and prove that they are what the process said.

    Returns:
        Their names, the index first where there is one, and their bytes of tensor data.
    """
    count = _check_parts(parts, reply)
    names = {n: SINGLE_FILE if count == 1 else shard_name(n, count) for n in range(1, count + 1)}
    for number, name in names.items():
        (parts / part_name(number)).rename(directory / name)
    parts.rmdir()
    said = {tensor.name: (tensor.dtype, tensor.shape, names[tensor.part]) for tensor in reply.tensors}
    written = list(names.values())
    num_bytes = sum(DTYPE_BYTES.get(tensor.dtype, 0) * math.prod(tensor.shape) for tensor in reply.tensors)
    if count > 1:
        written.insert(0, write_index(directory, {name: file for name, (_, _, file) in said.items()}, num_bytes))
    found = read_tensors(open_store(directory))
    if said != {tensor.name: (tensor.dtype, tensor.shape, tensor.file) for tensor in found}:
        raise _untrue("other tensors than stand in the files")
    if not said.keys() >= set(reply.same.values()) or said.keys() & reply.same.keys():
        raise _untrue("tensors that stand for others, and that is not so")
    return written, num_bytes


def _check_parts(parts: Path, reply: Reply) -> int:
    """Return how many files were written, when they are regular ones and no others are there."""
    if not reply.tensors:
        raise CheckpointError("there are no tensors in the pickles", hint="name the directory that holds the weights")
    count = max(tensor.part for tensor in reply.tensors)
    if not 0 < count <= len(reply.tensors):
        raise _untrue(f"{count:,} files for {len(reply.tensors):,} tensors")
    wanted = {part_name(number) for number in range(1, count + 1)}
    found = {path.name for path in parts.iterdir() if path.is_file() and not path.is_symlink()}
    if others := sorted(wanted ^ {path.name for path in parts.iterdir()}) or sorted(wanted ^ found):
        raise _untrue(f"{count:,} files, and that is not so of {', '.join(show_all(others))}")
    return count


def _untrue(said: str) -> TrustError:
    return TrustError(
        f"the process that opened the pickles reported {said}",
        hint="do not use this checkpoint: its pickle took over that process. Its limits held as far as reported",
    )


def _with_weights(metadata: ModelMetadata, weights: PickledWeights, written: str) -> ModelMetadata:
    strategy = metadata.loading_strategy
    gone = (*weights.files, weights.index)
    kept = [name for name in strategy.required_files if name not in gone and name != written]
    changed = strategy.model_copy(update={"required_files": [*kept, written]})
    return metadata.model_copy(update={"loading_strategy": changed, "files": None})
