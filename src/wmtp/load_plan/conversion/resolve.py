"""Which stored tensors each declared rule takes, and the proof that every one of them is used exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.conversion.nodes import Made, Node, Operated
from wmtp.load_plan.conversion.numbered import NumberedName, NumberedNames
from wmtp.load_plan.conversion.shapes import Unfit, applied
from wmtp.load_plan.conversion.usage import Usage
from wmtp.metadata.operations import Operation, Part, places
from wmtp.untrusted import first_few, show

MAX_PIECES = 2_000_000  # fifteen times those of the largest models that are published
_MAX_FAULTS = 1000  # only the first are shown

Numbers = tuple[int, ...]


def made_of(
    rules: Mapping[str, Operation], tensors: Mapping[str, TensorInfo], *, where: str, prefix: str = ""
) -> dict[str, Made]:
    """Return the parameters that declared rules make, by name.

    Args:
        rules: `state_dict_mapping.tensors`.
        tensors: The stored tensors, by their names after `remove_prefix` and `key_transforms`.
        where: The checkpoint, as errors show it.
        prefix: `add_prefix`, which the tensors get that no rule takes.

    Raises:
        PlanError: If a rule fits no tensor or lacks one, shapes or dtypes do not go together, two parameters get one
            name, or a tensor or a part of one is used twice or left out; all faults at once. Also for so many pieces
            that no honest checkpoint has them.
    """
    if not rules:
        return {}
    work = _Work(tensors, NumberedNames(tensors), where)
    made = _made(rules, work)
    if not work.faults:  # what a rule failed to take is not left out by it
        _check_usage(made, work, prefix)
    if work.faults:
        raise PlanError(
            f"{work.field} does not fit the tensors",
            hint="see the tensors' names and shapes with 'wmtp inspect --tensors', then mend the rules",
            faults=first_few(work.faults),
        )
    return made


def _made(rules: Mapping[str, Operation], work: _Work) -> dict[str, Made]:
    made: dict[str, Made] = {}
    for target, operation in rules.items():
        for name, node in _Rule(target, operation, work).made():
            if name in made:
                work.fault(f"{show(name)} is made by {show(made[name].rule)} and by {show(target)}")
            made[name] = Made(target, node)
    return made


def _check_usage(made: Mapping[str, Made], work: _Work, prefix: str) -> None:
    usage = Usage.of({name: each.node for name, each in made.items()})
    for fault in usage.faults():
        work.fault(fault)
    for name in made:
        other = work.tensors.get(name.removeprefix(prefix)) if name.startswith(prefix) else None
        if other is not None and other.name not in usage.tensors:
            work.fault(f"{show(name)} is made by a rule, and there is a tensor of that name")


@dataclass
class _Work:
    """What all rules share: the tensors, and what was found wrong so far."""

    tensors: Mapping[str, TensorInfo]
    names: NumberedNames
    where: str
    faults: list[str] = field(default_factory=list)
    num_pieces: int = 0

    @property
    def field(self) -> str:
        return f"{self.where}/metadata.json: loading_strategy.state_dict_mapping.tensors"

    def fault(self, text: str) -> None:
        if len(self.faults) < _MAX_FAULTS:
            self.faults.append(text)

    def spend(self, num_pieces: int) -> None:
        self.num_pieces += num_pieces
        if self.num_pieces > MAX_PIECES:
            raise PlanError(
                f"{self.field} makes more than {MAX_PIECES:,} pieces of {len(self.tensors):,} tensors",
                hint="write rules that use each tensor once",
            )


class _Rule:
    """One rule, and the numbers for which it holds."""

    def __init__(self, target: str, operation: Operation, work: _Work) -> None:
        self._target, self._operation, self._work = target, operation, work
        self._leaves: dict[str, NumberedName] = {}
        self._counts: dict[tuple[int, Numbers], int] = {}  # how far `each` of an operation runs, for outer numbers
        self._free = list(dict.fromkeys(places(target)))
        self._holds_for: set[Numbers] = set()
        self._read(operation, [])

    def _read(self, part: Part, eaches: list[tuple[int, str]]) -> None:
        """Find the numbers that occur, below operations with the given ids and variables."""
        if not isinstance(part, str):
            each = getattr(part, "each", None)
            for inner in part.parts:
                self._read(inner, eaches if each is None else [*eaches, (id(part), each)])
            return
        leaf = self._leaves[part] = NumberedName(part)
        self._work.spend(self._work.names.count(leaf))
        for numbers in self._work.names.find(leaf):
            outer = tuple(numbers[place] for place in self._free)
            self._holds_for.add(outer)
            for operation, each in eaches:
                key, outer = (operation, outer), (*outer, numbers[each])
                self._counts[key] = max(self._counts.get(key, 0), numbers[each] + 1)

    def made(self) -> Iterator[tuple[str, Operated]]:
        """Yield every parameter that the rule makes, as far as nothing is wrong with it."""
        target = NumberedName(self._target)
        if not self._holds_for:
            self._work.fault(
                f"{show(self._target)} finds none of its tensors, such as {show(next(iter(self._leaves)))}"
            )
        for outer in sorted(self._holds_for):
            numbers = dict(zip(self._free, outer, strict=True))
            name = target.filled(numbers)
            try:
                yield name, self._operated(self._operation, numbers)
            except Unfit as error:
                self._work.fault(f"{show(name)}: {error}")

    def _node(self, part: Part, numbers: dict[str, int]) -> Node:
        self._work.spend(1)
        if isinstance(part, str):
            name = self._leaves[part].filled(numbers)
            if name not in self._work.tensors:
                raise Unfit(f"there is no tensor {show(name)}")
            return self._work.tensors[name]
        return self._operated(part, numbers)

    def _operated(self, part: Operation, numbers: dict[str, int]) -> Operated:
        each = getattr(part, "each", None)
        if each is None:
            return applied(part, [self._node(inner, numbers) for inner in part.parts])
        count = self._counts.get((id(part), tuple(numbers.values())), 0)
        if count > len(self._work.tensors):
            raise Unfit(f"{show(each)} runs to {count - 1:,}, and there are {len(self._work.tensors):,} tensors")
        if not count:
            raise Unfit(f"finds no tensor for each {show(each)}")
        return applied(part, [self._node(part.parts[0], {**numbers, each: number}) for number in range(count)])
