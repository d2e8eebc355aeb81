"""Which stored tensors each declared rule takes, and the proof that every one of them is used exactly once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.conversion.nodes import Made, Node, Operated
from wmtp.load_plan.conversion.numbered import NumberedName, NumberedNames, Numbers
from wmtp.load_plan.conversion.shapes import Unfit, applied
from wmtp.load_plan.conversion.usage import Usage
from wmtp.metadata.operations import Operation, Part, places
from wmtp.untrusted import first_few, show

# Rules of a published model make about two and a half pieces of each tensor; those of one that is cut are more.
_PIECES_OF_A_TENSOR = 6
_FURTHER_PIECES = 200_000
_MAX_FAULTS = 1000  # only the first are shown
_NUMBER_IN_A_NAME = re.compile(r"(?<=\.)[0-9]+(?=[.'])")


def made_of(rules: Mapping[str, Operation], tensors: Mapping[str, TensorInfo], *, where: str) -> dict[str, Made]:
    """Return the parameters that declared rules make, by name.

    Args:
        rules: `state_dict_mapping.tensors`.
        tensors: The stored tensors, by the names that rules give them.
        where: The checkpoint, as errors show it.

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
        work.faults += islice(Usage.of(each.node for each in made.values()).faults(), _MAX_FAULTS)
    if work.faults:
        raise PlanError(
            f"{work.field} does not fit the tensors",
            hint="see the tensors' names and shapes with 'wmtp inspect --tensors', then mend the rules",
            faults=first_few(_grouped(work.faults)),
        )
    return made


def _grouped(faults: Iterable[str]) -> list[str]:
    """Return faults that differ in nothing but numbers in names, such as those of layers, as one with their count."""
    groups: dict[str, list[str]] = {}
    for fault in faults:
        groups.setdefault(_NUMBER_IN_A_NAME.sub("#", fault), []).append(fault)
    return [f"{alike[0]}{f', and {len(alike) - 1:,} more like it' if alike[1:] else ''}" for alike in groups.values()]


def _made(rules: Mapping[str, Operation], work: _Work) -> dict[str, Made]:
    made: dict[str, Made] = {}
    for target, operation in rules.items():
        for name, node in _Rule(target, operation, work).made():
            if name in made:
                work.fault(f"{show(name)} is made by {show(made[name].rule)} and by {show(target)}")
            made[name] = Made(target, node)
    return made


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
        allowed = _FURTHER_PIECES + _PIECES_OF_A_TENSOR * len(self.tensors)
        if self.num_pieces > allowed:
            raise PlanError(
                f"{self.field} makes more than {allowed:,} pieces of {len(self.tensors):,} tensors",
                hint="write rules that use each tensor once",
            )


class _Rule:
    """One rule, and the numbers for which it holds.

    Numbers come in the order in which their variables are bound: those of the target, then each `each` on the way
    down. A name below has all of them, as the schema makes sure.
    """

    def __init__(self, target: str, operation: Operation, work: _Work) -> None:
        self._target, self._operation, self._work = target, operation, work
        self._free = tuple(dict.fromkeys(places(target)))
        self._leaves: dict[tuple[str, tuple[str, ...]], dict[Numbers, TensorInfo]] = {}
        self._counts: dict[int, dict[Numbers, int]] = {}  # how far `each` of an operation runs, for outer numbers
        self._holds_for: set[Numbers] = set()
        self._read(operation, self._free, {})

    def _read(self, part: Part, bound: tuple[str, ...], eaches: dict[int, int]) -> None:
        """Find the numbers that occur, below operations with ids that bind the variable at a position."""
        if isinstance(part, str):
            self._read_leaf(part, bound, eaches)
            return
        each = part.variable
        if each is not None:
            eaches = {**eaches, id(part): len(bound)}
            bound = (*bound, each)
        for inner in part.parts:
            self._read(inner, bound, eaches)

    def _read_leaf(self, text: str, bound: tuple[str, ...], eaches: dict[int, int]) -> None:
        name = NumberedName(text)
        self._work.spend(self._work.names.count(name))
        found = self._leaves[text, bound] = self._work.names.find(name, bound)
        self._holds_for.update(numbers[: len(self._free)] for numbers in found)
        for operation, position in eaches.items():
            counts = self._counts.setdefault(operation, {})
            for numbers in found:
                outer = numbers[:position]
                counts[outer] = max(counts.get(outer, 0), numbers[position] + 1)

    def made(self) -> Iterator[tuple[str, Operated]]:
        """Yield every parameter that the rule makes, as far as nothing is wrong with it."""
        target = NumberedName(self._target)
        if not self._holds_for:
            some = show(next(iter(self._leaves))[0])
            self._work.fault(f"the rule for {show(self._target)} finds none of its tensors, such as {some}")
        for outer in sorted(self._holds_for):
            name = target.filled(dict(zip(self._free, outer, strict=True)))
            try:
                yield name, self._operated(self._operation, self._free, outer)
            except Unfit as error:
                self._work.fault(f"{show(name)}: {error}")

    def _node(self, part: Part, bound: tuple[str, ...], numbers: Numbers) -> Node:
        if not isinstance(part, str):
            return self._operated(part, bound, numbers)
        if (tensor := self._leaves[part, bound].get(numbers)) is None:
            name = NumberedName(part).filled(dict(zip(bound, numbers, strict=True)))
            raise Unfit(f"there is no tensor {show(name)}, by the name that the other rules give")
        return tensor

    def _operated(self, part: Operation, bound: tuple[str, ...], numbers: Numbers) -> Operated:
        each = part.variable
        if each is None:
            self._work.spend(len(part.parts))
            return applied(part, [self._node(inner, bound, numbers) for inner in part.parts])
        count = self._counts[id(part)].get(numbers, 0)
        if not count:
            raise Unfit(f"finds no tensor for each {show(each)}")
        if count > len(self._work.tensors):
            raise Unfit(f"{show(each)} would run from 0 to {show(count - 1)}: more numbers than there are tensors")
        self._work.spend(count)
        return applied(part, self._run_of(part.parts[0], (*bound, each), numbers, count))

    def _run_of(self, part: Part, bound: tuple[str, ...], numbers: Numbers, count: int) -> list[Node]:
        try:
            return [self._node(part, bound, (*numbers, number)) for number in range(count)]
        except Unfit as error:
            raise Unfit(f"{error} ({bound[-1]} runs from 0 to {count - 1:,})") from error
