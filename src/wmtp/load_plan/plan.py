"""The load plan: which tensor fills which parameter, proven from headers before a weight is read.

A plan is *total* (every parameter and persistent buffer is filled exactly once) and *exact* (every tensor of the
checkpoint is used), or it is refused with all faults named at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.html_table import html_lines
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.unused import unused_lines
from wmtp.metadata.schema import ModelMetadata
from wmtp.untrusted import plain
from wmtp.wording import counted


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
    """What fills one parameter.

    Attributes:
        names: The parameter's names.
        source: The stored tensor, with its file and byte range, or what is made of several or of a part of one.
        dtype: What the parameter's dtype will be.
        rules: The mapping rules that led from the tensor's name to the parameter's.
        repeats: True for the second stored copy of a tied parameter: its bytes must equal the first one's.
    """

    names: tuple[str, ...]
    source: TensorInfo | Made
    dtype: str
    rules: tuple[str, ...] = ()
    repeats: bool = False

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The stored tensors that it takes values from."""
        return self.source.tensors if isinstance(self.source, Made) else (self.source,)


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
        return sum(a.source.num_elements for a in self.assignments if not a.repeats)

    @property
    def bytes_to_read(self) -> int:
        """Bytes of tensor data that loading uses."""
        return sum(assignment.source.num_bytes for assignment in self.assignments)

    def _repr_html_(self) -> str:
        return html_lines(f"To load: {plain(self.uri)}", self.summary())

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
                    **_source_dict(a.source),
                    "shape": list(a.source.shape),
                    "stored_dtype": a.source.dtype,
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
        files = Counter(file for file, _ in {(t.file, t.name) for a in self.assignments for t in a.tensors})
        casts = Counter((a.source.dtype, a.dtype) for a in self.assignments if a.source.dtype != a.dtype)
        lines = [
            f"{self.model_class}: {self.num_parameters:,} parameters, {self.bytes_to_read:,} bytes",
            *(f"{counted(count, 'tensor')} from {plain(name)}" for name, count in sorted(files.items())),
            *_made_lines(self.assignments),
            *(f"cast from {old} to {new}: {counted(count, 'tensor')}" for (old, new), count in casts.items()),
            *(
                f"{_listed(a.names[1:])} tied to {_listed(a.names[:1])}"
                for a in self.assignments
                if a.names[1:] and not a.repeats
            ),
            *(f"{plain(a.source.name)} repeats {_listed(a.names[:1])}" for a in self.assignments if a.repeats),
            *(f"no tensor, initial values kept: {plain(name)}" for name in self.kept_initial),
            *unused_lines(self.left_unused),
        ]
        return [*lines, *self.notes]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(plain(name) for name in names)


def _source_dict(source: TensorInfo | Made) -> dict[str, Any]:
    if isinstance(source, Made):
        stored = [{"tensor": t.name, "file": t.file, "bytes": [t.start, t.end]} for t in source.tensors]
        return {"made_by": source.rule, "of": stored}
    return {"tensor": source.name, "file": source.file, "bytes": [source.start, source.end]}


def _made_lines(assignments: Iterable[Assignment]) -> Iterator[str]:
    """How many parameters each declared rule makes, and of how many stored tensors."""
    by_rule: dict[str, list[Made]] = {}
    for assignment in assignments:
        if isinstance(assignment.source, Made):
            by_rule.setdefault(assignment.source.rule, []).append(assignment.source)
    for rule, made in by_rule.items():
        num_tensors = len({tensor for each in made for tensor in each.tensors})
        yield f"{plain(rule)}: {counted(len(made), 'parameter')} made of {counted(num_tensors, 'tensor')}"
