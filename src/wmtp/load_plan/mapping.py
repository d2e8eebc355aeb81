"""How tensor names in the files become parameter names of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from wmtp.errors import PlanError
from wmtp.load_plan.work import Work
from wmtp.metadata.schema import StateDictMapping
from wmtp.metadata.transforms import compile_pattern, compile_transform
from wmtp.untrusted import first_few, show

_MAX_NAME_BYTES = 512
_MAX_NAMED_RULES = 4
_HEAD_PART = re.compile(r"heads\.\d{1,3}\.\w+")


@dataclass(frozen=True, slots=True)
class MappedName:
    """What a tensor is called in the model, and the rules that made it so.

    Attributes:
        name: The parameter or buffer that the tensor fills.
        rules: The rules of the mapping that changed the name, in order; empty when none did.
    """

    name: str
    rules: tuple[str, ...]


def map_names(mapping: StateDictMapping, names: Collection[str], *, where: str) -> dict[str, MappedName]:
    """Apply a mapping to every tensor name: `remove_prefix`, then `key_transforms` in file order, then `add_prefix`.

    Raises:
        PlanError: If a rule matches no tensor, two tensors get one name, or a name becomes empty or too long; all such
            faults at once. Also when the rules need more work than those of any honest mapping.
    """
    field = f"{where}/metadata.json: loading_strategy.state_dict_mapping.key_transforms"
    work = Work(field, [compile_pattern(pattern) for pattern in mapping.key_transforms], names)
    rules = _rules(mapping, work.spend)
    used: set[int] = set()
    mapped: dict[str, MappedName] = {}
    for original in names:
        name, applied = _apply(rules, original)
        # Of a name that grew too long it is not known which of the later rules match.
        used.update(applied if len(name) <= _MAX_NAME_BYTES else range(len(rules)))
        mapped[original] = MappedName(name, tuple(rules[position][0] for position in applied))
    unused = [label for position, (label, _) in enumerate(rules) if position not in used]
    parts = {f"key_transforms {show(pattern)}": part for pattern, part in _parts_of_heads(mapping)}
    faults = [f"{label} matches no tensor{_of_head(parts.get(label))}" for label in unused] + _name_faults(mapped)
    if faults:
        or_else = "take the checkpoint that still has them, or " if parts.keys() & set(unused) else ""
        raise PlanError(
            f"{where}/metadata.json: loading_strategy.state_dict_mapping does not fit the tensors",
            hint=f"{or_else}see the tensors' names with 'wmtp inspect --tensors', then mend the mapping in"
            " metadata.json",
            faults=first_few(faults),
        )
    return mapped


def _parts_of_heads(mapping: StateDictMapping) -> Iterator[tuple[str, str]]:
    """Yield patterns that stand for one part of a prediction head, with the name of that part."""
    for pattern, replacement in mapping.key_transforms.items():
        if found := _HEAD_PART.match(replacement):
            yield pattern, found[0]


def _of_head(part: str | None) -> str:
    if part is None:
        return ""
    return f": head {part.split('.')[1]}, which is declared, lacks its {part}"


Rename = Callable[[str], str | None]


def _apply(rules: list[tuple[str, Rename]], name: str) -> tuple[str, list[int]]:
    applied = []
    for position, (_, rename) in enumerate(rules):
        renamed = rename(name)
        if renamed is not None:
            name = renamed
            applied.append(position)
        if len(name) > _MAX_NAME_BYTES:
            break  # rules that each double a name would fill the memory
    return name, applied


def _rules(mapping: StateDictMapping, spend: Callable[[int], None]) -> list[tuple[str, Rename]]:
    rules: list[tuple[str, Rename]] = []
    if (removed := mapping.remove_prefix) is not None:
        rules.append(
            (f"remove_prefix {show(removed)}", lambda n: n.removeprefix(removed) if n.startswith(removed) else None)
        )
    rules += [
        (f"key_transforms {show(rule[0])}", compile_transform(*rule, spend=spend))
        for rule in mapping.key_transforms.items()
    ]
    if (added := mapping.add_prefix) is not None:
        rules.append((f"add_prefix {show(added)}", lambda n: added + n))
    return rules


def _name_faults(mapped: dict[str, MappedName]) -> list[str]:
    owners: dict[str, str] = {}
    faults = []
    for original, target in mapped.items():
        if not target.name or len(target.name.encode()) > _MAX_NAME_BYTES:
            becomes = f"{show(original)} becomes a name that is empty or longer than {_MAX_NAME_BYTES} bytes"
            faults.append(becomes + by_rules(target.rules))
        elif target.name in owners:
            other = owners[target.name]
            both = f"{show(other)} and {show(original)} both become {show(target.name)}"
            faults.append(both + by_rules([*mapped[other].rules, *target.rules]))
        owners.setdefault(target.name, original)
    return faults


def by_rules(rules: Iterable[str]) -> str:
    """Say which rules made a name what it is."""
    named = list(dict.fromkeys(rules))
    more = f" and {len(named) - _MAX_NAMED_RULES:,} more" if len(named) > _MAX_NAMED_RULES else ""
    return f", by {', '.join(named[:_MAX_NAMED_RULES])}{more}"
