"""Shards that hold more than their index names: written again with only what it names, and proven."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wmtp.authoring.convert import copy_files, refuse_inside
from wmtp.authoring.pickles.sources import PickledWeights, files_to_copy
from wmtp.checkpoint.headers import SINGLE_FILE, read_shards, read_tensors
from wmtp.checkpoint.index import INDEX_FILE, ShardIndex, check_index, leftovers, size_notes
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import IntegrityError
from wmtp.metadata.file import METADATA_FILE, read_metadata, write_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import write_index
from wmtp.storage.local import reading
from wmtp.storage.opening import open_store
from wmtp.storage.store import Store
from wmtp.untrusted import first_few, plain

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class LeftTensor:
    """A tensor that was not written.

    Attributes:
        name: Its name.
        file: The shard it stands in.
        equals_named: Whether its bytes, dtype and shape are those of the one that was written under its name; None:
            the index does not name it at all.
    """

    name: str
    file: str
    equals_named: bool | None

    def __str__(self) -> str:
        said = {None: "the index does not name it", True: "equal to the one written", False: "DIFFERS from that one"}
        return f"{plain(self.name)} in {plain(self.file)}: {said[self.equals_named]}"


@dataclass(frozen=True)
class RepairReport:
    """What was written of shards that did not fit their index.

    Attributes:
        path: The new directory.
        weights: The index and its shards.
        num_tensors: Tensors written.
        num_bytes: Of tensor data.
        left: Tensors that were not written.
        mended: What was wrong in the index besides.
        copied: Files that went along unchanged.
        with_metadata: metadata.json was carried over.
    """

    path: str
    weights: tuple[str, ...]
    num_tensors: int
    num_bytes: int
    left: tuple[LeftTensor, ...]
    mended: tuple[str, ...]
    copied: tuple[str, ...]
    with_metadata: bool

    @property
    def next_step(self) -> str:
        """What to do with the new directory."""
        return f"wmtp {'validate' if self.with_metadata else 'init'} {self.path}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self) | {"next_step": self.next_step}

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        return [
            f"{self.path}: {self.num_tensors:,} tensors, {self.num_bytes:,} bytes, where the index names them",
            "each was read again, and is equal to its source",
            *first_few([f"not written: {tensor}" for tensor in self.left]),
            *(f"mended: {note}" for note in self.mended),
            f"copied: {', '.join(first_few([plain(name) for name in self.copied])) or 'nothing'}",
            f"next: {self.next_step}",
        ]


def needs_repair(source: str | Path, *, allow_symlinks: bool = False) -> bool:
    """Say whether a directory has shards whose index is at odds with them in a way that `repair` mends."""
    store = open_store(source, allow_symlinks=allow_symlinks)
    if not store.has(INDEX_FILE) or store.has(SINGLE_FILE):
        return False
    index, tensors = read_shards(store)
    return bool(leftovers(index, tensors) or size_notes(index, sum(tensor.num_bytes for tensor in tensors)))


def repair(source: str | Path, destination: Path, *, allow_symlinks: bool = False) -> RepairReport:
    """Write the tensors that an index names, each in the shard where it is named, and the small files beside them.

    Args:
        source: A directory of safetensors shards and their index. It is left as it is.
        destination: A directory that does not exist yet, outside the source.
        allow_symlinks: Follow links out of the source's directory.

    Raises:
        FormatError: If a tensor that the index names is not where it says: nobody knows then which one is meant.
        WmtpError: For what else fails; nothing stands at the destination then.
    """
    store = open_store(source, allow_symlinks=allow_symlinks)
    refuse_inside(store, destination)
    index, tensors = read_shards(store)
    left = leftovers(index, tensors)
    others = set(left)
    named = {tensor.name: tensor for tensor in tensors if tensor not in others}
    check_index(store, index, list(named.values()))
    num_bytes = sum(tensor.num_bytes for tensor in named.values())
    metadata = read_metadata(store) if store.has(METADATA_FILE) else None
    copied = _files_beside(store, index, metadata)
    with publish_directory(destination) as directory:
        for shard in index.shards:
            _write_shard(directory / shard, store, [t for t in named.values() if t.file == shard])
        write_index(directory, index.weight_map, num_bytes)
        _verify(open_store(directory), store, named)
        copy_files(store, copied, directory)
        if metadata is not None:
            write_metadata(directory, metadata.model_copy(update={"files": None}))  # digests of the old files
    return RepairReport(
        path=str(destination),
        weights=(INDEX_FILE, *index.shards),
        num_tensors=len(named),
        num_bytes=num_bytes,
        left=tuple(_left(store, tensor, named.get(tensor.name)) for tensor in left),
        mended=tuple(size_notes(index, num_bytes)),
        copied=tuple(copied),
        with_metadata=metadata is not None,
    )


def _files_beside(store: Store, index: ShardIndex, metadata: ModelMetadata | None) -> list[str]:
    weights = PickledWeights(tuple(index.shards), INDEX_FILE)
    return files_to_copy(store, weights, metadata.loading_strategy.required_files if metadata else ())


def _left(store: Store, tensor: TensorInfo, named: TensorInfo | None) -> LeftTensor:
    equals = None if named is None else _is_equal(store, tensor, store, named)
    return LeftTensor(tensor.name, tensor.file, equals)


def _write_shard(path: Path, store: Store, tensors: Sequence[TensorInfo]) -> None:
    entries, end = {}, 0
    ordered = sorted(tensors, key=lambda tensor: (tensor.start, tensor.end))
    for tensor in ordered:
        start, end = end, end + tensor.num_bytes
        entries[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    # transformers reads files only with this note in them.
    header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    header += b" " * (-len(header) % 8)  # what is behind it is aligned
    path.parent.mkdir(parents=True, exist_ok=True)
    with reading(path), path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in ordered:
            file.writelines(_chunks(store, tensor))


def _chunks(store: Store, tensor: TensorInfo) -> Iterator[bytes]:
    path = store.local_paths([tensor.file])[tensor.file]
    with reading(path), path.open("rb") as file:
        file.seek(tensor.start)
        left = tensor.num_bytes
        while left:
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise IntegrityError(
                    f"{store.where(tensor.file)}: ends within {plain(tensor.name)}",
                    hint="the file changed while it was being read: run it again once nothing writes to it",
                )
            left -= len(chunk)
            yield chunk


def _is_equal(store: Store, tensor: TensorInfo, other_store: Store, other: TensorInfo) -> bool:
    if (tensor.dtype, tensor.shape) != (other.dtype, other.shape):
        return False
    pairs = zip(_chunks(store, tensor), _chunks(other_store, other), strict=True)
    return all(one == two for one, two in pairs)


def _verify(made: Store, source: Store, named: dict[str, TensorInfo]) -> None:
    """Raise IntegrityError unless a new directory holds the named tensors, bit for bit, where they were."""
    found = {tensor.name: tensor for tensor in read_tensors(made)}
    wrong = [
        name
        for name, tensor in named.items()
        if name not in found or found[name].file != tensor.file or not _is_equal(made, found[name], source, tensor)
    ]
    if wrong or found.keys() != named.keys():
        names = ", ".join(first_few([plain(name) for name in wrong]))
        raise IntegrityError(
            f"{source.uri}: what was written of it is not equal to it: {names}",
            hint="the source changed while it was being read, or the disk lies: run it again",
        )
