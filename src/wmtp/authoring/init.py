"""Drafting a metadata.json from config.json and headers, for a person to review. Guesses, and says so."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from wmtp.authoring.head_notes import refuse_medusa
from wmtp.authoring.mapping import with_mapping
from wmtp.authoring.native import CLASS_NAME, NativeDraft, draft_native
from wmtp.authoring.native_mapping import with_made_parameters
from wmtp.authoring.own_class import own_class
from wmtp.checkpoint.configuration import CONFIG_FILE, read_config
from wmtp.checkpoint.contents import Checkpoint, small_files
from wmtp.checkpoint.headers import read_tensors_and_notes, weights_name
from wmtp.checkpoint.tokenizer import TOKENIZER_FILE, tokenizer_fingerprint
from wmtp.errors import CheckpointError, MetadataError
from wmtp.metadata.file import METADATA_FILE, parse_metadata, write_metadata
from wmtp.metadata.schema import STORAGE_VERSION, ModelMetadata
from wmtp.registry import algorithms, model_classes
from wmtp.storage.opening import open_store
from wmtp.storage.store import Store
from wmtp.untrusted import did_you_mean, show

_OF_USE = re.compile("CausalLM|LMHead|ForConditionalGeneration|ForSequenceClassification")
_BUILT_IN_CLASS = "MTPForCausalLM"
_HEAD_TYPES = ("linear", "transformer", "resblock", "deepseek")
# A reward model is made for the critic; anything else without several heads was made by ordinary training.
_MADE_BY = {"reference_model": "baseline", "reward_model": "critic"}


@dataclass(frozen=True)
class Draft:
    """A drafted metadata.json.

    Attributes:
        metadata: The draft.
        notes: What was guessed and is to be checked, a sentence each.
    """

    metadata: ModelMetadata
    notes: tuple[str, ...]


def init_metadata(directory: Path, model_class: str | None = None) -> Draft:
    """Draft a metadata.json and write it into the directory.

    Args:
        directory: Holds config.json and the weights.
        model_class: The class of transformers to load it as, without native heads; None: what config.json names.

    Raises:
        MetadataError: If there is one already, which is never overwritten; or if transformers has no such class.
        WmtpError: If config.json or the weights are absent or malformed; nothing is written then.
    """
    path = directory / METADATA_FILE
    if path.exists() or path.is_symlink():
        raise MetadataError(
            f"{path}: already there, and never overwritten",
            hint=f"see what is wrong with it: 'wmtp validate {directory}'; an older one: 'wmtp upgrade {directory}';"
            " for another draft, such as of another class, move it away first",
        )
    draft = draft_metadata(open_store(directory), model_class)
    write_metadata(directory, draft.metadata)
    return draft


def draft_metadata(store: Store, model_class: str | None = None) -> Draft:
    """Draft a metadata.json for the checkpoint in an open store as `init_metadata` does; writes nothing."""
    notes: list[str] = []
    config = read_config(store)
    refuse_medusa(store, config)
    tensors, found = read_tensors_and_notes(store)
    architecture = config.get("model_type")
    if not isinstance(architecture, str):
        raise CheckpointError(
            f"{store.uri / CONFIG_FILE}: model_type is {show(architecture)}",
            hint='write the architecture there, such as "model_type": "llama"',
        )
    native = None if model_class else draft_native(config, tensors, notes)
    if model_class:
        strategy = _named_strategy(store, model_class)
    else:
        strategy = _native_strategy(store, native) if native else _strategy(store, config, notes)
    if not model_class:
        _note_text_model(store, config, strategy, notes)
    wmtp_type = _wmtp_type(store, strategy, notes)
    tokenizer = tokenizer_fingerprint(store)
    if tokenizer is None:
        notes.append(f"tokenizer: no {TOKENIZER_FILE}, so no fingerprint; other models' tokenizers cannot be compared")
    document = {
        "wmtp_type": wmtp_type,
        "training_algorithm": _MADE_BY.get(wmtp_type, "mtp"),
        "base_architecture": architecture,
        "storage_version": STORAGE_VERSION,
        "loading_strategy": strategy,
        "algorithm_compatibility": fitting_algorithms(wmtp_type) if _is_of_use(strategy) else [],
        "mtp": native.mtp if native else _heads(config, strategy, notes),
        "tokenizer": tokenizer.model_dump() if tokenizer else None,
        "created_by": "wmtp init",
    }
    metadata = parse_metadata(json.dumps(document).encode(), where=f"{store.uri / METADATA_FILE}, drafted")
    checkpoint = Checkpoint(store, metadata, config, tensors)
    if native:
        checkpoint = replace(checkpoint, metadata=with_made_parameters(checkpoint, notes))
    return Draft(with_mapping(checkpoint, notes), (*notes, *found))


def fitting_algorithms(wmtp_type: str) -> list[str]:
    """Return the registered algorithms that have a role for models of a type."""
    return [
        name for name in algorithms.names() if any(role.wmtp_type == wmtp_type for role in algorithms.get(name).roles)
    ]


def _native_strategy(store: Store, native: NativeDraft) -> dict[str, Any]:
    return {
        "loader_type": "custom_mtp",
        "model_class_name": CLASS_NAME,
        "state_dict_mapping": {"key_transforms": native.transforms},
        "required_files": [*small_files(store), weights_name(store)],
    }


def _named_strategy(store: Store, model_class: str) -> dict[str, Any]:
    if not _is_model_class(model_class):
        known = [name for name in dir(transformers) if _OF_USE.search(name)]
        raise MetadataError(
            f"{show(model_class)} is no model class of transformers {transformers.__version__}",
            hint=f"name one as transformers exports it, such as 'Gemma3ForCausalLM'{did_you_mean(model_class, known)}",
        )
    required = [*small_files(store), weights_name(store)]
    return {"loader_type": "huggingface", "transformers_class": model_class, "required_files": required}


def _note_text_model(store: Store, config: dict[str, Any], strategy: dict[str, Any], notes: list[str]) -> None:
    """Say so where the class sees or hears too, and transformers has one of its text model alone."""
    text = config.get("text_config")
    kind = text.get("model_type") if isinstance(text, dict) else None
    alone = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind) if isinstance(kind, str) else None
    whole = strategy.get("transformers_class")
    if alone and whole not in (alone, None):
        notes.append(
            f"loading_strategy.transformers_class: {whole}, the whole model; for its text model alone, remove"
            f" {METADATA_FILE} and type 'wmtp init {store.uri} --class {alone}'. Heads are grown on either"
        )


def _strategy(store: Store, config: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    required = [*small_files(store), weights_name(store)]
    declared = _first_architecture(config)
    modules = [f.name for f in store.list_files() if f.name.endswith(".py") and "/" not in f.name]
    if modules:
        module = "modeling.py" if "modeling.py" in modules else modules[0]
        return {
            "loader_type": "custom_mtp",
            "model_class_name": own_class(store, module, declared, notes),
            "custom_module_file": module,
            "required_files": [*required, *modules],
        }
    if declared in model_classes.names() or isinstance(config.get("mtp_config"), dict):
        name = declared if declared in model_classes.names() else _BUILT_IN_CLASS
        notes.append(f"loading_strategy.model_class_name: the built-in class {name}, as config.json has its heads")
        return {"loader_type": "custom_mtp", "model_class_name": name, "required_files": required}
    return {
        "loader_type": "huggingface",
        "transformers_class": _transformers_class(declared, notes),
        "required_files": required,
    }


def _first_architecture(config: dict[str, Any]) -> str | None:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def _transformers_class(declared: str | None, notes: list[str]) -> str:
    if declared and _is_model_class(declared):
        return declared
    notes.append(
        f"loading_strategy.transformers_class: AutoModelForCausalLM; config.json names {show(declared)},"
        " which is no class of transformers"
    )
    return "AutoModelForCausalLM"


def _is_model_class(name: str) -> bool:
    found = getattr(transformers, name, None)
    return isinstance(found, type) and issubclass(found, PreTrainedModel)


def _wmtp_type(store: Store, strategy: dict[str, Any], notes: list[str]) -> str:
    if strategy["loader_type"] != "huggingface":
        notes.append("wmtp_type: base_model, one that is trained, as the class is not one of transformers")
        return "base_model"
    if "ForSequenceClassification" in strategy["transformers_class"]:
        notes.append("wmtp_type: reward_model, as the class gives one score to a sequence")
        return "reward_model"
    if _is_of_use(strategy):
        said = (
            "wmtp_type: reference_model, which scores tokens for another model and is not trained. To train it, give it"
            f" prediction heads: 'wmtp grow {store.uri} NEW --heads 4' writes a base model. To train it as it is, with"
            ' its one head, set "wmtp_type": "base_model", "algorithm_compatibility": ["baseline-mtp"]'
        )
    else:
        said = (
            f"wmtp_type: reference_model, for want of a better one: {strategy['transformers_class']} gives no"
            " probabilities of next tokens, so no algorithm can use it; name a causal LM or sequence classifier"
        )
    notes.insert(0, said)  # as it decides what the model can be used for
    return "reference_model"


def _is_of_use(strategy: dict[str, Any]) -> bool:
    """Whether some role could have the model, as far as the name of its class tells."""
    return strategy["loader_type"] != "huggingface" or bool(_OF_USE.search(strategy["transformers_class"]))


def _heads(config: dict[str, Any], strategy: dict[str, Any], notes: list[str]) -> dict[str, Any] | None:
    if strategy["loader_type"] == "huggingface":
        return None
    nested = config.get("mtp_config")
    places = [config, nested] if isinstance(nested, dict) else [config]
    counts = [place[key] for place in places for key in ("n_future_tokens", "num_future_tokens") if key in place]
    if not counts:
        notes.append("mtp: config.json does not say how many heads there are; add mtp.n_future_tokens")
        return None
    head_type = places[-1].get("head_type")
    return {"n_future_tokens": counts[0], "head_type": head_type if head_type in _HEAD_TYPES else None}
