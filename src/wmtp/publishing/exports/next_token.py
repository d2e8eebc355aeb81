"""From a model with prediction heads to a plain next-token model that transformers reads by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel

from wmtp import __version__
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import PROCESSOR_FILES
from wmtp.errors import CheckpointError
from wmtp.loaders.base import LoadResult
from wmtp.loaders.standardized import plan_load
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.text_part import is_text_part, text_configuration
from wmtp.models.trunks import recorded_class
from wmtp.publishing.exports.targets import Writer
from wmtp.publishing.parent import copied_files, parent_record
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import write_model_directory, write_receipt


def prepare_next_token(loaded: LoadResult) -> Writer:
    """Return what writes the trunk of a checkpoint as a checkpoint of its own.

    `AutoModelForCausalLM.from_pretrained` on it has the logits of head 1, bit for bit. So it has on a text model that
    was loaded out of the files of a larger one, which is written with its own configuration and under its own names.

    Raises:
        CheckpointError: If its class has no trunk that can stand alone.
    """
    provenance = {"made_by": "export", "parent": parent_record(loaded)}
    return prepare_module(
        loaded.model,
        config=loaded.checkpoint.config,
        metadata=loaded.metadata.model_copy(update={"provenance": provenance}),
        extra_files=copied_files(loaded),
        source=loaded,
    )


def export_module(
    model: nn.Module,
    destination: Path,
    *,
    config: Mapping[str, Any],
    metadata: ModelMetadata,
    extra_files: Mapping[str, bytes | Path],
    source: LoadResult | None = None,
) -> Path:
    """Write the trunk of a model in memory as a checkpoint of its own.

    Args:
        model: A model of a built-in class.
        destination: A directory that does not exist yet.
        config: config.json of the model with its heads.
        metadata: Its metadata.json, with the provenance of the export.
        extra_files: Tokenizer and generation files.
        source: What the model was loaded from, whose layout its tensors keep.

    Returns:
        The destination.

    Raises:
        CheckpointError: If the model's class has no trunk that can stand alone.
        StorageError: If something already stands at the destination.
    """
    write = prepare_module(model, config=config, metadata=metadata, extra_files=extra_files, source=source)
    with publish_directory(destination) as directory:
        write(directory)
    return destination


def prepare_module(
    model: nn.Module,
    *,
    config: Mapping[str, Any],
    metadata: ModelMetadata,
    extra_files: Mapping[str, bytes | Path],
    source: LoadResult | None = None,
) -> Writer:
    """Return what writes the trunk of a model in memory; arguments and refusals are those of `export_module`."""
    trunk = model.trunk if isinstance(model, MTPForCausalLM) else model
    if is_text_part(trunk, metadata.base_architecture):
        return _of_its_own(trunk, config, metadata, extra_files, source)
    if not isinstance(model, MTPForCausalLM):
        raise _no_trunk(model)
    plain = {key: value for key, value in config.items() if key != "mtp_config"}
    if model.trunk_type is not None:  # transformers does not know the model's own
        plain["model_type"] = model.trunk_type
    return partial(
        write_model_directory,
        state_dict=model.trunk.state_dict(),
        config=plain | {"architectures": [type(model.trunk).__name__]},
        metadata=_exported(metadata, model.trunk_class, model.trunk_type),
        extra_files=extra_files,
        source=source,
    )


def _exported(metadata: ModelMetadata, trunk_class: str, model_type: str | None) -> ModelMetadata:
    strategy = LoadingStrategy(loader_type="huggingface", transformers_class=trunk_class, required_files=[CONFIG_FILE])
    changes: dict[str, Any] = {
        "loading_strategy": strategy,
        "mtp": None,
        "horizon": None,
        "n_heads": None,
        "source_path": None,
        "created_by": f"wmtp {__version__}",
    }
    return metadata.model_copy(update=changes | ({} if model_type is None else {"base_architecture": model_type}))


def _of_its_own(
    text: PreTrainedModel,
    config: Mapping[str, Any],
    metadata: ModelMetadata,
    extra_files: Mapping[str, bytes | Path],
    source: LoadResult | None,
) -> Writer:
    """Return what writes a text model so that no reader takes it for the larger one, and looks for the rest of it."""
    trunk_class = recorded_class(text, text.config).get("trunk_class", "AutoModelForCausalLM")

    def write(directory: Path) -> None:
        write_model_directory(
            directory,
            state_dict=text.state_dict(),
            config=text_configuration(text, config),
            metadata=_exported(metadata, trunk_class, text.config.model_type),
            extra_files={name: file for name, file in extra_files.items() if name not in PROCESSOR_FILES},
        )
        if source is not None:
            write_receipt(directory, source)
        plan_load(directory)  # or raises what is wrong with it

    return write


def _no_trunk(model: nn.Module) -> CheckpointError:
    name = type(model).__name__
    if isinstance(model, PreTrainedModel) and hasattr(transformers, name):
        return CheckpointError(
            f"{name} is a model of transformers already, without heads",
            hint="nothing has to be exported: from_pretrained loads the checkpoint as it stands",
        )
    return CheckpointError(
        f"{name} has no trunk that can stand alone as a next-token model",
        hint="export models of the built-in class MTPForCausalLM; a class of your own knows its own parts",
    )
