"""The index of shards: which file holds which tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import FormatError
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, first_few, parse_json_object, plain, relative_name_fault, show

INDEX_FILE = "model.safetensors.index.json"
_MAX_SHARDS = 50_000  # the largest checkpoints that are published have some hundreds
_OTHER_VERSION = "fetch the index and the shards again, from one version"


@dataclass(frozen=True)
class ShardIndex:
    """What an index of shards says.

    Attributes:
        weight_map: The shard of each tensor.
        total_size: The bytes of all tensors, or whatever else stands there; None: nothing does.
    """

    weight_map: dict[str, str]
    total_size: object = None

    @property
    def shards(self) -> list[str]:
        """The shards that it names, sorted."""
        return sorted(set(self.weight_map.values()))


def read_index(store: Store) -> ShardIndex:
    """Return what the index of a checkpoint says.

    Raises:
        FormatError: If it is malformed, or names what is no file of the checkpoint.
    """
    where = f"{store.uri / INDEX_FILE}"
    data = store.read_bytes(INDEX_FILE, max_bytes=MAX_INDEX_BYTES)
    index = parse_json_object(data, where=where, error=FormatError, max_bytes=MAX_INDEX_BYTES)
    weight_map, metadata = index.get("weight_map"), index.get("metadata")
    metadata = {} if metadata is None else metadata
    if not isinstance(weight_map, dict) or not isinstance(metadata, dict) or not weight_map:
        raise FormatError(
            f"{where}: weight_map is {show(weight_map)}, metadata is {show(metadata)}",
            hint="weight_map is an object from tensor names to shards, metadata an object: fetch the index again",
        )
    sound: set[str] = set()  # a few names stand there once for every tensor
    for tensor, shard in weight_map.items():
        if isinstance(shard, str) and shard in sound:
            continue
        if fault := _shard_name_fault(shard):
            raise FormatError(
                f"{where}: weight_map.{plain(tensor)}: the shard name {show(shard)} {fault}",
                hint="a shard is named relative to the checkpoint: fetch the index again from where you trust it",
            )
        sound.add(shard)
        if len(sound) > _MAX_SHARDS:
            raise FormatError(
                f"{where}: weight_map names more than {_MAX_SHARDS:,} shards",
                hint="write fewer and larger ones: save_pretrained(..., max_shard_size='5GB')",
            )
    return ShardIndex(weight_map, metadata.get("total_size"))


def _shard_name_fault(shard: object) -> str | None:
    if not isinstance(shard, str):
        return "is not a string"
    return relative_name_fault(shard) or (None if shard.endswith(".safetensors") else "does not end in .safetensors")


def size_notes(index: ShardIndex, found: int) -> list[str]:
    """Say that the sum in an index is not what the headers add up to, in one line; nothing when it is."""
    if index.total_size is None or (type(index.total_size) in (int, float) and index.total_size == found):
        return []
    declared = f"{INDEX_FILE}: metadata.total_size is {show(index.total_size)}"
    return [f"{declared}, the tensors have {found} bytes; nothing depends on it, as headers prove every tensor"]


def check_index(store: Store, index: ShardIndex, tensors: Sequence[TensorInfo]) -> None:
    """Raise FormatError, with every fault, unless each tensor is where the index says and nowhere else."""
    places = {tensor.name: tensor for tensor in tensors if index.weight_map.get(tensor.name) == tensor.file}
    extra = [_extra(tensor, places[tensor.name]) for tensor in tensors if _is_extra(tensor, places)]
    unnamed = [tensor for tensor in tensors if tensor.name not in index.weight_map]
    unlisted = [f"{show(tensor.name)} is not in the index, found in {show(tensor.file)}" for tensor in unnamed]
    absent = _absent(index, tensors, places)
    if faults := [*unlisted, *extra, *absent]:
        raise FormatError(
            f"{store.uri / INDEX_FILE}: {len(faults)} tensors are not where the index says",
            hint=_OTHER_VERSION if absent else f"{_OTHER_VERSION}; or {_repair(store, unnamed)}",
            faults=first_few(faults),
        )


def leftovers(index: ShardIndex, tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """Return the tensors that stand in a shard other than the index says, or that it does not name."""
    return [tensor for tensor in tensors if index.weight_map.get(tensor.name) != tensor.file]


def _is_extra(tensor: TensorInfo, places: Mapping[str, TensorInfo]) -> bool:
    return tensor.name in places and places[tensor.name] is not tensor


def _extra(tensor: TensorInfo, named: TensorInfo) -> str:
    return f"{show(tensor.name)} is in two shards: {_place(named)}, as the index says, and {_place(tensor)}"


def _place(tensor: TensorInfo) -> str:
    return f"{show(tensor.file)} (bytes {tensor.start:,} to {tensor.end:,})"


def _absent(index: ShardIndex, tensors: Iterable[TensorInfo], places: Mapping[str, TensorInfo]) -> list[str]:
    elsewhere = {tensor.name: tensor.file for tensor in tensors if tensor.name not in places}
    return [
        f"{show(name)} is said to be in {show(shard)}, found in {show(elsewhere[name])}"
        if name in elsewhere
        else f"{show(name)} is not in its shard {show(shard)}"
        for name, shard in index.weight_map.items()
        if name not in places
    ]


def _repair(store: Store, unnamed: Sequence[TensorInfo]) -> str:
    repair = f"'wmtp convert {store.uri} NEW' writes only the tensors that the index names, and where it names them"
    if not unnamed:
        return repair
    line = f'"{plain(unnamed[0].name)}": "{plain(unnamed[0].file)}"'
    return f"{repair}; what it should name and does not is added to its weight_map, as in {line}"
