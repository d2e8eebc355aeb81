"""Where the files of a checkpoint hold its prediction heads, by the names that the mapping gives their tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from wmtp.load_plan.mapping import map_names
from wmtp.metadata.schema import StateDictMapping

_PART = re.compile(r"heads\.(\d{1,3})\.")


@dataclass(frozen=True)
class StoredHead:
    """What the files hold of one head.

    Attributes:
        number: Which head; the next-token head is 1 and the trunk's own.
        num_tensors: Its tensors.
        begins: What their names in the files begin with.
    """

    number: int
    num_tensors: int
    begins: tuple[str, ...]


def stored_heads(mapping: StateDictMapping, names: Collection[str], *, where: str) -> list[StoredHead]:
    """Return the heads of a built-in class that tensors are for, in order.

    Raises:
        PlanError: If the mapping does not fit the names.
    """
    begins: dict[int, list[str]] = {}
    for name, mapped in map_names(mapping, names, where=where).items():
        if found := _PART.match(mapped.name):
            begins.setdefault(int(found[1]), []).append(_begin(name, mapped.name[found.end() :]))
    return [StoredHead(number, len(begins[number]), _outermost(begins[number])) for number in sorted(begins)]


def _begin(name: str, part: str) -> str:
    """What stands in a name before the end that it has in common with the name of a part of a head."""
    parts, others = name.split("."), part.split(".")
    while len(parts) > 1 and others and parts[-1] == others[-1]:
        parts.pop()
        others.pop()
    return ".".join(parts)


def _outermost(begins: Sequence[str]) -> tuple[str, ...]:
    each = dict.fromkeys(begins)
    return tuple(one for one in each if not any(one.startswith(f"{other}.") for other in each))
