"""Renaming by RE2 against Python's own `re`, and hostile patterns against the clock."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import assume, event, example, given
from hypothesis import strategies as st

from checkpoints import metadata_document
from fuzz.target import fuzz_target
from wmtp.errors import MetadataError, PlanError
from wmtp.load_plan.mapping import MappedName, map_names
from wmtp.metadata.file import parse_metadata
from wmtp.metadata.schema import StateDictMapping
from wmtp.metadata.transforms import compile_transform

names = st.lists(st.text("ab.01é_\\h", min_size=1, max_size=10), min_size=1, max_size=5, unique=True)

_ATOMS = st.sampled_from(["a", "b", "h", r"\.", r"\d", r"\w", "[ab]", "[^a.]", ".", "é", "0", r"\\", "[0-9]", "_"])
_REPEATS = st.sampled_from(["", "", "", "+", "{2}", "{1,2}", "+?"])
_PIECES = st.builds("{}{}".format, _ATOMS, _REPEATS)
_GROUPS = st.lists(_PIECES, min_size=1, max_size=2).map("".join).map("({})".format) | st.builds(
    "({}|{})".format, _PIECES, _PIECES
)
_OPTIONAL = _GROUPS.map("{}?".format)
# What both engines understand alike; a pattern that matches nothing at all is left to the other target.
patterns = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "", "^"]),
    _PIECES,
    st.lists(_PIECES | _GROUPS | _OPTIONAL, max_size=3).map("".join),
    st.sampled_from(["", "", "$"]),
)
hostile = st.text("ab.*+?()[]{}|^$\\dpPL1,9:i<>", max_size=24)
replacements = st.lists(
    st.sampled_from(["x", ".", r"\1", r"\2", r"\\", "$1", r"\\1", "é", "{0}", "&"]), max_size=3
).map("".join)


def rename_by_re(pattern: str, replacement: str, name: str) -> str:
    def expand(match: re.Match[str]) -> str:
        parts = re.split(r"\\([1-9\\])", replacement)
        odd = [part if part == "\\" else match[int(part)] or "" for part in parts[1::2]]
        return "".join(text + special for text, special in zip(parts[::2], [*odd, ""], strict=True))

    return re.sub(pattern, expand, name, flags=re.ASCII)


def document_with(**mapping: object) -> bytes:
    return json.dumps(metadata_document({"state_dict_mapping": mapping})).encode()


@fuzz_target(300)
@given(patterns, replacements, names)
@example(r"h\.(\d+)\.(a|b)?", r"\2.\1", ["h.0.a", "h.01._"])
def test_a_transform_renames_as_pythons_own_expressions_do(pattern, replacement, held):
    groups = re.compile(pattern).groups
    assume(max(map(int, re.findall(r"\\([12])", replacement.replace(r"\\", ""))), default=0) <= groups)
    mapping = StateDictMapping(key_transforms={pattern: replacement})
    expected = [rename_by_re(pattern, replacement, name) for name in held]
    found = [bool(re.search(pattern, name, re.ASCII)) for name in held]
    rename = compile_transform(pattern, replacement)
    assert [rename(name) for name in held] == [
        new if is_found else None for new, is_found in zip(expected, found, strict=True)
    ]
    if not any(found) or "" in expected or len(set(expected)) < len(expected):
        event("refused")
        with pytest.raises(PlanError, match="state_dict_mapping does not fit the tensors"):
            map_names(mapping, held, where="models/a")
        return
    event("renamed")
    mapped = map_names(mapping, held, where="models/a")
    assert [mapped[name].name for name in held] == expected
    assert [bool(mapped[name].rules) for name in held] == found


@fuzz_target(150)
@given(
    st.sampled_from(["", "", "a"]),
    st.dictionaries(hostile | patterns, st.text("ab\\129", max_size=4) | replacements, max_size=4),
    st.text(max_size=3),
    names,
)
@example("", {"(a*)*(a*)*(a*)*$": "b"}, "", ["a" * 500])
@example("", {"((a{0,9}){0,9}){0,9}b": "b"}, "", ["a" * 500])
@example("", {f"(.)x{{0,{n}}}": "\\1\\1" for n in range(9)}, "", ["ab" * 9])
@example("", {"(" * 400 + ")" * 400: ""}, "", ["a"])
@example("", {"[[:word:]]{1000}{1000}": ""}, "", ["a"])
def test_any_rules_are_refused_or_applied_and_give_distinct_sound_names(removed, rules, added, held):
    try:
        metadata = parse_metadata(
            document_with(remove_prefix=removed or None, key_transforms=rules, add_prefix=added or None), where="m.json"
        )
        check_mapped(map_names(metadata.loading_strategy.state_dict_mapping, held, where="models/a"), held)
    except (MetadataError, PlanError) as error:
        event(type(error).__name__)
        check_refusal(error)


def check_refusal(error: MetadataError | PlanError) -> None:
    assert all(line.isprintable() and len(line) < 1000 for line in str(error).splitlines())


def check_mapped(mapped: dict[str, MappedName], held: list[str]) -> None:
    event("renamed")
    results = [found.name for found in mapped.values()]
    assert list(mapped) == held
    assert len(set(results)) == len(results)
    assert all(0 < len(name.encode()) <= 512 for name in results)


@fuzz_target(60)
@given(st.sampled_from(["", "a", "b."]), st.sampled_from(["", "b.", "é"]), names)
def test_prefixes_alone_go_first_and_last(removed, added, held):
    held = [f"{removed}z", *held]
    expected = [added + name.removeprefix(removed) for name in held]
    assume("" not in expected and len(set(expected)) == len(expected))
    mapping = StateDictMapping(remove_prefix=removed or None, add_prefix=added or None)
    assert [mapped.name for mapped in map_names(mapping, held, where="x").values()] == expected
