"""The strict JSON reader against the standard library, read raw."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from fuzz.documents import is_strict_json, json_bytes, values
from fuzz.target import fuzz_target
from wmtp.errors import CheckpointError, FormatError, MetadataError
from wmtp.untrusted import JSONFault, parse_json, parse_json_object


@fuzz_target(250)
@given(json_bytes())
@example(b"[" * 64 + b"]" * 64)
@example(b"[" * 65 + b"]" * 65)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000 + b"0" + b"}" * 100_000)
@example(b'{"a":{"b":0,"\\u0062":0}}')
@example(b'["\\ud800\\udc00","\\udc00"]')
@example(b'"' + b"\\" * 99_999)
@example(b'"[' + b'\\"[' * 99 + b'"')
@example(b"[-" + b"9" * 39 + b"]")
@example(b"[" + b"9" * 5000 + b"]")
@example(b'[-0,0,-0.0,{"-0":-0}]')
def test_exactly_the_texts_that_an_independent_judge_finds_strict_are_read_and_as_they_stand(data):
    event("strict" if is_strict_json(data) else "not strict")
    if not is_strict_json(data):
        with pytest.raises(JSONFault) as caught:
            parse_json(data)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400
        return
    value = parse_json(data)
    # By repr: 1, 1.0 and True are equal, and the order of an object's members counts.
    assert repr(value) == repr(as_written(data))
    assert repr(parse_json(json.dumps(value).encode())) == repr(value)


def as_written(data: bytes) -> Any:
    # A minus sign makes zero a floating number, as for JavaScript and for the safetensors library.
    return json.loads(data, parse_int=lambda digits: -0.0 if digits == "-0" else int(digits))


@fuzz_target()
@given(json_bytes() | values.map(lambda value: json.dumps({"a": value}).encode()))
def test_the_reader_of_objects_gives_an_object_or_the_callers_error_that_names_the_file(data):
    is_object = is_strict_json(data) and isinstance(json.loads(data), dict)
    for error in (MetadataError, FormatError, CheckpointError):
        if is_object:
            assert parse_json_object(data, where="a/x.json", error=error) == json.loads(data)
            continue
        with pytest.raises(error) as caught:
            parse_json_object(data, where="a/x.json", error=error)
        assert type(caught.value) is error
        assert caught.value.problem.startswith("a/x.json: ")
        assert caught.value.problem.isprintable()
        assert caught.value.hint


@fuzz_target(50)
@given(json_bytes(), st.integers(0, 40))
def test_a_text_over_the_limit_is_refused_whatever_it_holds(data, limit):
    if len(data) > limit:
        with pytest.raises(JSONFault, match=f"is larger than {limit} bytes"):
            parse_json(data, max_bytes=limit)
    elif is_strict_json(data):
        assert parse_json(data, max_bytes=limit) == json.loads(data)
