"""How tensor names in the files become parameter names of the model."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from wmtp.errors import PlanError
from wmtp.load_plan.work import Work
from wmtp.metadata.schema import StateDictMapping
from wmtp.metadata.transforms import compile_pattern, compile_transform
from wmtp.untrusted import first_few, show

_MAX_NAME_BYTES = 512
_MAX_SUGGESTED = 20
_MAX_RENAMED = 1000
_PLAIN_NAME = re.compile(r"[\w.]+", re.ASCII)


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
    faults = [f"{label} matches no tensor" for label in unused] + _name_faults(mapped)
    if faults:
        raise PlanError(
            f"{where}: loading_strategy.state_dict_mapping does not fit the tensors",
            hint="see the tensors' names with 'wmtp inspect --tensors', then mend the mapping in metadata.json",
            faults=first_few(faults),
        )
    return mapped


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
            faults.append(f"{show(original)} becomes a name that is empty or longer than {_MAX_NAME_BYTES} bytes")
        elif target.name in owners:
            faults.append(f"{show(owners[target.name])} and {show(original)} both become {show(target.name)}")
        owners.setdefault(target.name, original)
    return faults


def suggest_mapping(wanted: Iterable[str], tensors: Iterable[str]) -> dict[str, Any] | None:
    """Return mapping fields under which every wanted name has a tensor, or None when a prefix or few renames do not.

    For people, in hints and drafts; loading never applies a suggestion.

    Args:
        wanted: Names that the model needs, ties left out.
        tensors: Names that the files hold.
    """
    needed, held = set(wanted), set(tensors)
    for fields, rename in _attempts(needed, held):
        names = {name: str(rename(name)) for name in held}
        if needed <= set(names.values()) and len(set(names.values())) == len(names):
            left = _globs(name for name, target in names.items() if target not in needed)
            return None if len(left) > _MAX_SUGGESTED else {**fields, "allow_unexpected": left} if left else fields
    return None


def _attempts(needed: set[str], held: set[str]) -> Iterator[tuple[dict[str, Any], Rename]]:
    yield {}, lambda name: name
    # A prefix must bring every absent name to a held one, so the longest absent name alone tells which are possible.
    absent = max(needed - held, key=lambda name: (len(name), name), default="")
    removals = {name.removesuffix(absent) for name in held if name.endswith(f".{absent}")}
    additions = {absent.removesuffix(name) for name in held if absent.endswith(f".{name}")}
    for prefix in sorted(removals, key=len)[:_MAX_SUGGESTED]:
        yield {"remove_prefix": prefix}, lambda name, prefix=prefix: name.removeprefix(prefix)  # type: ignore[misc]
    for prefix in sorted(additions, key=len)[:_MAX_SUGGESTED]:
        yield {"add_prefix": prefix}, lambda name, prefix=prefix: prefix + name  # type: ignore[misc]
    if renames := _renamed_parts(needed - held, held - needed):
        compiled = [compile_transform(*rule) for rule in renames.items()]
        yield {"key_transforms": renames}, lambda name: next(filter(None, (rule(name) for rule in compiled)), name)


def _renamed_parts(absent: set[str], spare: set[str]) -> dict[str, str]:
    """Rules that rename leading parts of spare names to those of absent ones, where the rest tells which belong."""
    rules: dict[str, str] = {}
    for name in absent if len(absent) <= _MAX_RENAMED else ():
        ending = {other: _common_ending(name, other) for other in spare}
        best = max(ending.values(), default=0)
        alike = [other for other, length in ending.items() if length == best]
        if not best or len(alike) != 1 or not _PLAIN_NAME.fullmatch(alike[0] + name):
            return {}
        rules[f"^{re.escape(alike[0][:-best])}\\."] = f"{name[:-best]}."
    return rules if len(rules) <= _MAX_SUGGESTED else {}


def _common_ending(name: str, other: str) -> int:
    """Length of what two names end in alike, in whole parts, the dot before them included."""
    # Names of different depth are compared as far as the shorter one goes.
    parts = zip(reversed(name.split(".")[1:]), reversed(other.split(".")[1:]), strict=False)
    return sum(len(part) + 1 for part, _ in takewhile(lambda pair: pair[0] == pair[1], parts))


def _globs(names: Iterable[str]) -> list[str]:
    """Names that differ only in a layer number become one glob."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", glob.escape(name)) for name in names})
