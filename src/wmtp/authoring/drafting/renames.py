"""Few rules that give many names the ones that they are to have: `remove_prefix`, `add_prefix`, `key_transforms`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from wmtp.metadata.transforms import compile_transform

_MAX_RULES = 256  # as many as metadata.json may have
_MAX_GROUPS = 9
_PLAIN_NAME = re.compile(r"[\w.\-]+", re.ASCII)
_NUMBER = re.compile(r"[0-9]+")

Fields = dict[str, Any]
Rename = Callable[[str], str]


@dataclass(frozen=True)
class Renaming:
    """Fields of a mapping that rename, and what they do to a name."""

    fields: Fields
    rename: Rename


def draft_renaming(wanted: Mapping[str, str], others: Iterable[str]) -> Renaming | None:
    """Return rules under which every name becomes the one that is wanted, or None where there are none of this kind.

    Args:
        wanted: Names, and what they are to become.
        others: Names that may become anything but those.
    """
    if all(name == target for name, target in wanted.items()):
        return Renaming({}, lambda name: name)
    return _by_prefix(wanted) or _by_rules(_examples(wanted), others)


def _by_prefix(wanted: Mapping[str, str]) -> Renaming | None:
    name, target = next(pair for pair in wanted.items() if pair[0] != pair[1])
    if name.endswith(f".{target}"):
        removed = name.removesuffix(target)
        if all(target == name.removeprefix(removed) for name, target in wanted.items()):
            return Renaming({"remove_prefix": removed}, lambda name: name.removeprefix(removed))
    if target.endswith(f".{name}"):
        added = target.removesuffix(name)
        if all(target == added + name for name, target in wanted.items()):
            return Renaming({"add_prefix": added}, lambda name: added + name)
    return None


def _examples(wanted: Mapping[str, str]) -> dict[str, str]:
    """A few names of each form: others of it have other numbers in the same places."""
    counts: dict[tuple[str, str], int] = {}
    kept = {}
    for name, target in wanted.items():
        form = (_NUMBER.sub("#", name), _NUMBER.sub("#", target))
        counts[form] = counts.get(form, 0) + 1
        if counts[form] <= 4:
            kept[name] = target
    return kept


def _by_rules(wanted: Mapping[str, str], others: Iterable[str]) -> Renaming | None:
    if not all(_PLAIN_NAME.fullmatch(name + target) for name, target in wanted.items()):
        return None
    names = _Names(dict(wanted), sorted({_NUMBER.sub("0", name) for name in others}))
    while (wrong := names.wrong()) and len(names.rules) < _MAX_RULES:
        if not any(names.take(*rule) for now, target in wrong for rule in _candidates(now, target)):
            return None
    if names.wrong():
        return None
    return Renaming({"key_transforms": names.rules}, applied(names.rules))


class _Names:
    """Names under the rules so far."""

    def __init__(self, wanted: dict[str, str], others: list[str]) -> None:
        self.rules: dict[str, str] = {}
        self._targets = list(wanted.values())
        self._now = list(wanted)
        self._others = others

    def wrong(self) -> list[tuple[str, str]]:
        return [pair for pair in zip(self._now, self._targets, strict=True) if pair[0] != pair[1]]

    def take(self, pattern: str, replacement: str) -> bool:
        """Take a rule in, if it makes some names right, none wrong, and no two alike that are to differ."""
        if pattern in self.rules:
            return False
        rename = applied({pattern: replacement})
        renamed = [rename(name) for name in self._now]
        before = [now == target for now, target in zip(self._now, self._targets, strict=True)]
        after = [now == target for now, target in zip(renamed, self._targets, strict=True)]
        if any(was and not is_now for was, is_now in zip(before, after, strict=True)):
            return False
        if len(set(renamed)) < len(set(self._now)) or not _is_nearer(self._now, renamed, self._targets):
            return False
        self.rules[pattern], self._now = replacement, renamed
        return True


def _is_nearer(before: list[str], after: list[str], targets: list[str]) -> bool:
    """Whether every name that changes has more in common with its target than it had."""
    changed = [each for each in zip(before, after, targets, strict=True) if each[0] != each[1]]
    return bool(changed) and all(_distance(new, target) < _distance(old, target) for old, new, target in changed)


def _distance(name: str, target: str) -> int:
    _, now, then, _ = _difference(name, target)
    return len(now) + len(then)


def _difference(name: str, target: str) -> tuple[list[str], list[str], list[str], list[str]]:
    """What two names begin with in common, what each has of its own, and what they end with in common; in parts."""
    now, then = name.split("."), target.split(".")
    lead = _common(now, then)
    trail = _common(now[len(lead) :][::-1], then[len(lead) :][::-1])[::-1]
    return lead, now[len(lead) : len(now) - len(trail)], then[len(lead) : len(then) - len(trail)], trail


def _common(one: list[str], other: list[str]) -> list[str]:
    # Names of different depth are compared as far as the shorter one goes.
    return [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]


def _candidates(name: str, target: str) -> Iterator[tuple[str, str]]:
    """Rules that bring a name nearer to its target, the most general first."""
    lead, now, then, trail = _difference(name, target)
    first_now, first_then = _up_to_number(now), _up_to_number(then)
    if (first_now, first_then) != (now, then) and _numbers(now) == _numbers(then):
        rest = now[len(first_now) :] + trail
        yield from _rules(lead, first_now, first_then, rest)
    yield from _rules(lead, now, then, trail)


def _up_to_number(parts: list[str]) -> list[str]:
    return list(takewhile(lambda part: not part.isdigit(), parts))


def _numbers(parts: list[str]) -> list[str]:
    return [part for part in parts if part.isdigit()]


def _rules(lead: list[str], now: list[str], then: list[str], trail: list[str]) -> Iterator[tuple[str, str]]:
    if not now:  # something is put in, so it must be said where
        if trail:
            now, then, trail = trail[:1], [*then, trail[0]], trail[1:]
        else:
            lead, now, then = lead[:-1], lead[-1:], [lead[-1], *then]
    end, put_end = (r"\.", ".") if trail else ("$", "")
    if not then and not trail:
        return
    old, new = "".join(map(re.escape, ".".join(now))), ".".join(then)
    new_then = new + put_end if then else ""
    if lead:
        yield rf"\.{old}{end}", f".{new_then}" if then else put_end
    numbered = _Numbered()
    pattern = "".join(numbered.pattern(part) + r"\." for part in lead)
    replacement = "".join(numbered.replacement(part) + "." for part in lead)
    if numbered.count <= _MAX_GROUPS:
        yield f"^{pattern}{old}{end}", replacement + new_then
    yield from _whole(lead + now + trail, lead + then + trail)


def _whole(now: list[str], then: list[str]) -> Iterator[tuple[str, str]]:
    name, target = ".".join(now), ".".join(then)
    if _NUMBER.findall(name) == _NUMBER.findall(target) and len(_NUMBER.findall(name)) <= _MAX_GROUPS:
        numbered = _Numbered()
        yield f"^{numbered.pattern(name)}$", numbered.replacement(target)
    yield f"^{re.escape(name)}$", target


class _Numbered:
    """Numbers in names as groups of a pattern."""

    def __init__(self) -> None:
        self.count = 0
        self._put = 0

    def pattern(self, text: str) -> str:
        self.count += len(_NUMBER.findall(text))
        return "([0-9]+)".join(map(re.escape, _NUMBER.split(text)))

    def replacement(self, text: str) -> str:
        """Text with the groups in the places of its numbers, one after the other."""
        pieces = _NUMBER.split(text)
        put = pieces[0]
        for piece in pieces[1:]:
            self._put += 1
            put += rf"\{self._put}{piece}"
        return put


def applied(rules: Mapping[str, str]) -> Rename:
    """Return a function that renames as loading does: by every rule that is found, one after the other."""
    compiled = [compile_transform(*rule) for rule in rules.items()]

    def rename(name: str) -> str:
        for rule in compiled:
            renamed = rule(name)
            name = name if renamed is None else renamed
        return name

    return rename
