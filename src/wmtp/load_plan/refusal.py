"""What a refused plan says: each fault with its file, and the key of config.json at fault; then the next step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.contradictions import (
    Contradiction,
    impossible_values,
    other_sizes,
    shape_contradictions,
    without_coincidences,
)
from wmtp.checkpoint.headers import weights_name
from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.leftovers import explained, told_apart
from wmtp.load_plan.mapping import MappedName, by_rules
from wmtp.load_plan.suggestion import Fields
from wmtp.untrusted import MAX_SHOWN, first_few, plain

_COMPARE = "check model class and config.json against the files; 'wmtp inspect --tensors' lists what they hold"


@dataclass(frozen=True, slots=True)
class Misfit:
    """A tensor whose shape or kind of dtype is not that of its parameter.

    Attributes:
        source: The tensor, or what is made of several.
        shape: What the parameter has.
        dtype: What the parameter has, in safetensors' notation.
    """

    source: TensorInfo | Made
    shape: tuple[int, ...]
    dtype: str

    @property
    def is_one(self) -> bool:
        """Whether they differ at all; one floating type may stand for another."""
        both_floating = self.source.dtype in FLOATING and self.dtype in FLOATING
        return self.source.shape != self.shape or (self.source.dtype != self.dtype and not both_floating)

    def __str__(self) -> str:
        source, name = self.source, plain(self.source.name)
        place = f"by the rule for {plain(source.rule)}" if isinstance(source, Made) else f"in {plain(source.file)}"
        if source.shape != self.shape:
            return f"wrong shape: {name} is {list(source.shape)} {place}, the model has {list(self.shape)}"
        return f"wrong dtype: {name} is {source.dtype} {place}, the model has {self.dtype}"

    def contradictions(self, config: dict[str, Any]) -> list[Contradiction]:
        """The sizes in config.json that are at fault, as far as one tensor tells."""
        return [] if isinstance(self.source, Made) else shape_contradictions(config, self.source, self.shape)


@dataclass(frozen=True)
class Faults:
    """Everything that keeps a plan from being total and exact.

    Attributes:
        missing: Parameters without a tensor.
        unexpected: Tensors without a parameter.
        unfit: Tensors that are not like their parameter.
        strange: What rules make for parameters that the model does not have, by the name that it was to have.
        renamed: What rules have made of the names of unexpected tensors.
    """

    missing: Sequence[str]
    unexpected: Sequence[TensorInfo]
    unfit: Sequence[Misfit]
    strange: Sequence[tuple[str, Made]] = ()
    renamed: Mapping[str, MappedName] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.unfit or self.strange)

    @property
    def summary(self) -> str:
        """How many there are of each kind."""
        kinds = (
            ("missing", self.missing),
            ("unexpected", [*self.strange, *self.unexpected]),
            ("unfit", self.unfit),
        )
        return ", ".join(f"{len(found)} {what}" for what, found in kinds if found)


def plan_refusal(checkpoint: Checkpoint, model_class: str, faults: Faults, suggested: Fields | None) -> PlanError:
    """Return the error that names all faults, and the mapping that would mend them where there is one."""
    compared = [misfit.contradictions(checkpoint.config) for misfit in faults.unfit[:MAX_SHOWN]]
    blamed = without_coincidences(compared, checkpoint.config, checkpoint.tensors)
    return PlanError(
        f"{checkpoint.where}: the tensors do not fit {model_class}: {faults.summary}",
        hint=_advice(checkpoint, faults, [each for found in blamed for each in found], suggested),
        faults=_lines(checkpoint, faults, blamed),
    )


def _lines(checkpoint: Checkpoint, faults: Faults, blamed: Sequence[Sequence[Contradiction]]) -> list[str]:
    missing, unexpected, unfit = faults.missing, faults.unexpected, list(map(str, faults.unfit))
    for position, found in enumerate(blamed):
        unfit[position] = "; ".join([unfit[position], *map(str, found)])
    looked_in = weights_name(checkpoint.store) if missing else ""
    return [
        *first_few([f"missing: no tensor for {plain(name)} in {looked_in}" for name in missing]),
        *first_few([_strange(name, made) for name, made in faults.strange]),
        *first_few([_unexpected(tensor, faults.renamed.get(tensor.name)) for tensor in unexpected]),
        *first_few(unfit),
    ]


def _unexpected(tensor: TensorInfo, renamed: MappedName | None) -> str:
    becomes = f", which becomes {plain(renamed.name)}{by_rules(renamed.rules)}" if renamed else ""
    return f"unexpected: no parameter for {plain(tensor.name)} in {plain(tensor.file)}{becomes}"


def _strange(name: str, made: Made) -> str:
    return f"unexpected: no parameter {plain(name)}, which the rule for {plain(made.rule)} makes of {plain(made.name)}"


def _advice(checkpoint: Checkpoint, faults: Faults, blamed: Sequence[Contradiction], suggested: Fields | None) -> str:
    if suggested is not None:
        line = f'"state_dict_mapping": {json.dumps(suggested)}'
        return f"if this class is meant, set in metadata.json, in loading_strategy: {line}"
    if faults.strange:
        return "mend the names in state_dict_mapping.tensors of metadata.json: each is that of a parameter of the class"
    kinds = told_apart((t.name for t in faults.unexpected), {t.name for t in checkpoint.tensors})
    if kinds:
        return explained(kinds)
    if blamed:
        return f"{'; '.join(dict.fromkeys(each.advice for each in blamed))}; or take the config.json of these weights"
    return _general_advice(checkpoint, faults)


def _general_advice(checkpoint: Checkpoint, faults: Faults) -> str:
    config, tensors = checkpoint.config, checkpoint.tensors
    if doubtful := impossible_values(config, tensors) or other_sizes(config, tensors):
        return f"in config.json {'; '.join(doubtful)}"
    if faults.missing or faults.unfit:
        return _COMPARE + _drafting(checkpoint, faults)
    return (
        f"{_COMPARE}. Of what is left over nothing is known: only if the model means the same without it, name it in"
        " state_dict_mapping.allow_unexpected"
    )


def _drafting(checkpoint: Checkpoint, faults: Faults) -> str:
    """Where to have a mapping drafted: transformers' own conversions are run there, and never while a model loads."""
    if not (faults.missing and faults.unexpected and checkpoint.metadata.loading_strategy.transformers_class):
        return ""
    return f"; 'wmtp upgrade {checkpoint.where}' looks for a mapping that does what transformers does with such tensors"
