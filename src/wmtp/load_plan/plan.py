"""The load plan: which tensor fills which parameter, proven from headers before a weight is read.

A plan is *total* (every parameter and persistent buffer is filled exactly once) and *exact* (every tensor of the
checkpoint is used), or it is refused with all faults named at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.globs import split_by_globs
from wmtp.load_plan.mapping import map_names
from wmtp.load_plan.refusal import Faults, Misfit, plan_refusal
from wmtp.load_plan.suggestion import suggest_mapping
from wmtp.metadata.schema import ModelMetadata, StateDictMapping
from wmtp.untrusted import plain


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A parameter or persistent buffer of the model, before it has values.

    Attributes:
        names: Its name; further ones where the model ties parameters to each other.
        shape: Its dimensions.
        dtype: What the class made it, in safetensors' notation.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """One tensor that fills one parameter.

    Attributes:
        names: The parameter's names.
        tensor: The tensor, with its file and byte range.
        dtype: What the parameter's dtype will be.
        rules: The mapping rules that led from the tensor's name to the parameter's.
        repeats: True for the second stored copy of a tied parameter: its bytes must equal the first one's.
    """

    names: tuple[str, ...]
    tensor: TensorInfo
    dtype: str
    rules: tuple[str, ...] = ()
    repeats: bool = False


@dataclass(frozen=True)
class LoadPlan:
    """What loading a checkpoint will do.

    Attributes:
        uri: The checkpoint.
        metadata: Its declaration.
        model_class: Qualified name of the class that is built.
        assignments: Which tensor fills which parameter.
        kept_initial: Parameters without a tensor that `allow_missing` lets through.
        left_unused: Tensors without a parameter that `allow_unexpected` lets through.
        notes: Anything else a reader should know.
    """

    uri: str
    metadata: ModelMetadata
    model_class: str
    assignments: tuple[Assignment, ...]
    kept_initial: tuple[str, ...] = ()
    left_unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def num_parameters(self) -> int:
        """Values in the model, tied ones counted once."""
        return sum(a.tensor.num_elements for a in self.assignments if not a.repeats)

    @property
    def bytes_to_read(self) -> int:
        """Bytes of tensor data that loading uses."""
        return sum(assignment.tensor.num_bytes for assignment in self.assignments)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {
            "uri": self.uri,
            "model_class": self.model_class,
            "num_parameters": self.num_parameters,
            "bytes_to_read": self.bytes_to_read,
            "assignments": [
                {
                    "names": list(a.names),
                    "tensor": a.tensor.name,
                    "file": a.tensor.file,
                    "bytes": [a.tensor.start, a.tensor.end],
                    "shape": list(a.tensor.shape),
                    "stored_dtype": a.tensor.dtype,
                    "loaded_dtype": a.dtype,
                    "rules": list(a.rules),
                    "repeats": a.repeats,
                }
                for a in self.assignments
            ],
            "kept_initial": list(self.kept_initial),
            "left_unused": list(self.left_unused),
            "notes": list(self.notes),
        }

    def summary(self) -> list[str]:
        """Return the plan in a few lines for a person."""
        files = Counter(a.tensor.file for a in self.assignments)
        casts = Counter((a.tensor.dtype, a.dtype) for a in self.assignments if a.tensor.dtype != a.dtype)
        lines = [
            f"{self.model_class}: {self.num_parameters:,} parameters, {self.bytes_to_read:,} bytes",
            *(f"{count} tensors from {plain(name)}" for name, count in sorted(files.items())),
            *(f"cast from {old} to {new}: {count} tensors" for (old, new), count in casts.items()),
            *(
                f"{_listed(a.names[1:])} tied to {_listed(a.names[:1])}"
                for a in self.assignments
                if a.names[1:] and not a.repeats
            ),
            *(f"{plain(a.tensor.name)} repeats {_listed(a.names[:1])}" for a in self.assignments if a.repeats),
            *(f"no tensor, initial values kept: {plain(name)}" for name in self.kept_initial),
            *(f"tensor left unused: {plain(name)}" for name in self.left_unused),
        ]
        return [*lines, *self.notes]


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
    mapped = map_names(mapping, [tensor.name for tensor in checkpoint.tensors], where=checkpoint.where)
    owners = {name: spec for spec in specs for name in spec.names}
    matched = {mapped[t.name].name: t for t in checkpoint.tensors if mapped[t.name].name in owners}
    assignments, missing = [], []
    for spec in specs:
        stored = [name for name in spec.names if name in matched]
        if not stored:
            missing.append(spec.names)
        for name in stored:
            tensor, first = matched[name], matched[stored[0]]
            names = (stored[0], *(other for other in spec.names if other != stored[0]))
            dtype = first.dtype if keep_stored_dtype and first.dtype in FLOATING else spec.dtype
            assignments.append(Assignment(names, tensor, dtype, mapped[tensor.name].rules, repeats=name != stored[0]))
    unexpected = {tensor.name: tensor for tensor in checkpoint.tensors if mapped[tensor.name].name not in owners}
    field = f"{checkpoint.where}/metadata.json: loading_strategy.state_dict_mapping"
    kept, absent = split_by_globs(missing, mapping.allow_missing, field=f"{field}.allow_missing")
    spare = [(name,) for name in unexpected]
    left, unused = split_by_globs(spare, mapping.allow_unexpected, field=f"{field}.allow_unexpected")
    compared = (Misfit(a.tensor, owners[a.names[0]].shape, owners[a.names[0]].dtype) for a in assignments)
    faults = Faults(absent, [unexpected[name] for name in unused], [misfit for misfit in compared if misfit.is_one])
    return _Match(tuple(assignments), tuple(kept), tuple(left), faults)


def _suggested(checkpoint: Checkpoint, specs: Sequence[ParameterSpec], found: _Match) -> dict[str, Any] | None:
    if not (found.faults.missing or found.faults.unexpected):
        return None  # names are not at fault
    held = {tensor.name for tensor in checkpoint.tensors}
    wanted = [next((name for name in spec.names if name in held), spec.names[0]) for spec in specs]

    def works(fields: dict[str, Any]) -> bool:
        try:
            mapping = StateDictMapping.model_validate(fields)
            return not _match(checkpoint, specs, mapping, keep_stored_dtype=True).faults
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


def _listed(names: Iterable[str]) -> str:
    return ", ".join(plain(name) for name in names)
