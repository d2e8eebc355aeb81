"""Writing a model with native heads as its source is: names that servers read, its configuration, all its tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.native_heads import native_names, with_count
from wmtp.load_plan.conversion.inverse import stored_again
from wmtp.load_plan.conversion.nodes import Dequantised, Made, Node, parts_of
from wmtp.load_plan.plan import LoadPlan
from wmtp.loaders.base import LoadResult
from wmtp.metadata.file import write_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.publishing.write import write_model_directory
from wmtp.storage.store import Store

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = ("dtype", "torch_dtype")
_OWN = ("trunk.", "heads.")


def keeps_source_layout(loaded: LoadResult) -> bool:
    """Say whether a model is written as `write_native_directory` does it."""
    return isinstance(loaded.model, NativeMTPForCausalLM) and has_source_layout(loaded.plan)


def has_source_layout(plan: LoadPlan) -> bool:
    """Say whether tensors can be written under the names, and in the shapes, in which a plan found them.

    Not where values were dequantised, as putting them into fewer bits again loses some; and not where the source has
    the names of our own class, which no server reads.
    """
    if any(tensor.name.startswith(_OWN) for a in plan.assignments for tensor in a.tensors):
        return False
    return not any(_is_dequantised(a.source.node) for a in plan.assignments if isinstance(a.source, Made))


def _is_dequantised(node: Node) -> bool:
    return isinstance(node, Dequantised) or any(map(_is_dequantised, parts_of(node)))


def write_native_directory(
    directory: Path,
    loaded: LoadResult,
    *,
    metadata: ModelMetadata,
    extra_files: Mapping[str, bytes | Path],
) -> ModelMetadata:
    """Write a model with native heads into an empty directory, in the layout of the checkpoint that it came from.

    Names, mapping and configuration are the source's, keys that nobody knows included. What the plan left unused is
    carried over byte for byte, and a tensor that was stored twice is stored twice again.

    Args:
        directory: Where to; it exists.
        loaded: The model, whose parameters may have changed since, with the plan that filled it.
        metadata: What it says about files is set to what was written; see `write_model_directory`.
        extra_files: Further files by relative name.

    Returns:
        The metadata as written.
    """
    written = write_model_directory(
        directory,
        state_dict=source_tensors(loaded),
        config=loaded.checkpoint.config,
        metadata=metadata,
        extra_files=extra_files,
    )
    heads: Any = loaded.model
    write_config(directory, loaded, with_count(loaded.checkpoint.config, len(heads.heads)))
    mapping = loaded.metadata.loading_strategy.state_dict_mapping
    strategy = written.loading_strategy.model_copy(update={"state_dict_mapping": mapping})
    written = written.model_copy(update={"loading_strategy": strategy})
    write_metadata(directory, written)
    return written


def source_tensors(loaded: LoadResult, *, heads: bool = True) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint under their names in its files, with the values that the model has now.

    Args:
        loaded: The model and its plan.
        heads: False: without those of native modules.
    """
    values = loaded.model.state_dict()
    first = {a.names[0]: a.source for a in loaded.plan.assignments if not a.repeats}
    stored = stored_again(first, values)
    for again in (a for a in loaded.plan.assignments if a.repeats):
        # In memory of its own: a tensor in one place is written once.
        copied = stored_again({again.names[0]: again.source}, values)
        stored |= {name: value.clone() for name, value in copied.items()}
    stored |= {name: values[name] for name in loaded.plan.kept_initial} | dict(_unused(loaded))
    dropped = set() if heads else set(native_names(loaded.checkpoint.config, stored))
    return {name: value for name, value in stored.items() if name not in dropped}


def _unused(loaded: LoadResult) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    store, unused = loaded.checkpoint.store, set(loaded.plan.left_unused)
    files = {tensor.name: tensor.file for tensor in loaded.checkpoint.tensors if tensor.name in unused}
    paths = store.local_paths(dict.fromkeys(files.values()))
    for name, file in files.items():
        with safe_open(paths[file], framework="pt") as opened:
            yield name, opened.get_tensor(name)


def write_config(directory: Path, loaded: LoadResult, config: Mapping[str, Any]) -> None:
    """Put a configuration in place of the one just written, with the dtype of the weights where it names one.

    One that says what the source's says is that file, byte for byte.
    """
    dtype = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8")).get("dtype")
    values = _with_dtype(dict(config), dtype)
    if values == loaded.checkpoint.config:
        data = _bytes_of(loaded.checkpoint.store)
    else:
        data = (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    (directory / CONFIG_FILE).write_bytes(data)


def _with_dtype(config: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    named: dict[str, Any] = {key: dtype for key in _DTYPES if isinstance(config.get(key), str)}
    nested = config.get("text_config")
    if isinstance(nested, dict):
        named["text_config"] = nested | {key: dtype for key in _DTYPES if isinstance(nested.get(key), str)}
    says_nothing = not any(key in config for key in _DTYPES) and not any(key in (nested or {}) for key in _DTYPES)
    return config | named | ({"dtype": dtype} if says_nothing and dtype != "float32" else {})


def _bytes_of(store: Store) -> bytes:
    return store.local_paths([CONFIG_FILE])[CONFIG_FILE].read_bytes()
