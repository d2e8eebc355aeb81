"""The index of shards: which file holds which tensor."""

from __future__ import annotations

from collections.abc import Iterable

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import FormatError
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, first_few, parse_json_object, plain, relative_name_fault, show

INDEX_FILE = "model.safetensors.index.json"


def read_index(store: Store) -> tuple[dict[str, str], object]:
    """Return which shard holds each tensor, and the size in all that the index declares.

    Raises:
        FormatError: If it is malformed, or names what is no file of the checkpoint.
    """
    where = f"{store.uri / INDEX_FILE}"
    data = store.read_bytes(INDEX_FILE, max_bytes=MAX_INDEX_BYTES)
    index = parse_json_object(data, where=where, error=FormatError, max_bytes=MAX_INDEX_BYTES)
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
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
    return weight_map, metadata.get("total_size")


def _shard_name_fault(shard: object) -> str | None:
    if not isinstance(shard, str):
        return "is not a string"
    return relative_name_fault(shard) or (None if shard.endswith(".safetensors") else "does not end in .safetensors")


def check_index(store: Store, weight_map: dict[str, str], tensors: Iterable[TensorInfo]) -> None:
    """Raise FormatError, with every fault, unless each tensor is where the index says and nowhere else."""
    faults, unseen = [], dict(weight_map)
    for tensor in tensors:
        declared = unseen.pop(tensor.name, None)
        if declared is None:
            what = "in two shards" if tensor.name in weight_map else "not in the index"
            faults.append(f"{show(tensor.name)} is {what}, found in {show(tensor.file)}")
        elif declared != tensor.file:
            faults.append(f"{show(tensor.name)} is said to be in {show(declared)}, found in {show(tensor.file)}")
    faults += [f"{show(name)} is not in its shard {show(shard)}" for name, shard in unseen.items()]
    if faults:
        raise FormatError(
            f"{store.uri / INDEX_FILE}: {len(faults)} tensors are not where the index says",
            hint="fetch the index and the shards again, from one version",
            faults=first_few(faults),
        )
