"""All rules of `state_dict_mapping.tensors` together: what is wrong with them that no single field shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

from wmtp.faults import Fault, FieldFaults
from wmtp.metadata.operations import Operation, Part, name_fault, operations_in, places
from wmtp.untrusted import show

_MAX_DEPTH = 8
_MAX_OPERATIONS = 4096  # of all rules together


def _hold(rules: dict[str, Operation]) -> dict[str, Operation]:
    """Check what needs more than one field of one rule."""
    num_operations = sum(1 for rule in rules.values() for _ in operations_in(rule))
    if num_operations > _MAX_OPERATIONS:
        raise FieldFaults(Fault((), f"has {num_operations:,} operations, at most {_MAX_OPERATIONS:,} are allowed"))
    faults = [Fault((target,), problem) for target, rule in rules.items() for problem in _rule_faults(target, rule)]
    if faults:
        raise FieldFaults(*faults)
    return rules


TensorRules = Annotated[dict[str, Operation], AfterValidator(_hold)]


def _rule_faults(target: str, rule: Operation) -> Iterator[str]:
    if fault := name_fault(target):
        yield f"has a name that {fault}"
        return
    yield from _part_faults(rule, frozenset(places(target)), depth=1)


def _part_faults(part: Part, bound: frozenset[str], depth: int) -> Iterator[str]:
    if isinstance(part, str):
        yield from _leaf_faults(part, bound)
        return
    if depth > _MAX_DEPTH:
        yield f"has operations within each other more than {_MAX_DEPTH} deep"
        return
    each = part.variable
    if each in bound:
        yield f"has each {show(each)}, which stands for a number already"
    inner = bound | {each} if each is not None else bound
    for inside in part.parts:
        yield from _part_faults(inside, inner, depth + 1)


def _leaf_faults(name: str, bound: frozenset[str]) -> Iterator[str]:
    if fault := name_fault(name):
        yield f"has a tensor name that {fault}"
    elif unknown := [place for place in places(name) if place not in bound]:
        yield f"has {show(name)}, where {{{unknown[0]}}} stands neither in the parameter's name nor as each"
    elif absent := sorted(bound.difference(places(name))):
        yield f"has {show(name)} without {{{absent[0]}}}: one tensor would be used for every number"
