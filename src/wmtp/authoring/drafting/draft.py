"""The mapping under which a checkpoint loads as transformers would load it: traced, then proven as loading does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from torch import nn
from transformers import PreTrainedModel

from wmtp.authoring.drafting.expressions import Expression, Stored, stored_in
from wmtp.authoring.drafting.part import trace_part
from wmtp.authoring.drafting.renames import draft_renaming
from wmtp.authoring.drafting.rules import rules_of
from wmtp.authoring.drafting.stored import representatives, stored_expressions
from wmtp.authoring.drafting.table import Trace, trace_conversion
from wmtp.authoring.drafting.unused import leave_unused
from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.quantisation import quantisation_of
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.matching import sources_of, unmatched
from wmtp.load_plan.plan import ParameterSpec
from wmtp.metadata.schema import StateDictMapping
from wmtp.untrusted import plain

Fields = dict[str, Any]


@dataclass(frozen=True)
class Traced:
    """What was traced of a checkpoint.

    Attributes:
        draft: None where there is no mapping under which it loads as transformers would load it.
        untraceable: What transformers does that no mapping can say.
        changed: Stored tensors that transformers takes for no parameter as they are.
        misshapen: A mapping under which every name fits and some shape does not, as where config.json has another size.
    """

    draft: MappingDraft | None = None
    untraceable: tuple[str, ...] = ()
    changed: frozenset[str] = frozenset()
    misshapen: MappingDraft | None = None


@dataclass(frozen=True)
class MappingDraft:
    """A mapping under which a checkpoint loads.

    Attributes:
        fields: Of `state_dict_mapping`.
        notes: What of the checkpoint it leaves unused; of one under which it does not load, why not.
        loads: False: all names fit, and some shape does not.
    """

    fields: Fields
    notes: tuple[str, ...] = ()
    loads: bool = True


def trace_mapping(
    checkpoint: Checkpoint, model: nn.Module, specs: Sequence[ParameterSpec], whole: PreTrainedModel | None = None
) -> Traced:
    """Draft the mapping that does what transformers would do.

    Args:
        checkpoint: Its headers and configuration.
        model: Its class, built without weights.
        specs: The parameters of the model.
        whole: The larger model whose files they are, where the class is of its text model alone.

    """
    if not isinstance(model, PreTrainedModel):
        return Traced()
    stored = stored_expressions(checkpoint.tensors, quantisation_of(checkpoint.config))
    few = representatives(stored)
    # A few layers tell of all, unless names or shapes follow no rule.
    attempts = [(stored, True), (stored, False)]
    trace, misshapen = Trace(), None
    for traced, generalise in [(few, True), *attempts] if len(few) < len(stored) else attempts:
        trace = trace_part(model, whole, traced) if whole is not None else trace_conversion(model, traced)
        fields = _fields(trace, traced, generalise=generalise)
        draft = _proven(checkpoint, model, specs, fields, trace) if fields is not None else None
        if draft is not None and draft.loads:
            return Traced(draft)
        misshapen = misshapen or draft
    untraceable = (*_lacking(model, specs, trace, whole), *trace.untraceable)
    return Traced(None, untraceable, frozenset(trace.changed), misshapen)


def _lacking(
    model: nn.Module, specs: Sequence[ParameterSpec], trace: Trace, whole: PreTrainedModel | None
) -> tuple[str, ...]:
    """What keeps a part of a larger model from being filled with what that one has, in a sentence."""
    lacking = [spec.names[0] for spec in specs if trace.made.keys().isdisjoint(spec.names)]
    if whole is None or not lacking:
        return ()
    names = f"{type(whole).__name__} has nothing in these files for {len(lacking):,} of the parameters of"
    return (f"{names} {type(model).__name__}, such as {plain(lacking[0])}",)


def _fields(trace: Trace, stored: Mapping[str, Expression], *, generalise: bool) -> Fields | None:
    renamed = {made.name: target for target, made in trace.made.items() if isinstance(made, Stored)}
    others = {name for expression in stored.values() for name in stored_in(expression)} - renamed.keys()
    renaming = draft_renaming(renamed, others)
    if renaming is None:
        return None
    made = {target: each for target, each in trace.made.items() if not isinstance(each, Stored)}
    rules = rules_of(made, renaming.rename, generalise=generalise)
    return {**renaming.fields, **({"tensors": rules} if rules else {})}


def _proven(
    checkpoint: Checkpoint, model: nn.Module, specs: Sequence[ParameterSpec], fields: Fields, trace: Trace
) -> MappingDraft | None:
    """Hold fields to the checkpoint as loading does, and let be unused what may be."""
    try:
        faults = unmatched(checkpoint, specs, StateDictMapping.model_validate(fields))
        if taken_as_they_are(checkpoint, specs, fields) & trace.changed:
            return None
        if not faults:
            return MappingDraft(fields)
        if faults.missing or faults.unfit:
            only_shapes = fields and not (faults.missing or faults.unexpected or faults.strange)
            return MappingDraft(fields, loads=False) if only_shapes else None
        # A rule for the layers of the class may hold for those of prediction heads too, behind the last.
        unexpected = [*faults.unexpected, *(tensor for _, made in faults.strange for tensor in made.tensors)]
        unused = leave_unused(checkpoint, model, unexpected, trace.elsewhere)
        fields = {**fields, "allow_unexpected": unused.globs}
        if unused.refused or unmatched(checkpoint, specs, StateDictMapping.model_validate(fields)):
            return None
        return MappingDraft(fields, tuple(unused.notes))
    except (PlanError, ValidationError):
        return None


def taken_as_they_are(checkpoint: Checkpoint, specs: Sequence[ParameterSpec], fields: Fields) -> set[str]:
    """Return the names of the stored tensors that a mapping takes for parameters without more than renaming them.

    Raises:
        PlanError: If it does not fit the tensors.
    """
    sources = sources_of(StateDictMapping.model_validate(fields), checkpoint.tensors, where=checkpoint.where)
    held = (sources[name][0] for spec in specs for name in spec.names if name in sources)
    return {source.name for source in held if isinstance(source, TensorInfo)}
