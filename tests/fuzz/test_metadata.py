"""The parser of metadata.json: nothing is coerced, nothing is lost, and every refusal is one readable text."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

from checkpoints import metadata_document
from fuzz.documents import damaged, is_strict_json, values, with_a_repeated_key
from fuzz.target import fuzz_target
from wmtp.errors import MetadataError
from wmtp.metadata.file import dump_metadata, parse_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.untrusted import relative_name_fault

WHERE = "models/a/metadata.json"
HUGGINGFACE = {"loader_type": "huggingface", "transformers_class": "AutoModel", "model_class_name": None}
MAPPING = {
    "remove_prefix": "a.",
    "add_prefix": None,
    "key_transforms": {r"h\.(\d+)": r"l.\1", "": ""},
    "allow_missing": ["*.bias"],
    "allow_unexpected": ["head.*"],
}
FULL = {
    "$schema": "x",
    "horizon": 4,
    "n_heads": None,
    "mtp": {"kind": "sequential", "n_future_tokens": 4, "head_type": "linear"},
    "tokenizer": {"sha256": "0" * 64, "vocab_size": 5},
    "files": [{"path": "a/b", "size": 0, "sha256": "f" * 64}],
    "created_by": "someone",
    "provenance": {"seed": 1.0, "parents": [None]},
    "extra": {},
}
SOUND = [
    metadata_document(),
    metadata_document(HUGGINGFACE, wmtp_type="reward_model", training_algorithm="critic"),
    metadata_document({"custom_module_file": "modeling.py", "state_dict_mapping": MAPPING}, **FULL),
    metadata_document({**HUGGINGFACE, "state_dict_mapping": MAPPING}, **FULL),
]
# Copied, as a later change may reach into an earlier one.
ODD = values | st.sampled_from(
    [
        *("", "base_model", "2.0", "custom_mtp", "huggingface", "MTPForCausalLM", "__class__", "a.b", "4", "x" * 2000),
        *("modeling.py", "../m.py", "0" * 64, "F" * 64, 0, 1, -1, True, 1.0, 10**30, None, [], {}, [""]),
        *(["config.json"] * 2, ["baseline-mtp"], ["no-such"]),
        *({"(": ""}, {"a": "\\2"}, {"a": "\\"}, {"(a": "b", "(?=b)": ""}),
    ]
).map(copy.deepcopy)


sound_texts = st.sampled_from([json.dumps(document, indent=1).encode() for document in SOUND])


def lookalikes(value: Any) -> list[Any]:
    """Values of another type that a lenient reader would take for this one."""
    if isinstance(value, int):
        return [str(value), float(value), bool(value)]
    return [[value], f"{value} ", [*value] if isinstance(value, dict) else {"0": value}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A sound document with up to two values replaced, removed or added."""
    document = copy.deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        *parents, key = draw(st.sampled_from(list(places(document))))
        holder, change = at(document, tuple(parents)), draw(st.sampled_from(["replace", "resemble", "remove", "add"]))
        if change == "remove":
            del holder[key]
        elif change == "add" and isinstance(holder, dict):
            holder[draw(st.text(max_size=4))] = draw(ODD)
        elif change == "resemble":
            holder[key] = draw(st.sampled_from(lookalikes(holder[key])))
        else:
            holder[key] = draw(ODD)
    return document


def names_in(metadata: ModelMetadata) -> list[str]:
    strategy = metadata.loading_strategy
    own = [strategy.custom_module_file] if strategy.custom_module_file else []
    return [*strategy.required_files, *own, *(entry.path for entry in metadata.files or [])]


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@fuzz_target(250)
@given(documents(), st.booleans())
def test_a_document_is_read_without_changing_a_value_or_refused_with_all_its_faults(document, ascii_only):
    data = json.dumps(document, ensure_ascii=ascii_only).encode()
    try:
        metadata = parse_metadata(data, where=WHERE)
    except MetadataError as error:
        event("refused")
        check_refusal(error)
        return
    event("read")
    assert canonical(metadata.model_dump(mode="json", by_alias=True, exclude_unset=True)) == canonical(document)
    assert parse_metadata(dump_metadata(metadata).encode(), where=WHERE) == metadata
    assert not any(relative_name_fault(name) for name in names_in(metadata))


@fuzz_target(60)
@given(st.sampled_from(SOUND), st.data())
def test_a_sound_document_is_read_and_one_more_field_anywhere_is_refused_by_its_path(document, data):
    assert parse_metadata(json.dumps(document).encode(), where=WHERE)
    document = copy.deepcopy(document)
    strict = [(), ("loading_strategy",), ("mtp",), ("tokenizer",), ("loading_strategy", "state_dict_mapping")]
    path = data.draw(
        st.sampled_from([path for path in strict if not path or set(path) <= {p[-1] for p in places(document)}])
    )
    field = data.draw(st.from_regex(r"[a-z]{3,9}_x", fullmatch=True))
    at(document, path)[field] = data.draw(values)
    with pytest.raises(MetadataError) as caught:
        parse_metadata(json.dumps(document).encode(), where=WHERE)
    assert f"{'.'.join([*path, field])} is not a known field" in str(caught.value)


@fuzz_target()
@given(sound_texts.flatmap(damaged) | sound_texts.flatmap(with_a_repeated_key))
def test_a_text_with_changed_bytes_is_read_as_it_stands_or_refused(data):
    try:
        metadata = parse_metadata(data, where=WHERE)
    except MetadataError as error:
        check_refusal(error)
        return
    assert is_strict_json(data)
    found = metadata.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert canonical(found) == canonical(json.loads(data))


@fuzz_target(50)
@given(values, st.sampled_from(["storage_version", "wmtp_type", "loading_strategy", "algorithm_compatibility"]))
def test_a_required_field_with_any_other_value_is_refused_by_name(value, field):
    document = metadata_document() | {field: value}
    assume(value not in ("2.0", "base_model", "reference_model", "reward_model", []))
    with pytest.raises(MetadataError) as caught:
        parse_metadata(json.dumps(document).encode(), where=WHERE)
    assert field in str(caught.value)


def check_refusal(error: MetadataError) -> None:
    assert error.problem.startswith(f"{WHERE}: ")
    assert error.hint
    assert len(error.faults) <= 21
    lines = [error.problem, error.hint, *error.faults]
    assert all(line.isprintable() and len(line) < 1000 for line in lines), lines
