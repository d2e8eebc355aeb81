"""Expressions as rules of `state_dict_mapping.tensors`, generalised over the numbers in names."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from wmtp.authoring.drafting.cuts import Pieces
from wmtp.authoring.drafting.expressions import Cut, Expression, Joined, Scaled, Stored, Turned

_NUMBER = re.compile(r"([0-9]+)")
_VARIABLES = "ijklmn"
_EACHES = "efghopqrst"  # more than operations may be deep

Rule = dict[str, Any]
Names = list[str]


def rules_of(made: Mapping[str, Expression], rename: Callable[[str], str], *, generalise: bool) -> dict[str, Rule]:
    """Return the rules that make parameters.

    Args:
        made: Parameters that are more than one stored tensor as it is.
        rename: What the other rules of the mapping make of a stored tensor's name.
        generalise: Write one rule for all that differ in numbers only.
    """
    pieces = Pieces(made.values())
    concrete = {target: _rule(expression, rename, pieces) for target, expression in made.items()}
    return _generalised(concrete) if generalise else concrete


def _rule(expression: Expression, rename: Callable[[str], str], pieces: Pieces) -> Any:
    def of(inner: Expression) -> Any:
        return _rule(inner, rename, pieces)

    match expression:
        case Stored():
            return rename(expression.name)
        case Scaled():
            block = {"block": list(expression.block)} if expression.block else {}
            both = {"of": of(expression.values), "scales": of(expression.scales)}
            return {"dequantise": expression.kind, **block, **both}
        case Joined():
            name = "stack" if expression.is_new else "concatenate"
            return {name: expression.dim, **_each([of(part) for part in expression.parts])}
        case Cut():
            sizes, take = pieces.of(expression)
            return {"split": expression.dim, "sizes": sizes, "take": take, "of": of(expression.of)}
        case Turned():
            return {**_rearrangement(expression), "of": of(expression.of)}


def _rearrangement(turned: Turned) -> Rule:
    axes = [chr(ord("a") + axis) for axis in range(len(turned.sizes))]
    groups: list[list[str]] = []
    sizes: dict[str, int] = {}
    start = 0
    for count in turned.before:
        group = range(start, start + count)
        groups.append([axes[axis] for axis in group])
        largest = max(group, key=lambda axis: turned.sizes[axis])  # which the dimension itself tells
        sizes |= {axes[axis]: turned.sizes[axis] for axis in group if axis != largest}
        start += count
    after = [[axes[axis] for axis in group] for group in turned.after]
    text = f"{_side(groups)} -> {_side(after)}"
    return {"rearrange": text, "sizes": sizes} if sizes else {"rearrange": text}


def _side(groups: Iterable[list[str]]) -> str:
    return " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)


def names_in(rule: Any) -> Iterator[str]:
    """Yield the tensor names of a rule, in order."""
    if isinstance(rule, str):
        yield rule
    elif isinstance(rule, list):
        for part in rule:
            yield from names_in(part)
    else:
        for key in ("of", "scales"):
            if key in rule:
                yield from names_in(rule[key])


def _with_names(rule: Any, names: Iterator[str]) -> Any:
    """The same rule with other names, in order."""
    if isinstance(rule, str):
        return next(names)
    if isinstance(rule, list):
        return [_with_names(part, names) for part in rule]
    replaced = {key: _with_names(rule[key], names) for key in ("of", "scales") if key in rule}
    return rule | replaced


def _form(rule: Any) -> str:
    """A rule with every number in names alike."""
    return json.dumps(_with_names(rule, (_NUMBER.sub("#", name) for name in names_in(rule))))


def _each(parts: list[Any]) -> Rule:
    """One part with a number that runs, where the parts are alike but for one that counts them from 0."""
    if len(parts) < 2 or len({_form(part) for part in parts}) > 1:
        return {"of": parts}
    variable = next(each for each in _EACHES if f"{{{each}}}" not in next(names_in(parts)))
    columns = list(zip(*(names_in(part) for part in parts), strict=True))
    general = [_counted(column, variable) for column in columns]
    if any(name is None for name in general):
        return {"of": parts}
    return {"each": variable, "of": _with_names(parts[0], (name for name in general if name is not None))}


def _counted(names: Sequence[str], variable: str) -> str | None:
    rows = [_NUMBER.split(name) for name in names]
    counting, general = [str(position) for position in range(len(names))], list(rows[0])
    is_counted = False
    for slot in range(1, len(general), 2):
        column = [row[slot] for row in rows]
        if column == counting:
            general[slot], is_counted = f"{{{variable}}}", True
        elif len(set(column)) > 1:
            return None
    return "".join(general) if is_counted else None


def _generalised(concrete: Mapping[str, Rule]) -> dict[str, Rule]:
    alike: dict[tuple[str, str], dict[str, Rule]] = defaultdict(dict)
    for target, rule in concrete.items():
        alike[_NUMBER.sub("#", target), _form(rule)][target] = rule
    # One that holds for all numbers would take the tensors of another for the same parameters.
    groups: dict[str, int] = defaultdict(int)
    for form, _ in alike:
        groups[form] += 1
    rules: dict[str, Rule] = {}
    for (form, _), same in alike.items():
        rules |= (_general(same) if groups[form] == 1 else None) or same
    return rules


def _general(same: Mapping[str, Rule]) -> dict[str, Rule] | None:
    """One rule for parameters that differ in numbers only, or None where their tensors' numbers are not theirs."""
    if len(same) < 2:
        return None
    targets = [_NUMBER.split(target) for target in same]
    variables: dict[tuple[str, ...], str] = {}
    for slot in range(1, len(targets[0]), 2):
        column = tuple(target[slot] for target in targets)
        if len(set(column)) > 1 and column not in variables:
            if len(variables) == len(_VARIABLES):
                return None
            variables[column] = _VARIABLES[len(variables)]
    columns = [list(same), *zip(*(names_in(rule) for rule in same.values()), strict=True)]
    general = [_with_variables(column, variables) for column in columns]
    if any(name is None for name in general):
        return None
    target, *names = [name for name in general if name is not None]
    return {target: _with_names(next(iter(same.values())), iter(names))}


def _with_variables(names: Sequence[str], variables: Mapping[tuple[str, ...], str]) -> str | None:
    rows = [_NUMBER.split(name) for name in names]
    general, used = list(rows[0]), set()
    for slot in range(1, len(general), 2):
        column = tuple(row[slot] for row in rows)
        if column in variables:
            used.add(column)
            general[slot] = f"{{{variables[column]}}}"
        elif len(set(column)) > 1:
            return None
    return "".join(general) if used == set(variables) else None
