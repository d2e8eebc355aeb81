"""Matching the tensors of a checkpoint with the parameters of its model: the proof that a plan is total and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.conversion.resolve import made_of
from wmtp.load_plan.globs import split_by_globs
from wmtp.load_plan.mapping import MappedName, map_names
from wmtp.load_plan.plan import Assignment, LoadPlan, ParameterSpec
from wmtp.load_plan.refusal import Faults, Misfit, plan_refusal
from wmtp.load_plan.suggestion import suggest_mapping
from wmtp.metadata.schema import StateDictMapping
from wmtp.untrusted import first_few, show


def make_plan(
    checkpoint: Checkpoint,
    specs: Sequence[ParameterSpec],
    *,
    model_class: str,
    keep_stored_dtype: bool,
    notes: Sequence[str] = (),
) -> LoadPlan:
    """Match every tensor of a checkpoint with a parameter of its model.

    Args:
        checkpoint: Its metadata and headers.
        specs: Every parameter and persistent buffer of the model.
        model_class: Qualified name of the model's class.
        keep_stored_dtype: Give floating parameters the dtype in which they are stored, rather than the class's.
        notes: Passed on to the plan.

    Raises:
        PlanError: If the plan would not be total and exact, or a shape or kind of dtype differs; with all faults, and
            with the mapping that would mend it where one prefix does.
    """
    mapping = checkpoint.metadata.loading_strategy.state_dict_mapping
    found = _match(checkpoint, specs, mapping, keep_stored_dtype=keep_stored_dtype)
    if found.faults:
        raise plan_refusal(checkpoint, model_class, found.faults, _suggested(checkpoint, specs, found))
    return LoadPlan(
        checkpoint.where, checkpoint.metadata, model_class, found.assignments, found.kept, found.left, tuple(notes)
    )


def suggested_mapping(checkpoint: Checkpoint, specs: Sequence[ParameterSpec]) -> dict[str, Any] | None:
    """Return the mapping fields under which a checkpoint would load: none where its own do, None where none do.

    Raises:
        PlanError: If the declared mapping does not fit the tensors.
    """
    found = _match(checkpoint, specs, checkpoint.metadata.loading_strategy.state_dict_mapping, keep_stored_dtype=True)
    return _suggested(checkpoint, specs, found) if found.faults else {}


def unmatched(checkpoint: Checkpoint, specs: Sequence[ParameterSpec], mapping: StateDictMapping) -> Faults:
    """Return what would keep a checkpoint from loading under another mapping than its own.

    Raises:
        PlanError: If that mapping does not fit the tensors.
    """
    return _match(checkpoint, specs, mapping, keep_stored_dtype=True).faults


@dataclass(frozen=True)
class _Match:
    """Which tensors fill which parameters under a mapping, and what does not come out even."""

    assignments: tuple[Assignment, ...]
    kept: tuple[str, ...]
    left: tuple[str, ...]
    faults: Faults


def _match(
    checkpoint: Checkpoint, specs: Sequence[ParameterSpec], mapping: StateDictMapping, *, keep_stored_dtype: bool
) -> _Match:
    sources = sources_of(mapping, checkpoint.tensors, where=checkpoint.where)
    owners = {name: spec for spec in specs for name in spec.names}
    assignments, missing = [], []
    for spec in specs:
        stored = [name for name in spec.names if name in sources]
        if not stored:
            missing.append(spec.names)
        for name in stored:
            (source, rules), (first, _) = sources[name], sources[stored[0]]
            names = (stored[0], *(other for other in spec.names if other != stored[0]))
            dtype = first.dtype if keep_stored_dtype and first.dtype in FLOATING else spec.dtype
            assignments.append(Assignment(names, source, dtype, rules, repeats=name != stored[0]))
    field = f"{checkpoint.where}/metadata.json: loading_strategy.state_dict_mapping"
    kept, absent = split_by_globs(missing, mapping.allow_missing, field=f"{field}.allow_missing")
    spare = {name: source for name, (source, _) in sources.items() if name not in owners}
    filling = [a.source for a in assignments if isinstance(a.source, Made)]
    left, unexpected, strange = _left_over(spare, filling, mapping, field=f"{field}.allow_unexpected")
    compared = (Misfit(a.source, owners[a.names[0]].shape, owners[a.names[0]].dtype) for a in assignments)
    unfit = [misfit for misfit in compared if misfit.is_one]
    wanted = {tensor.name for tensor in unexpected}
    by_rules = {each.name: MappedName(name, rules) for name, (each, rules) in sources.items() if rules}
    renamed = {name: mapped for name, mapped in by_rules.items() if name in wanted}
    faults = Faults(absent, unexpected, unfit, strange, renamed)
    return _Match(tuple(assignments), tuple(kept), tuple(left), faults)


def _left_over(
    spare: Mapping[str, TensorInfo | Made], filling: Sequence[Made], mapping: StateDictMapping, *, field: str
) -> tuple[list[str], list[TensorInfo], list[tuple[str, Made]]]:
    """Of what is for no parameter, return the tensors that may be left, the others, and what rules make of others."""
    whole = {source.name: source for source in spare.values() if isinstance(source, TensorInfo)}
    made = {name: source for name, source in spare.items() if isinstance(source, Made)}
    # A rule for the layers of a class would also make those behind the last, which files hold and the class has not.
    rules, used = {each.rule for each in filling}, {tensor.name for each in filling for tensor in each.tensors}
    parts = {tensor.name for each in made.values() if each.rule in rules for tensor in each.tensors} - used
    left, refused = split_by_globs(
        [(name,) for name in (*whole, *sorted(parts))], mapping.allow_unexpected, field=field
    )
    may_be_left = parts.intersection(left)
    strange = [(name, each) for name, each in made.items() if not may_be_left.issuperset(t.name for t in each.tensors)]
    return left, [whole[name] for name in refused if name in whole], strange


def sources_of(
    mapping: StateDictMapping, tensors: Sequence[TensorInfo], *, where: str
) -> dict[str, tuple[TensorInfo | Made, tuple[str, ...]]]:
    """Return what stored tensors are for a model, by the names that a mapping gives, with the rules that gave them.

    Args:
        mapping: How they are named and made.
        tensors: What the files hold.
        where: The checkpoint, as errors show it.

    Raises:
        PlanError: If the mapping does not fit the tensors.
    """
    mapped = map_names(mapping, [tensor.name for tensor in tensors], where=where)
    added = mapping.add_prefix or ""  # put before names last, after parameters were made
    named = {mapped[tensor.name].name.removeprefix(added): tensor for tensor in tensors}
    made = made_of(mapping.tensors, named, where=where)
    used = {tensor.name for each in made.values() for tensor in each.tensors}
    whole = {
        added + name: (tensor, mapped[tensor.name].rules) for name, tensor in named.items() if tensor.name not in used
    }
    if twice := sorted(whole.keys() & made.keys()):
        raise PlanError(
            f"{where}/metadata.json: loading_strategy.state_dict_mapping.tensors makes what is stored whole",
            hint="remove the rule for it, or let it use that tensor",
            faults=first_few([f"{show(name)} is {show(whole[name][0].name)}, as it is stored" for name in twice]),
        )
    return whole | {name: (each, (f"tensors {show(each.rule)}",)) for name, each in made.items()}


def _suggested(checkpoint: Checkpoint, specs: Sequence[ParameterSpec], found: _Match) -> dict[str, Any] | None:
    if found.faults.strange or not (found.faults.missing or found.faults.unexpected):
        return None  # names are not at fault
    held = {tensor.name for tensor in checkpoint.tensors}
    wanted = [next((name for name in spec.names if name in held), spec.names[0]) for spec in specs]

    def works(fields: dict[str, Any]) -> bool:
        try:
            mapping = StateDictMapping.model_validate(fields)
            return not unmatched(checkpoint, specs, mapping)
        except (PlanError, ValidationError):
            return False

    return suggest_mapping(
        wanted,
        checkpoint.tensors,
        works=works,
        declared=checkpoint.metadata.loading_strategy.state_dict_mapping,
        optional=set(found.kept),
        unneeded=set(found.left),
    )
