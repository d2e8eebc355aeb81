"""From a model with native heads to the layout of its family, which every server reads; or to its trunk alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wmtp import __version__
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.native_heads import with_count
from wmtp.errors import CheckpointError
from wmtp.loaders.base import LoadResult
from wmtp.loaders.standardized import plan_load
from wmtp.metadata.file import write_metadata
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata, StateDictMapping
from wmtp.metadata.transforms import compile_transform
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.publishing.exports.targets import Writer
from wmtp.publishing.native import has_source_layout, source_tensors, write_config, write_native_directory
from wmtp.publishing.parent import copied_files, parent_record
from wmtp.publishing.write import write_model_directory

_TRUNK = "trunk."


def prepare_native(loaded: LoadResult) -> Writer:
    """Return what writes a model with native heads under the names, and with the configuration, of its source.

    Raises:
        CheckpointError: If the model has no native heads, or its source's layout is not known.
    """
    _check(loaded)
    metadata = loaded.metadata.model_copy(update=_changes(loaded))

    def write(directory: Path) -> None:
        write_native_directory(directory, loaded, metadata=metadata, extra_files=copied_files(loaded))
        plan_load(directory)  # or raises what is wrong with it

    return write


def prepare_without_heads(loaded: LoadResult) -> Writer:
    """Return what writes the trunk alone, as the source has it; tensors and declaration of the heads go together.

    Raises:
        CheckpointError: If the model has no native heads, or its source's layout is not known.
    """
    model = _check(loaded)
    config = with_count(loaded.checkpoint.config, 0) | {"architectures": [type(model.trunk).__name__]}
    metadata = _of_trunk(loaded, model)
    if model.conventions.trunk_type is not None:
        config["model_type"] = model.conventions.trunk_type

    def write(directory: Path) -> None:
        tensors = source_tensors(loaded, heads=False)
        written = write_model_directory(
            directory,
            state_dict=tensors,
            config=config,
            metadata=metadata,
            extra_files=copied_files(loaded),
        )
        write_config(directory, loaded, config)
        mapping = trunk_mapping(loaded, list(tensors))
        strategy = written.loading_strategy.model_copy(update={"state_dict_mapping": mapping})
        write_metadata(directory, written.model_copy(update={"loading_strategy": strategy}))
        plan_load(directory)

    return write


def _check(loaded: LoadResult) -> NativeMTPForCausalLM:
    if not isinstance(loaded.model, NativeMTPForCausalLM):
        raise CheckpointError(
            f"{loaded.checkpoint.where}: loads as {type(loaded.model).__name__}, which has no native heads",
            hint=_other_target(loaded),
        )
    if not has_source_layout(loaded.plan):
        raise CheckpointError(
            f"{loaded.checkpoint.where}: has the names of wmtp's own class, or was stored in fewer bits, so that its"
            " layout cannot be written again",
            hint="export the checkpoint that these weights came from, in the layout of its family",
        )
    return loaded.model


def _changes(loaded: LoadResult) -> dict[str, Any]:
    provenance = {"made_by": "export", "parent": parent_record(loaded)}
    return {"created_by": f"wmtp {__version__}", "source_path": None, "provenance": provenance}


def _of_trunk(loaded: LoadResult, model: NativeMTPForCausalLM) -> ModelMetadata:
    strategy = LoadingStrategy(
        loader_type="huggingface", transformers_class=model.trunk_class, required_files=[CONFIG_FILE]
    )
    changes: dict[str, Any] = {"mtp": None, "horizon": None, "n_heads": None, "loading_strategy": strategy}
    if model.conventions.trunk_type is not None:
        changes["base_architecture"] = model.conventions.trunk_type
    return loaded.metadata.model_copy(update=_changes(loaded) | changes)


def trunk_mapping(loaded: LoadResult, names: list[str]) -> StateDictMapping:
    """Return the mapping under which the trunk's class loads these tensors of the source; mostly an empty one."""
    declared = loaded.metadata.loading_strategy.state_dict_mapping
    fields = declared.model_dump(by_alias=True, exclude_defaults=True)
    transforms, renamed = _needed(declared.key_transforms, names)
    # Behind all of them, the names in the class of the trunk are those in ours without their begin.
    is_same = [name.removeprefix(_TRUNK) for name in renamed] == names
    fields["key_transforms"] = {} if is_same else {**transforms, r"^trunk\.": ""}
    rules = {name: rule for name, rule in fields.get("tensors", {}).items() if name.startswith(_TRUNK)}
    fields["tensors"] = json.loads(json.dumps(rules).replace(f'"{_TRUNK}', '"'))
    return StateDictMapping.model_validate(fields)


def _needed(transforms: dict[str, str], names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the rules, in order, that some name meets, and what becomes of the names."""
    needed = {}
    for pattern, text in transforms.items():
        renamed = list(map(compile_transform(pattern, text), names))
        if any(name is not None for name in renamed):
            needed[pattern] = text
        names = [before if after is None else after for before, after in zip(names, renamed, strict=True)]
    return needed, names


def _other_target(loaded: LoadResult) -> str:
    """Return what can be written of a model that has no native heads, by the type of those that it has."""
    head_type = getattr(loaded.model, "head_type", None)
    if head_type in {"linear", "resblock"}:
        return f"its heads are of the type {head_type!r}: --to vllm-medusa or --to medusa writes them for servers"
    return (
        "--to transformers writes head 1 for servers; native heads are grown by --head-type deepseek, and then trained"
    )
