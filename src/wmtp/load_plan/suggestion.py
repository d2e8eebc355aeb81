"""The mapping that would make a checkpoint fit its class, for hints and drafts. Loading never applies a suggestion."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, takewhile
from typing import Any

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.leftovers import is_harmless, telling
from wmtp.load_plan.mapping import map_names
from wmtp.metadata.schema import StateDictMapping
from wmtp.metadata.transforms import compile_transform

_MAX_SUGGESTED = 20
_MAX_TRIED = 4  # each is a whole plan
_MAX_LEFT = 4_000  # to say what each is takes up to half a millisecond, for names that mean to
_MAX_COMPARED = 1_000_000  # pairs of names
_PLAIN_NAME = re.compile(r"[\w.]+", re.ASCII)
# What trainers wrap modules in, and leave in names: the first only in front of all others.
_OUTER_WRAPPERS = ("module", "_forward_module")
_WRAPPERS = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module")

Fields = dict[str, Any]
Rename = Callable[[str], str]


def suggest_mapping(
    wanted: Iterable[str],
    tensors: Sequence[TensorInfo],
    *,
    works: Callable[[Fields], bool],
    declared: StateDictMapping | None = None,
    optional: Collection[str] = (),
    unneeded: Collection[str] = (),
) -> Fields | None:
    """Return mapping fields under which every wanted name has a tensor and none is left that matters, or None.

    Tried are the declared rules, one prefix, what trainers wrap modules in, and a few renamed parts. What is left over
    may be left unused only when it is known to be harmless.

    Args:
        wanted: Names that the model needs, ties left out.
        tensors: What the files hold.
        works: Says whether a checkpoint with these fields for its mapping would load; nothing else is returned.
        declared: The mapping that does not fit; what it lets through stays let through.
        optional: Names among the wanted that it lets be without a tensor.
        unneeded: Tensors that it lets be without a parameter.
    """
    names, held = set(wanted), {tensor.name: tensor for tensor in tensors}
    needed, mapping, tried = names.difference(optional), declared or StateDictMapping(), 0
    for rules, rename in chain(_declared(mapping, held), _attempts(needed, held)):
        renamed = {name: rename(name) for name in held}
        left = [held[name] for name, target in renamed.items() if target not in names and name not in unneeded]
        if not _fills(needed, renamed) or len(left) > _MAX_LEFT or not all(map(is_harmless, left)):
            continue
        globs = _globs(tensor.name for tensor in left)
        fields = {**rules, **_let_through(mapping, globs)}
        if tried == _MAX_TRIED or len(globs) > _MAX_SUGGESTED:
            break
        tried += 1
        if works(fields):
            return fields
    return None


def _fills(needed: set[str], renamed: Mapping[str, str]) -> bool:
    targets = set(renamed.values())
    return needed <= targets and len(targets) == len(renamed)


def _let_through(declared: StateDictMapping, globs: list[str]) -> Fields:
    unexpected = list(dict.fromkeys([*declared.allow_unexpected, *globs]))
    both = {"allow_missing": declared.allow_missing, "allow_unexpected": unexpected}
    return {field: listed for field, listed in both.items() if listed}


def _declared(mapping: StateDictMapping, held: Collection[str]) -> Iterator[tuple[Fields, Rename]]:
    """The rules that are there already, where they fit the tensors: perhaps only something is left over."""
    rules = mapping.model_dump(exclude={"allow_missing", "allow_unexpected"}, exclude_defaults=True)
    if rules:
        with suppress(PlanError):
            mapped = map_names(mapping, held, where="")
            yield rules, lambda name: mapped[name].name


def _attempts(needed: set[str], held: Collection[str]) -> Iterator[tuple[Fields, Rename]]:
    """Candidates in order of simplicity; nothing here depends on the order of a set."""
    yield from _prefixes(needed, held)
    if wrappers := _wrapper_rules(held):
        unwrap = _applied(wrappers)
        unwrapped = {name: unwrap(name) for name in held}
        for fields, rename in _prefixes(needed, set(unwrapped.values())):
            yield _after(wrappers, fields), lambda name, rename=rename: rename(unwrapped[name])  # type: ignore[misc]
    absent, spare = sorted(needed.difference(held)), sorted(set(held) - needed)
    is_little = len(spare) <= _MAX_LEFT and len(absent) * len(spare) <= _MAX_COMPARED
    if is_little and not any(map(telling, spare)):
        for rules in _in_both_orders(_renamed_parts(absent, spare)):
            yield {"key_transforms": rules}, _applied(rules)


def _wrapper_rules(held: Collection[str]) -> dict[str, str]:
    """Rules that take wrappers out of names, however they are nested: those in front of all, and those inside."""
    leading = [part for part in (*_OUTER_WRAPPERS, *_WRAPPERS) if any(f".{part}." in f".{name}" for name in held)]
    inside = [part for part in leading if part in _WRAPPERS]
    rules = [(f"^{_any_of(leading)}", ""), (f"\\.{_any_of(inside)}", ".")]
    return {pattern: put for pattern, put in rules if any(map(re.compile(pattern).search, held))}


def _any_of(parts: Sequence[str]) -> str:
    if not parts:
        return "$^"
    return rf"(?:{parts[0]}\.)+" if len(parts) == 1 else rf"(?:(?:{'|'.join(parts)})\.)+"


def _in_both_orders(rules: dict[str, str]) -> list[dict[str, str]]:
    """Rules run one after the other, and one may take for its own what another made; in one order none does."""
    return [rules, dict(reversed(rules.items()))] if rules else []


def _prefixes(needed: set[str], held: Collection[str]) -> Iterator[tuple[Fields, Rename]]:
    yield {}, lambda name: name
    # A prefix must bring every absent name to a held one, so the longest absent name alone tells which are possible.
    absent = max(needed.difference(held), key=lambda name: (len(name), name), default="")
    removals = {name.removesuffix(absent) for name in held if name.endswith(f".{absent}")}
    additions = {absent.removesuffix(name) for name in held if absent.endswith(f".{name}")}
    for prefix in _shortest(removals):
        yield {"remove_prefix": prefix}, lambda name, prefix=prefix: name.removeprefix(prefix)  # type: ignore[misc]
    for prefix in _shortest(additions):
        yield {"add_prefix": prefix}, lambda name, prefix=prefix: prefix + name  # type: ignore[misc]


def _shortest(prefixes: set[str]) -> list[str]:
    return sorted(prefixes, key=lambda prefix: (len(prefix), prefix))[:_MAX_SUGGESTED]


def _after(wrappers: dict[str, str], fields: Fields) -> Fields:
    """The fields that remove wrappers first: `remove_prefix` would see the names before that, so it becomes a rule."""
    removed = {f"^{re.escape(fields['remove_prefix'])}": ""} if "remove_prefix" in fields else {}
    added = {"add_prefix": fields["add_prefix"]} if "add_prefix" in fields else {}
    return {"key_transforms": wrappers | removed, **added}


def _applied(rules: Mapping[str, str]) -> Rename:
    """Rename as loading does: every rule that matches, one after the other."""
    compiled = [compile_transform(*rule) for rule in rules.items()]

    def rename(name: str) -> str:
        for rule in compiled:
            renamed = rule(name)
            name = name if renamed is None else renamed
        return name

    return rename


def _renamed_parts(absent: Sequence[str], spare: Sequence[str]) -> dict[str, str]:
    """Rules that rename leading parts of spare names to those of absent ones, where the rest tells which belong."""
    rules: dict[str, str] = {}
    for name in absent:
        ending = {other: _common_ending(name, other) for other in spare}
        best = max(ending.values(), default=0)
        alike = [other for other, length in ending.items() if length == best]
        if not best or len(alike) != 1 or not _PLAIN_NAME.fullmatch(alike[0] + name):
            return {}
        pattern, replacement = f"^{re.escape(alike[0][:-best])}\\.", f"{name[:-best]}."
        if rules.setdefault(pattern, replacement) != replacement:
            return {}
    return rules if len(rules) <= _MAX_SUGGESTED else {}


def _common_ending(name: str, other: str) -> int:
    """Length of what two names end in alike, in whole parts, the dot before them included."""
    # Names of different depth are compared as far as the shorter one goes.
    parts = zip(reversed(name.split(".")[1:]), reversed(other.split(".")[1:]), strict=False)
    return sum(len(part) + 1 for part, _ in takewhile(lambda pair: pair[0] == pair[1], parts))


def _globs(names: Iterable[str]) -> list[str]:
    """Names that differ only in a layer number become one glob."""
    return sorted({re.sub(r"(?<=\.)\d+(?=\.)", "*", glob.escape(name)) for name in names})
