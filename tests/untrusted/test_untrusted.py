import json

import pydantic_core
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from effort import times_as_long
from wmtp.errors import MetadataError, WmtpError
from wmtp.faults import Fault, StrictModel, faults_error
from wmtp.untrusted import (
    JSONFault,
    did_you_mean,
    parse_json,
    parse_json_object,
    relative_name_fault,
    show,
    show_all,
    shown_text,
)

BACKSLASH = "\\"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "is not JSON: Expecting value at line 1, column 1"),
        (b'{"a": 1,}', "is not JSON:"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8 at byte 0"),
        (b'{"a": 1, "a": 2}', "has the key 'a' twice in one object"),
        (b'{"a": 1, "\\u0061": 2}', "has the key 'a' twice in one object"),
        (b'[{"x": {"b": 1, "b": 1}}]', "has the key 'b' twice in one object"),
        (b"[NaN]", "has the value NaN, which is not JSON"),
        (b"[-Infinity]", "has the value -Infinity, which is not JSON"),
        (b"[1e999]", "has the number '1e999', which overflows"),
        (b"[-1e999]", "has the number '-1e999', which overflows"),
        (b"[1" + b"0" * 5000 + b"]", "has an integer of 5001 digits"),
        (b'["\\ud800"]', "has a lone surrogate in a string"),
        (b'{"\\udc00": 1}', "has a lone surrogate in a string"),
        (b"[" * 65 + b"]" * 65, "is nested deeper than 64 levels"),
        (b'{"a":' * 100_000, "is nested deeper than 64 levels"),
        (b'["a\nb"]', "is not JSON: Invalid control character at"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_reason(text, fault):
    with pytest.raises(JSONFault) as caught:
        parse_json(text)
    assert str(caught.value).startswith(fault)


def test_a_text_over_the_limit_is_refused_unread():
    with pytest.raises(JSONFault, match="is larger than 10 bytes"):
        parse_json(b"\xff" * 11, max_bytes=10)


def test_sixty_four_levels_and_brackets_inside_strings_are_fine():
    assert parse_json(b"[" * 64 + b"]" * 64)
    assert parse_json(b'["' + b"[" * 100 + b'\\"["]') == ["[" * 100 + '"[']


def test_a_surrogate_pair_is_one_character():
    assert parse_json(b'["\\ud83d\\ude00"]') == ["\N{GRINNING FACE}"]


@pytest.mark.parametrize(
    "text",
    [
        b'["' + b'\\"' * 500_000,
        b"[" + b'"' * 1_000_000,
        json.dumps({f"{i:x}": 0 for i in range(60_000)}).encode()[:-1] + b', "0": 1}',
    ],
    ids=["escaped quotes", "quotes", "duplicate among many keys"],
)
def test_a_hostile_text_of_a_mebibyte_costs_no_more_than_some_honest_ones(text):
    honest = json.dumps({f"{i:x}": 0 for i in range(80_000)}).encode()

    def refuse():
        with pytest.raises(JSONFault):
            parse_json(text)

    assert times_as_long(refuse, lambda: parse_json(honest)) < 50


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0dDe8\n 1.-', max_size=60).map(str.encode))
@example(b'"\\')
@example(b'{"":{"":')
def test_the_json_reader_raises_nothing_but_its_own_fault(data):
    try:
        value = parse_json(data)
    except JSONFault:
        return
    # What our reader lets through, the validating parser must read as the same value.
    assert pydantic_core.from_json(data) == value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_every_ordinary_json_value_is_read_as_it_was_written(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_a_json_file_that_holds_no_object_is_named_with_what_it_holds():
    with pytest.raises(MetadataError) as caught:
        parse_json_object(b"[1, true]", where="x.json", error=MetadataError)
    assert caught.value.problem == "x.json: is [1, true], expected a JSON object"


def test_a_fault_of_the_text_becomes_the_callers_error_with_the_files_name():
    with pytest.raises(MetadataError) as caught:
        parse_json_object(b"{", where="x.json", error=MetadataError)
    assert caught.value.problem.startswith("x.json: is not JSON: ")
    assert isinstance(caught.value.__cause__, JSONFault)


@given(st.text() | json_values)
@example("\x1b[31mred\x1b[0m\nforged: line\r\x7f\u202e")
@example({"\x7f": "\x1b"})
@example("x" * 10_000)
def test_shown_text_is_printable_ascii_on_one_line_and_short(value):
    shown = show(value)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 200


@pytest.mark.parametrize(
    ("value", "shown"), [("a'b", '"a\'b"'), (True, "true"), (None, "null"), ({"a": [1.5]}, '{"a": [1.5]}')]
)
def test_text_is_quoted_and_other_values_stand_as_json_writes_them(value, shown):
    assert show(value) == shown


def test_a_long_text_keeps_its_lines_and_letters_and_loses_what_a_terminal_would_obey():
    assert shown_text("a\n\tb é 漢 " + "c" * 500) == "a\n\tb é 漢 " + "c" * 500
    assert shown_text("\x1b[2J\r\x07\u202e\x85") == r"\x1b[2J\r\x07\u202e\x85"


def test_a_long_list_is_shown_by_its_first_twenty_and_a_count():
    assert show_all(range(20)) == [str(n) for n in range(20)]
    assert show_all(range(1025))[19:] == ["19", "and 1,005 more"]


@pytest.mark.parametrize(
    ("word", "suffix"),
    [("lama", " (did you mean 'llama'?)"), ("LLAMA", " (did you mean 'llama'?)"), ("zzzz", "")],
)
def test_the_closest_known_word_is_suggested_and_a_far_one_is_not(word, suffix):
    assert did_you_mean(word, ["llama", "GPT"]) == suffix


def test_a_suggestion_keeps_the_case_of_the_known_word():
    assert did_you_mean("gptmtpforcausallm", ["GPTMTPForCausalLM"]) == " (did you mean 'GPTMTPForCausalLM'?)"


def test_a_single_fault_brings_its_own_hint():
    error = faults_error([Fault(("a", 0), "is 3", "make it 4")], where="f", error=WmtpError, hint="general")
    assert str(error) == "f: a.0 is 3\nhint: make it 4"


def test_several_faults_stand_one_to_a_line_each_with_its_hint():
    faults = [Fault(("a",), "is 3", "make it 4"), Fault((), "is odd")]
    error = faults_error(faults, where="f", error=WmtpError, hint="general")
    assert str(error) == "f: 2 faults\n  a is 3; make it 4\n  is odd\nhint: general"


def test_the_first_twenty_of_many_faults_are_listed_and_the_rest_counted():
    error = faults_error([Fault((n,), "is bad") for n in range(1030)], where="f", error=WmtpError, hint="h")
    assert error.problem == "f: 1,030 faults"
    assert error.faults[19:] == ("19 is bad", "and 1,010 more")


def test_foreign_keys_in_a_faults_path_are_shown_escaped():
    assert str(Fault(("a\x1b[2J", "b"), "is bad")) == "a\\x1b[2J.b is bad"


def test_a_strict_model_is_frozen_and_takes_no_substitute_type():
    class Point(StrictModel):
        x: int

    with pytest.raises(ValueError, match="valid integer"):
        Point(x="1")
    with pytest.raises(ValueError, match="frozen"):
        Point(x=1).x = 2


@pytest.mark.parametrize(
    "name", ["config.json", "model-00001-of-00002.safetensors", "sub/dir/file", "naïve.json", "with space.txt", "a..b"]
)
def test_a_plain_relative_name_is_allowed(name):
    assert relative_name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "is empty or longer than 1024 characters"),
        ("a" * 1025, "is empty or longer than 1024 characters"),
        ("/etc/passwd", "is an absolute path"),
        ("..", "has the part '..' in it"),
        ("a/../../b", "has the part '..' in it"),
        ("a/./b", "has the part '.' in it"),
        ("a//b", "has the part '' in it"),
        ("a/", "has the part '' in it"),
        (".ssh/id", "has a hidden part (leading dot)"),
        ("a/.hidden", "has a hidden part (leading dot)"),
        ("a" + BACKSLASH + "b", "has a backslash in it"),
        ("C:x", "has a colon in it"),
        ("s3://b/k", "has the part '' in it"),
        ("file:x", "has a colon in it"),
        ("%2e%2e/x", "has a percent sign in it"),
        ("~root/x", "has a tilde in it"),
        ("a\0b", "has an unprintable character in it"),
        ("a\nb", "has an unprintable character in it"),
        ("a\u202eb", "has an unprintable character in it"),
        ("a\udc80b", "has an unprintable character in it"),
        ("e\u0301.json", "has text that is not in Unicode's NFC form in it"),
    ],
)
def test_a_name_that_some_system_reads_as_more_than_a_name_is_refused(name, fault):
    assert relative_name_fault(name) == fault


@given(st.text(st.sampled_from("a./\\~:%\0\u0301é "), max_size=12) | st.text())
def test_an_allowed_name_never_leaves_its_directory(name):
    if relative_name_fault(name) is not None:
        return
    from pathlib import PurePosixPath, PureWindowsPath

    for path in (PurePosixPath("/root") / name, PureWindowsPath("C:/root") / name):
        assert path.relative_to(path.parents[-2]).as_posix() == name
        assert ".." not in path.parts
