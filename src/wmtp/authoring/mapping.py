"""The mapping that a draft needs: by what transformers would do with the tensors, or by their names alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedModel

from wmtp.authoring.drafting.draft import MappingDraft, Traced, taken_as_they_are, trace_mapping
from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import PlanError, WmtpError
from wmtp.load_plan.bounds import Bounds
from wmtp.load_plan.matching import make_plan, suggested_mapping, unmatched
from wmtp.load_plan.parameters import parameter_slots, parameter_specs, target_dtype
from wmtp.load_plan.plan import ParameterSpec
from wmtp.loaders.base import LoadingStrategy
from wmtp.loaders.construction import build_model
from wmtp.metadata.schema import ModelMetadata, StateDictMapping
from wmtp.registry import loading_strategies
from wmtp.settings.loading import LoadOptions
from wmtp.untrusted import first_few, plain

_MAX_SHOWN_BYTES = 200  # the draft itself shows all of it
# By what larger models are found, the first that knows the architecture.
_LARGER = ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq", "AutoModel")


def with_mapping(checkpoint: Checkpoint, notes: list[str]) -> ModelMetadata:
    """Compare the tensors with the parameters of the drafted class, and draft the mapping that they need.

    Raises:
        PlanError: If the tensors fit the class as they are, but are not what transformers would make of them.
    """
    metadata = checkpoint.metadata
    if metadata.loading_strategy.custom_module_file is not None:
        notes.append(
            "state_dict_mapping: empty; nobody agreed to run the class's code, so its parameters are not known."
            " After 'wmtp trust', 'wmtp validate' says which mapping they need, if any"
        )
        return metadata
    try:
        draft = needed_mapping(checkpoint)
    except PlanError as error:
        if _fits_as_it_is(checkpoint):
            raise  # written, it would load values that transformers would not
        is_empty = metadata.loading_strategy.state_dict_mapping == StateDictMapping()
        drafted = "empty" if is_empty else "by the names of the family"
        notes.append(f"state_dict_mapping: {drafted}, and the checkpoint does not load: {_in_one_line(error)}")
        return metadata
    except WmtpError as error:
        notes.append(f"state_dict_mapping: empty; the model could not be built to compare it: {error.problem}")
        return metadata
    if not draft.fields:
        return metadata
    notes += _notes(draft)
    before = metadata.loading_strategy.state_dict_mapping.model_dump(exclude_defaults=True)
    return _mapped(metadata, StateDictMapping.model_validate(before | draft.fields))


def needed_mapping(checkpoint: Checkpoint) -> MappingDraft:
    """Return the mapping under which a checkpoint would load; without fields where its own does.

    Raises:
        PlanError: If none is found under which it loads; says what is wrong.
        WmtpError: If the class cannot be built.
    """
    return _needed(checkpoint, *_built(checkpoint))


def mended_mapping(checkpoint: Checkpoint) -> tuple[ModelMetadata, list[str]] | None:
    """Return metadata with the mapping that the class needs, and notes; None where its own fits, or none is found."""
    if checkpoint.metadata.loading_strategy.custom_module_file is not None:
        return None  # nobody agreed to run the class's code
    try:
        model, specs = _built(checkpoint)
        if not unmatched(checkpoint, specs, checkpoint.metadata.loading_strategy.state_dict_mapping):
            return None
        anew = replace(checkpoint, metadata=_mapped(checkpoint.metadata, StateDictMapping()))
        draft = _needed(anew, model, specs)
    except WmtpError:
        return None  # 'wmtp validate' says what is wrong
    if not draft.loads:
        return None
    return _mapped(checkpoint.metadata, StateDictMapping.model_validate(draft.fields)), _notes(draft)


def _built(checkpoint: Checkpoint) -> tuple[nn.Module, list[ParameterSpec]]:
    options = LoadOptions()
    strategy: LoadingStrategy = loading_strategies.create(checkpoint.metadata.loading_strategy.loader_type)
    dtype = target_dtype(checkpoint.tensors, options.dtype)
    blueprint = strategy.blueprint(checkpoint, options, dtype)
    model, _ = build_model(blueprint, dtype, Bounds.of_tensors(checkpoint.tensors))
    return model, parameter_specs(parameter_slots(model))


def _needed(checkpoint: Checkpoint, model: nn.Module, specs: Sequence[ParameterSpec]) -> MappingDraft:
    """The mapping under which the checkpoint would load, or all names fit; raises PlanError where none is found."""
    whole = _whole(checkpoint, model)
    traced = trace_mapping(checkpoint, model, specs, whole)
    if traced.draft is not None:
        return traced.draft
    mapping = suggested_mapping(checkpoint, specs)
    if mapping is None:
        if traced.misshapen is not None:
            mapped = _mapped(checkpoint.metadata, StateDictMapping.model_validate(traced.misshapen.fields))
            error = _refusal(replace(checkpoint, metadata=mapped), model, specs, Traced())
            return replace(traced.misshapen, notes=(_in_one_line(error),))
        raise _refusal(checkpoint, model, specs, traced)
    _refuse_unfaithful(checkpoint, specs, mapping, traced)
    return MappingDraft(mapping)


def _refusal(checkpoint: Checkpoint, model: nn.Module, specs: Sequence[ParameterSpec], traced: Traced) -> PlanError:
    try:
        make_plan(checkpoint, specs, model_class=type(model).__qualname__, keep_stored_dtype=True)
    except PlanError as error:
        return PlanError(error.problem, error.hint, [*first_few(traced.untraceable), *error.faults])
    raise AssertionError("what fits has a mapping")


def _refuse_unfaithful(
    checkpoint: Checkpoint, specs: Sequence[ParameterSpec], mapping: dict[str, Any], traced: Traced
) -> None:
    """Raise PlanError where names alone would fill parameters with what transformers would change first."""
    if wrong := sorted(taken_as_they_are(checkpoint, specs, mapping) & traced.changed):
        raise PlanError(
            f"{checkpoint.where}: names and shapes of the tensors fit the class, but transformers does"
            f" more with {len(wrong):,} of them than to take them as they are",
            hint="write the mapping that says what it does (docs/metadata_format.md), or save the model again with"
            " save_pretrained of this class, and draft for those files",
            faults=first_few(traced.untraceable or [f"{plain(name)} is changed" for name in wrong]),
        )


def _fits_as_it_is(checkpoint: Checkpoint) -> bool:
    return not unmatched(checkpoint, _built(checkpoint)[1], checkpoint.metadata.loading_strategy.state_dict_mapping)


def _whole(checkpoint: Checkpoint, model: nn.Module) -> PreTrainedModel | None:
    """The larger model that the files are of, where the class is of its text model alone.

    Raises:
        PlanError: If it cannot be built: what the files become is not known then.
    """
    architecture = checkpoint.metadata.base_architecture
    if not isinstance(model, PreTrainedModel) or architecture not in CONFIG_MAPPING:
        return None
    if isinstance(model.config, CONFIG_MAPPING[architecture]):
        return None
    larger = next((name for name in _LARGER if _is_of(architecture, name)), _LARGER[-1])
    strategy = checkpoint.metadata.loading_strategy.model_copy(update={"transformers_class": larger})
    metadata = checkpoint.metadata.model_copy(update={"loading_strategy": strategy})
    try:
        whole = _built(replace(checkpoint, metadata=metadata))[0]
    except WmtpError as error:
        raise PlanError(
            f"{checkpoint.where}: {type(model).__name__} is a part of a model of {plain(architecture)}, and what"
            " transformers makes of its files is not known, as the larger model could not be built",
            hint=f"load the larger model, or mend what keeps it from being built: {error.problem}",
            faults=error.faults,
        ) from error
    assert isinstance(whole, PreTrainedModel)
    return whole


def _is_of(architecture: str, auto: str) -> bool:
    return CONFIG_MAPPING[architecture] in getattr(transformers, auto)._model_mapping


def _mapped(metadata: ModelMetadata, mapping: StateDictMapping) -> ModelMetadata:
    strategy = metadata.loading_strategy.model_copy(update={"state_dict_mapping": mapping})
    return metadata.model_copy(update={"loading_strategy": strategy})


def _notes(draft: MappingDraft) -> list[str]:
    if not draft.loads:
        said = "by which every tensor has its parameter; but the checkpoint does not load"
        return [f"state_dict_mapping: {_shown(draft)}, {said}: {' '.join(draft.notes)}"]
    return [
        f"state_dict_mapping: {_shown(draft)}, or the tensors would not fit the class",
        *(f"state_dict_mapping.allow_unexpected: {note}" for note in draft.notes),
    ]


def _shown(draft: MappingDraft) -> str:
    text = json.dumps(draft.fields)
    if len(text) <= _MAX_SHOWN_BYTES:
        return text
    counts = [f"{len(value)} in {field}" for field, value in draft.fields.items() if not isinstance(value, str)]
    return f"rules ({', '.join(counts)})"


def _in_one_line(error: PlanError) -> str:
    faults = f" ({error.faults[0]}{', and others' if error.faults[1:] else ''})" if error.faults else ""
    return f"{error.problem}{faults}; {error.hint}"
