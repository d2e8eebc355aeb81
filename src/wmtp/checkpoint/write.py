"""Writing a model directory: the one function through which every checkpoint of ours comes to be.

It writes into a directory that `publish_directory` will put in place; by itself it is not safe against a crash.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.headers import INDEX_FILE, SINGLE_FILE
from wmtp.checkpoint.receipt import LoadReceipt
from wmtp.errors import CheckpointError
from wmtp.metadata.file import METADATA_FILE, write_metadata
from wmtp.metadata.schema import ModelMetadata, StateDictMapping
from wmtp.untrusted import relative_name_fault, show

if TYPE_CHECKING:  # torch is imported when there are tensors to write
    from torch import Tensor, dtype

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
    receipt: LoadReceipt | None = None,
) -> ModelMetadata:
    """Write weights, configuration and metadata of a model into an empty directory.

    Args:
        directory: Where to; it exists.
        state_dict: Parameters and persistent buffers. A tensor under several names is stored once, under the first.
        config: config.json. Its `dtype` is set to that of the weights, so that no reader casts them.
        metadata: What it says about files is set to what was written: `required_files`, `dtype`, no name mapping (the
            names are the model's own), no digests of older files.
        extra_files: Further files by relative name: content, or a file to copy. They become required files.
        receipt: What the model was loaded from, for receipt.json.

    Returns:
        The metadata as written.

    Raises:
        CheckpointError: If a tensor has no values to write, or a file name is taken or breaks the path rule.
    """
    extra_files = extra_files or {}
    _check_names(extra_files)
    tensors = _stored_once(state_dict)
    weights = _write_weights(directory, tensors)
    dtype_name = _dtype_name(tensors.values())
    values = {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": dtype_name}
    _write_json(directory / CONFIG_FILE, values)
    for name, content in extra_files.items():
        _write_file(directory / name, content)
    if receipt is not None:
        (directory / RECEIPT_FILE).write_text(receipt.to_json(), encoding="utf-8")
    written = _as_written(metadata, [CONFIG_FILE, weights, *extra_files], dtype_name)
    write_metadata(directory, written)
    return written


def _as_written(metadata: ModelMetadata, required: list[str], dtype: str | None) -> ModelMetadata:
    changes = {"required_files": required, "state_dict_mapping": StateDictMapping()}
    strategy = metadata.loading_strategy.model_copy(update=changes)
    return metadata.model_copy(update={"loading_strategy": strategy, "dtype": dtype, "files": None})


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        fault = "is written by wmtp itself" if name in _OWN_FILES else relative_name_fault(name)
        if fault:
            raise CheckpointError(
                f"the file name {show(name)} {fault}", hint="give each extra file a relative name of its own"
            )


def _stored_once(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[object, str] = {}
    tensors: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if tensor.is_meta:
            raise CheckpointError(
                f"the tensor {show(name)} is on the meta device and has no values", hint="load the model first"
            )
        # Not the storage: tensors that are mapped from one file share that and are different all the same.
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() == 0 or found.setdefault(place, name) == name:
            tensors[name] = tensor
    return tensors


def _write_weights(directory: Path, tensors: Mapping[str, Tensor]) -> str:
    shards = _shards(tensors)
    if len(shards) == 1:
        _write_shard(directory / SINGLE_FILE, tensors, shards[0])
        return SINGLE_FILE
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(directory / file, tensors, names)
        weight_map |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(directory / INDEX_FILE, {"metadata": {"total_size": total}, "weight_map": weight_map})
    return INDEX_FILE


def _shards(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > MAX_SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor.nbytes
    return shards


def _write_shard(path: Path, tensors: Mapping[str, Tensor], names: list[str]) -> None:
    from safetensors.torch import save_file

    # One shard at a time comes to the CPU. transformers reads files only with this note in them.
    save_file({name: tensors[name].detach().cpu().contiguous() for name in names}, path, metadata={"format": "pt"})


def _dtype_name(tensors: Iterable[Tensor]) -> str | None:
    counts: Counter[dtype] = Counter()
    for tensor in tensors:
        if tensor.is_floating_point():
            counts[tensor.dtype] += tensor.numel()
    return str(counts.most_common(1)[0][0]).removeprefix("torch.") if counts else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _write_file(path: Path, content: bytes | Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_bytes(content)
