"""How tensor names in the files become parameter names of the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from wmtp.errors import PlanError
from wmtp.metadata.schema import StateDictMapping
from wmtp.untrusted import show

_MAX_NAME_BYTES = 512
_ESCAPE = re.compile(r"\\([1-9\\])")


@dataclass(frozen=True, slots=True)
class MappedName:
    """What a tensor is called in the model, and the rules that made it so.

    Attributes:
        name: The parameter or buffer that the tensor fills.
        rules: The rules of the mapping that changed the name, in order; empty when none did.
    """

    name: str
    rules: tuple[str, ...]


def map_names(mapping: StateDictMapping, names: Iterable[str], *, where: str) -> dict[str, MappedName]:
    """Apply a mapping to every tensor name: `remove_prefix`, then `key_transforms` in file order, then `add_prefix`.

    Raises:
        PlanError: If a rule matches no tensor, two tensors get one name, or a name becomes empty or too long; all such
            faults at once.
    """
    rules = _rules(mapping)
    used: set[str] = set()
    mapped: dict[str, MappedName] = {}
    for original in names:
        name, applied = original, []
        for label, rename in rules:
            renamed = rename(name)
            if renamed is not None:
                name = renamed
                applied.append(label)
        used.update(applied)
        mapped[original] = MappedName(name, tuple(applied))
    faults = [f"{label} matches no tensor" for label, _ in rules if label not in used] + _name_faults(mapped)
    if faults:
        raise PlanError(
            f"{where}: loading_strategy.state_dict_mapping does not fit the tensors",
            hint="see the tensors' names with 'wmtp inspect --tensors', then mend the mapping in metadata.json",
            faults=faults,
        )
    return mapped


Rename = Callable[[str], str | None]


def _rules(mapping: StateDictMapping) -> list[tuple[str, Rename]]:
    rules: list[tuple[str, Rename]] = []
    if (removed := mapping.remove_prefix) is not None:
        rules.append(
            (f"remove_prefix {show(removed)}", lambda n: n.removeprefix(removed) if n.startswith(removed) else None)
        )
    rules += [_transform(pattern, replacement) for pattern, replacement in mapping.key_transforms.items()]
    if (added := mapping.add_prefix) is not None:
        rules.append((f"add_prefix {show(added)}", lambda n: added + n))
    return rules


def _transform(pattern: str, replacement: str) -> tuple[str, Rename]:
    import re2

    options = re2.Options()
    options.log_errors = False
    compiled = re2.compile(pattern, options=options)

    def expand(match: Any) -> str:
        return _ESCAPE.sub(lambda e: "\\" if e.group(1) == "\\" else match.group(int(e.group(1))) or "", replacement)

    def rename(name: str) -> str | None:
        renamed, count = compiled.subn(expand, name)
        return renamed if count else None

    return f"key_transforms {show(pattern)}", rename


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
    """Return mapping fields under which every wanted name has a tensor, or None when no single prefix does it.

    For people, in hints and drafts; loading never applies a suggestion.

    Args:
        wanted: Names that the model needs, ties left out.
        tensors: Names that the files hold.
    """
    needed, held = set(wanted), list(tensors)
    prefixes = {name[: i + 1] for name in held for i, c in enumerate(name) if c == "."}
    additions = {name[: i + 1] for name in needed for i, c in enumerate(name) if c == "."}
    attempts: list[tuple[dict[str, Any], Rename]] = [({}, lambda n: n)]
    attempts += [({"remove_prefix": p}, lambda n, p=p: n.removeprefix(p)) for p in sorted(prefixes)]  # type: ignore[misc]
    attempts += [({"add_prefix": p}, lambda n, p=p: p + n) for p in sorted(additions)]  # type: ignore[misc]
    for fields, rename in attempts:
        names = {name: str(rename(name)) for name in held}
        if needed <= set(names.values()) and len(set(names.values())) == len(names):
            left = [name for name, target in names.items() if target not in needed]
            return {**fields, "allow_unexpected": _globs(left)} if left else fields
    return None


def _globs(names: list[str]) -> list[str]:
    """Names that differ only in a layer number become one glob."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names})
