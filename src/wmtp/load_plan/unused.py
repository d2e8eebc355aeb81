"""How tensors that were left unused are said to a person: those of a vision tower are hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from wmtp.untrusted import first_few, plain
from wmtp.wording import counted

_MAX_NAMED = 5


def unused_lines(names: Sequence[str]) -> list[str]:
    """Return lines that name a few tensors, and of many what their names begin with."""
    if len(names) <= _MAX_NAMED:
        return [f"tensor left unused: {plain(name)}" for name in names]
    groups: dict[str, list[list[str]]] = {}
    for name in names:
        groups.setdefault(name.split(".")[0], []).append(name.split("."))
    begins = [f"{plain(_begin(group))} ({len(group):,})" for group in groups.values()]
    return [f"{counted(len(names), 'tensor')} left unused: {', '.join(first_few(begins))}; --json names each"]


def _begin(group: list[list[str]]) -> str:
    columns = zip(*group, strict=False)  # names of different depth: as far as the shortest goes
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, columns)]
    return ".".join(common if common == group[0] else [*common, "*"])
