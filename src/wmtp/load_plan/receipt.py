"""What was really loaded, per parameter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from wmtp.checkpoint.tensors import FLOATING
from wmtp.html_table import html_lines
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.plan import Assignment, LoadPlan
from wmtp.load_plan.unused import unused_lines
from wmtp.untrusted import first_few, plain
from wmtp.wording import counted


@dataclass(frozen=True, slots=True)
class LoadedParameter:
    """Where the values of one parameter or buffer came from.

    Attributes:
        name: The parameter or persistent buffer.
        tensor: The tensor's name in the file; of the first, where it was made of several.
        file: That file, relative to the checkpoint.
        stored_dtype: Its dtype there, in safetensors' notation.
        loaded_dtype: Its dtype in the model.
        rules: The mapping rules that led from tensor name to parameter name.
        tied: Other names of the same parameter, which it fills as well.
        made_of: The stored tensors that it was made of, by the rule in `rules`; empty where it is one, as stored.
    """

    name: str
    tensor: str
    file: str
    stored_dtype: str
    loaded_dtype: str
    rules: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    made_of: tuple[str, ...] = ()

    @classmethod
    def of_assignment(cls, assignment: Assignment) -> Self:
        """Return what an assignment that was carried out did."""
        first, source = assignment.tensors[0], assignment.source
        return cls(
            name=assignment.names[0],
            tensor=first.name,
            file=first.file,
            stored_dtype=first.dtype,
            loaded_dtype=assignment.dtype,
            rules=assignment.rules,
            tied=assignment.names[1:],
            made_of=tuple(tensor.name for tensor in source.tensors) if isinstance(source, Made) else (),
        )


@dataclass(frozen=True, slots=True)
class RankShare:
    """What one process has read, and keeps, of a model that several keep in shards.

    Attributes:
        rank: Its number, from 0.
        read_bytes: Bytes of stored tensors that it has read.
        kept_bytes: Of its rows of all parameters, in the dtype in which they were loaded.
        replicated_bytes: Of buffers, which every process has whole.
    """

    rank: int
    read_bytes: int
    kept_bytes: int
    replicated_bytes: int


@dataclass(frozen=True)
class LoadReceipt:
    """What one load did; a copy stands in every checkpoint that training writes.

    Attributes:
        uri: The checkpoint.
        model_class: Qualified name of the class that was built.
        parameters: One entry for each parameter and persistent buffer that a tensor filled.
        kept_initial: Parameters without a tensor, let through by `allow_missing`; they have their initial values.
        left_unused: Tensors without a parameter, let through by `allow_unexpected`.
        num_bytes: Bytes of tensor data in use.
        device: Where the parameters are.
        code: `file: sha256:<hex>` for each file of the checkpoint whose code ran; empty for built-in classes.
        verified: `file: sha256:<hex>` for each file that was found to be what a lock pins; empty without a lock.
        notes: Anything else a reader should know, such as a class that could not be built without its parameters.
        shares: What each process has read of a model in shards; empty where it is whole in every process.
    """

    uri: str
    model_class: str
    parameters: tuple[LoadedParameter, ...]
    kept_initial: tuple[str, ...]
    left_unused: tuple[str, ...]
    num_bytes: int
    device: str
    code: dict[str, str]
    verified: dict[str, str]
    notes: tuple[str, ...] = ()
    shares: tuple[RankShare, ...] = ()

    @classmethod
    def of_plan(cls, plan: LoadPlan, *, device: str, code: Mapping[str, str], verified: Mapping[str, str]) -> Self:
        """Return the receipt of a plan that was carried out."""
        filled = [assignment for assignment in plan.assignments if not assignment.repeats]
        return cls(
            uri=plan.uri,
            model_class=plan.model_class,
            parameters=tuple(map(LoadedParameter.of_assignment, filled)),
            kept_initial=plan.kept_initial,
            left_unused=plan.left_unused,
            num_bytes=sum(a.source.num_bytes for a in filled),
            device=device,
            code=dict(code),
            verified=dict(verified),
            notes=plan.notes,
        )

    def _repr_html_(self) -> str:
        return html_lines(f"Loaded: {plain(self.uri)}", self.summary())

    def to_dict(self) -> dict[str, Any]:
        """Return the receipt as plain JSON values; shares where there are any."""
        return {name: value for name, value in asdict(self).items() if value or name != "shares"}

    def to_json(self) -> str:
        """Return the receipt as the text of a receipt.json."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def summary(self) -> list[str]:
        """Return the receipt in a few lines for a person."""
        stored = Counter(parameter.stored_dtype for parameter in self.parameters)
        lines = [f"{self.model_class} on {self.device}: {len(self.parameters)} tensors, {self.num_bytes:,} bytes"]
        if stored:
            lines.append(f"stored as {', '.join(f'{dtype} ({count})' for dtype, count in stored.most_common())}")
        lines += [*_made_lines(self.parameters), *_cast_lines(self.parameters)]
        lines += [
            f"{', '.join(plain(name) for name in p.tied)} tied to {plain(p.name)}" for p in self.parameters if p.tied
        ]
        lines += [f"no tensor, initial values kept: {plain(name)}" for name in self.kept_initial]
        lines += unused_lines(self.left_unused)
        lines += [f"ran {plain(file)} ({digest})" for file, digest in self.code.items()]
        files = sorted({parameter.file for parameter in self.parameters})
        unverified = first_few([plain(file) for file in files if file not in self.verified])
        lines += [f"verified by the lock: {len(self.verified)} files"] if self.verified else []
        lines += [f"unverified, as no lock pins them: {', '.join(unverified)}"] if unverified else []
        lines += [f"process {each.rank} has read {each.read_bytes:,} bytes" for each in self.shares]
        return [*lines, *self.notes]


def _made_lines(parameters: Sequence[LoadedParameter]) -> Iterator[str]:
    by_rule: dict[str, list[LoadedParameter]] = {}
    for parameter in parameters:
        if parameter.made_of:
            by_rule.setdefault(", ".join(parameter.rules), []).append(parameter)
    for rule, made in by_rule.items():
        num_tensors = len({name for parameter in made for name in parameter.made_of})
        yield f"{rule}: {counted(len(made), 'parameter')} made of {counted(num_tensors, 'tensor')}"


def _cast_lines(parameters: Sequence[LoadedParameter]) -> Iterator[str]:
    changed = [p for p in parameters if p.stored_dtype != p.loaded_dtype]
    counts = Counter((p.stored_dtype, p.loaded_dtype, bool(p.made_of)) for p in changed)
    for (old, new, is_made), count in counts.items():
        what = "dequantised" if is_made and old not in FLOATING else "cast"
        yield f"{what} from {old} to {new}: {counted(count, 'tensor')}"
