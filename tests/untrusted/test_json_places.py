import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmtp.untrusted import JSONFault, parse_json
from wmtp.untrusted.json_places import finder_of_value, place_of_depth, place_of_position


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b'{"rope": {"factor": NaN}}', "which is not JSON, at rope.factor"),
        (b'{"a": [{}, {"b": [1, -Infinity]}]}', "which is not JSON, at a.1.b.1"),
        (b'{"a": {"\\u0062": 1e999}}', "which overflows, at a.b"),
        (b'{"a": 1e99, "c": [0, -1e999]}', "which overflows, at c.1"),
        (b'{"n": {"m": ' + b"3" * 60 + b"}}", "an integer of 60 digits, at n.m"),
        (b'{"a": "\\ud83d\\ude00", "b": ["\\udead"]}', "a lone surrogate in a string, at b.0"),
        (b'{"a": {"\\udead": 1}}', "a lone surrogate in a string, at a.\\udead"),
        (b'{"x": {"k": 1}, "y": {"k": 1, "q": 2, "k": 3}}', "has the key 'k' twice in one object, at y.k"),
        (b'[[], {"a": {"k": [], "\\u006b": []}}]', "has the key 'k' twice in one object, at 1.a.k"),
        (b'{"a": {"b": 1, "c" 2}}', "column 20, after a.c"),
        (b'{"a": [1, 2,, 3]}', "column 13, after a.1"),
        (b'{"a": {"b": {"c": 1}}', "column 22, after a.b.c"),
        (b'{"a": {"b": ' + b"[" * 64 + b"]" * 64 + b"}}", "deeper than 64 levels, at a.b.0.0.0.0.0.0"),
        (b'{"quote \\" {": {"[": NaN}}', 'which is not JSON, at quote " {.['),
        (b"[1e999]", "which overflows, at 0"),
        (b"NaN", "has the value NaN, which is not JSON"),
        (b"", "Expecting value at line 1, column 1"),
    ],
)
def test_a_fault_says_where_in_the_document_it_stands(text, end):
    with pytest.raises(JSONFault) as caught:
        parse_json(text)
    assert str(caught.value).endswith(end)


def test_a_place_is_shown_safely_and_not_without_end():
    with pytest.raises(JSONFault) as caught:
        parse_json(b'{"\\u001b[2J": ' + b'{"aaaa":' * 40 + b"NaN" + b"}" * 41)
    assert "\x1b" not in str(caught.value)
    assert str(caught.value).endswith("at \\x1b[2J" + ".aaaa" * 7)


def test_a_fault_far_down_a_huge_file_is_told_without_its_place():
    with pytest.raises(JSONFault, match=r"has the value NaN, which is not JSON$"):
        parse_json(b'{"a": "' + b" " * (4 << 20) + b'", "b": NaN}', max_bytes=5 << 20)


def leaves(value, path=()):
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        yield from leaves(inner, (*path, key))
    if value == 0.5:
        yield path


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.just(0.5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.sampled_from([None, 1]), st.booleans())
def test_the_place_of_a_value_is_the_path_that_leads_to_it(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert finder_of_value("parse_float", "0.5")(text) == next(leaves(value), None)


@given(st.text(alphabet='{}[]",:\\u0dDe8\n 1.-', max_size=60), st.integers(0, 60))
def test_no_text_is_too_broken_to_look_for_a_place(text, position):
    assert isinstance(place_of_position(text, position), tuple)
    assert isinstance(place_of_depth(text), tuple)


@pytest.mark.parametrize("text", [b'{"a": NaN, "b": 0}x', b'{"a": NaN, "b": +1}', b'{"a": 1e999, "b"', b"[1, NaN, "])
def test_a_fault_before_another_is_told_also_where_its_place_cannot_be_looked_for(text):
    with pytest.raises(JSONFault, match=r"has the (value NaN, which is not JSON|number '1e999', which overflows)$"):
        parse_json(text)
