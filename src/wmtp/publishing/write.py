"""Writing a model directory: the one function through which every checkpoint of ours comes to be.

It writes into a directory that `publish_directory` will put in place; by itself it is not safe against a crash.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.headers import SINGLE_FILE
from wmtp.checkpoint.index import INDEX_FILE
from wmtp.checkpoint.native_heads import counting_what_is_there
from wmtp.checkpoint.quantisation import without_quantisation
from wmtp.errors import CheckpointError
from wmtp.metadata.file import METADATA_FILE, write_metadata
from wmtp.metadata.schema import ModelMetadata, StateDictMapping
from wmtp.publishing.layout import Layout, layout_of, names_read
from wmtp.publishing.overlaps import refuse_overlaps
from wmtp.untrusted import relative_name_fault, show

if TYPE_CHECKING:  # torch is imported when there are tensors to write
    from torch import Tensor, dtype

    from wmtp.loaders.base import LoadResult

RECEIPT_FILE = "receipt.json"
MAX_SHARD_BYTES = 5_000_000_000
_OWN_FILES = (CONFIG_FILE, METADATA_FILE, RECEIPT_FILE, SINGLE_FILE, INDEX_FILE)


def write_model_directory(
    directory: Path,
    *,
    state_dict: Mapping[str, Tensor],
    config: Mapping[str, Any],
    metadata: ModelMetadata,
    extra_files: Mapping[str, bytes | Path] | None = None,
    source: LoadResult | None = None,
) -> ModelMetadata:
    """Write weights, configuration and metadata of a model into an empty directory.

    Args:
        directory: Where to; it exists.
        state_dict: Parameters and persistent buffers. A tensor under several names is stored once, under the first,
            or under the one by which it was read from `source`.
        config: config.json. Its `dtype` is set to that of the weights, so that no reader casts them. Native modules
            that it counts and that are not written are counted no more, so that no server looks for them.
        metadata: What it says about files is set to what was written: `required_files`, `dtype`, the mapping of the
            tensors' names and layout, no digests of older files.
        extra_files: Further files by relative name: content, or a file to copy. They become required files.
        source: What the model was loaded from, for receipt.json. Tensors are written in the layout in which they were
            read from it, where that can be done, so that its readers can read them; else under the model's own names.

    Returns:
        The metadata as written.

    Raises:
        CheckpointError: If a tensor has no values to write or shares memory with another one, or if a file name is
            taken or breaks the path rule.
    """
    extra_files = extra_files or {}
    _check_names(extra_files)
    tensors = stored_once(state_dict, names_read(source.plan) if source is not None else ())
    layout = layout_of(source.plan, tensors) if source is not None else Layout()
    tensors = layout.stored(tensors)
    weights = _write_weights(directory, tensors)
    dtype_name = _dtype_name(tensors.values())
    plain = without_quantisation(counting_what_is_there(metadata, config, tensors))  # nothing is in fewer bits
    values = {key: value for key, value in plain.items() if key != "torch_dtype"} | {"dtype": dtype_name}
    write_json(directory / CONFIG_FILE, values)
    for name, content in extra_files.items():
        _write_file(directory / name, content)
    if source is not None:
        write_receipt(directory, source)
    written = _as_written(metadata, layout.mapping, [CONFIG_FILE, weights, *extra_files], dtype_name)
    write_metadata(directory, written)
    return written


def write_receipt(directory: Path, source: LoadResult) -> None:
    """Write what a model was loaded from, as receipt.json."""
    (directory / RECEIPT_FILE).write_text(source.receipt.to_json(), encoding="utf-8")


def _as_written(
    metadata: ModelMetadata, mapping: StateDictMapping, required: list[str], dtype: str | None
) -> ModelMetadata:
    changes = {"required_files": required, "state_dict_mapping": mapping}
    strategy = metadata.loading_strategy.model_copy(update=changes)
    return metadata.model_copy(update={"loading_strategy": strategy, "dtype": dtype, "files": None})


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        fault = "is written by wmtp itself" if name in _OWN_FILES else relative_name_fault(name)
        if fault:
            raise CheckpointError(
                f"the file name {show(name)} {fault}", hint="give each extra file a relative name of its own"
            )


def same_tensors(state_dict: Mapping[str, Tensor]) -> dict[str, str]:
    """Return, for each name whose tensor stands under an earlier name too, that first name."""
    found: dict[object, str] = {}
    same: dict[str, str] = {}
    for name, tensor in state_dict.items():
        # Not the storage: tensors that are mapped from one file share that and are different all the same.
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and (first := found.setdefault(place, name)) != name:
            same[name] = first
    return same


def split_into_shards(sizes: Mapping[str, int], max_bytes: int = MAX_SHARD_BYTES) -> list[list[str]]:
    """Return the names of tensors shard by shard, in order; a shard is larger than `max_bytes` with one tensor only.

    Args:
        sizes: Bytes of each tensor by name.
        max_bytes: Of tensor data in one file.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, num_bytes in sizes.items():
        if shards[-1] and size + num_bytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += num_bytes
    return shards


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file; no two of its tensors may share memory."""
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode  # as the user's umask has it; safetensors lets nobody else read what it writes
    # One shard at a time comes to the CPU. transformers reads files only with this note in them.
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    path.chmod(mode)


def write_index(directory: Path, weight_map: Mapping[str, str], total_bytes: int) -> str:
    """Write the index of shards, and return its name.

    Args:
        directory: Where the shards are.
        weight_map: The shard of each tensor.
        total_bytes: Of tensor data in all of them.
    """
    write_json(directory / INDEX_FILE, {"metadata": {"total_size": total_bytes}, "weight_map": dict(weight_map)})
    return INDEX_FILE


def shard_name(number: int, count: int) -> str:
    """Return the name of one of several shards, counted from 1, as transformers writes it."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def stored_once(state_dict: Mapping[str, Tensor], preferred: Container[str] = ()) -> dict[str, Tensor]:
    """Return the tensors to write, each under the first of its names that is preferred, or under its first name.

    Raises:
        CheckpointError: If one has no values, or two share memory without being the same tensor.
    """
    for name, tensor in state_dict.items():
        if tensor.is_meta:
            raise CheckpointError(
                f"the tensor {show(name)} is on the meta device and has no values", hint="load the model first"
            )
    same = same_tensors(state_dict)
    chosen: dict[str, str] = {}
    for name in filter(preferred.__contains__, state_dict):
        chosen.setdefault(same.get(name, name), name)
    tensors = {chosen.get(name, name): tensor for name, tensor in state_dict.items() if name not in same}
    refuse_overlaps(tensors)
    return tensors


def _write_weights(directory: Path, tensors: Mapping[str, Tensor]) -> str:
    shards = split_into_shards({name: tensor.nbytes for name, tensor in tensors.items()}, MAX_SHARD_BYTES)
    if len(shards) == 1:
        write_shard(directory / SINGLE_FILE, tensors)
        return SINGLE_FILE
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = shard_name(number, len(shards))
        write_shard(directory / file, {name: tensors[name] for name in names})
        weight_map |= dict.fromkeys(names, file)
    return write_index(directory, weight_map, sum(tensor.nbytes for tensor in tensors.values()))


def _dtype_name(tensors: Iterable[Tensor]) -> str | None:
    counts: Counter[dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[tensor.dtype] += tensor.numel()
    return str(counts.most_common(1)[0][0]).removeprefix("torch.") if counts else None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file of ours: sorted keys, UTF-8, a line feed at its end."""
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_file(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
