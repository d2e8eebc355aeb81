import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effort import times_as_long
from wmtp.errors import MetadataError, NotFoundError, StorageError
from wmtp.metadata.file import (
    METADATA_FILE,
    dump_metadata,
    load_metadata,
    metadata_json_schema,
    parse_metadata,
    write_metadata,
)
from wmtp.metadata.schema import ModelMetadata

DOCUMENT = {
    "wmtp_type": "base_model",
    "training_algorithm": "mtp",
    "base_architecture": "gpt2",
    "storage_version": "2.0",
    "loading_strategy": {
        "loader_type": "custom_mtp",
        "model_class_name": "GPTMTPForCausalLM",
        "custom_module_file": "modeling.py",
        "transformers_class": None,
        "state_dict_mapping": {"remove_prefix": "base_model.", "add_prefix": None, "key_transforms": {}},
        "required_files": ["config.json", "model.safetensors", "modeling.py"],
    },
    "algorithm_compatibility": ["baseline-mtp", "critic-wmtp", "rho1-wmtp"],
}


def parse(document) -> ModelMetadata:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_metadata(data, where="m.json")


def refusal(document) -> MetadataError:
    with pytest.raises(MetadataError) as caught:
        parse(document)
    return caught.value


def test_the_document_of_the_specification_is_read_field_by_field():
    metadata = parse(DOCUMENT)
    assert metadata.loading_strategy.model_class_name == "GPTMTPForCausalLM"
    assert metadata.loading_strategy.state_dict_mapping.remove_prefix == "base_model."
    assert metadata.algorithm_compatibility == ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]
    assert metadata.num_heads is None


def test_a_file_written_is_the_file_read(tmp_path):
    extra = {"note": None, "nested": [1, 2.5, {"ключ": "значение"}], "emoji": "\N{GRINNING FACE}"}
    metadata = parse({"$schema": "./schema.json", **DOCUMENT, "extra": extra, "provenance": {"loss": None}})
    path = write_metadata(tmp_path, metadata)
    assert load_metadata(tmp_path) == metadata
    assert path.read_text() == dump_metadata(metadata)
    assert list(tmp_path.iterdir()) == [path]


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(), max_size=5))
def test_whatever_stands_under_extra_survives_writing_and_reading(extra):
    metadata = parse({**DOCUMENT, "extra": extra})
    assert metadata.extra == extra
    assert parse(dump_metadata(metadata).encode()) == metadata


def test_fields_are_written_in_the_order_of_the_format():
    written = json.loads(dump_metadata(parse(dict(reversed(DOCUMENT.items())))))
    assert list(written) == list(DOCUMENT)


def test_a_mapping_with_a_fault_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(MetadataError, match="wmtp_type is 'mtp_model'"):
        write_metadata(tmp_path, {**DOCUMENT, "wmtp_type": "mtp_model"})
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_could_not_be_read_back_is_not_written(tmp_path):
    metadata = parse(DOCUMENT).model_copy(update={"created_by": "\ud800"})
    with pytest.raises(MetadataError, match="is not UTF-8 at byte"):
        write_metadata(tmp_path, metadata)
    assert list(tmp_path.iterdir()) == []


def test_a_measured_value_that_is_no_number_is_written_as_null(tmp_path):
    metadata = parse(DOCUMENT).model_copy(update={"provenance": {"loss": float("nan")}})
    write_metadata(tmp_path, metadata)
    assert load_metadata(tmp_path).provenance == {"loss": None}


def test_a_file_that_cannot_be_written_leaves_the_old_one_and_no_rest(tmp_path):
    (tmp_path / METADATA_FILE).mkdir()
    with pytest.raises(StorageError, match=r"metadata\.json: "):
        write_metadata(tmp_path, DOCUMENT)
    assert [path.name for path in tmp_path.iterdir()] == [METADATA_FILE]
    with pytest.raises(StorageError, match="No such file or directory"):
        write_metadata(tmp_path / "absent", DOCUMENT)


def test_a_directory_without_metadata_points_to_the_command_that_drafts_it(tmp_path):
    with pytest.raises(NotFoundError) as caught:
        load_metadata(tmp_path)
    assert caught.value.problem == f"{tmp_path}/metadata.json: no such file"
    assert caught.value.hint == f"draft one with 'wmtp init {tmp_path}'"


def _declare(directory):
    directory.mkdir()
    write_metadata(directory, DOCUMENT)


def _hint_for(directory):
    with pytest.raises(NotFoundError) as caught:
        load_metadata(directory)
    return caught.value.hint


def test_whoever_names_a_run_is_told_its_checkpoints_with_the_result_first(tmp_path):
    for name in ("step-4", "final"):
        _declare(tmp_path / name)
    assert _hint_for(tmp_path) == f"name one of the checkpoints in it: {tmp_path}/final, {tmp_path}/step-4"
    for number in range(3):
        _declare(tmp_path / f"step-{number}")
    assert _hint_for(tmp_path).endswith(f"{tmp_path}/step-2, …")


def test_heads_alone_and_other_layouts_are_not_told_to_be_drafted(tmp_path):
    (tmp_path / "params.json").write_text("{}")
    assert f"'wmtp convert {tmp_path} DST'" in _hint_for(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "medusa"}')
    assert f"'wmtp validate {tmp_path} --for vllm'" in _hint_for(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert _hint_for(tmp_path) == f"draft one with 'wmtp init {tmp_path}'"


def test_an_oversized_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / METADATA_FILE).open("wb") as file:
        file.truncate(50 << 30)
    with pytest.raises(StorageError, match=r"metadata\.json: 53,687,091,200 bytes, more than the 1,048,576 allowed"):
        load_metadata(tmp_path)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"\xef\xbb\xbf{}", "m.json: begins with a byte order mark"),
        (b"not json", "m.json: is not JSON: Expecting value at line 1, column 1"),
        (b"[]", "m.json: is [], expected a JSON object"),
        (
            b'{"wmtp_type": "x", "wmtp\\u005ftype": "y"}',
            "m.json: has the key 'wmtp_type' twice in one object, at wmtp_type",
        ),
        (b'{"extra": {"loss": NaN}}', "m.json: has the value NaN, which is not JSON, at extra.loss"),
        (b'{"horizon": 1' + b"0" * 4300 + b"}", "m.json: has an integer of 4301 digits, at horizon"),
        (b'{"created_by": "\\udfff"}', "m.json: has a lone surrogate in a string, at created_by"),
        (
            b'{"extra":' * 65 + b"1" + b"}" * 65,
            "m.json: is nested deeper than 64 levels, at " + ".".join(["extra"] * 8),
        ),
        (b'{"extra": "' + b" " * (1 << 20) + b'"}', "m.json: is larger than 1,048,576 bytes"),
    ],
)
def test_text_that_is_not_strict_json_is_refused_by_file_and_reason(data, problem):
    assert refusal(data).problem == problem


@pytest.mark.parametrize(
    ("version", "found"), [(None, "missing"), ("1.0", "'1.0'"), (2.0, "2.0"), (2, "2"), ({"a": []}, '{"a": []}')]
)
def test_an_older_storage_version_or_none_points_to_upgrade(version, found):
    error = refusal({**DOCUMENT, "storage_version": version})
    assert error.problem == f"m.json: storage_version is {found}, this version of wmtp reads '2.0'"
    assert "wmtp upgrade" in error.hint


def test_an_older_file_hears_of_its_version_and_not_of_all_that_changed_since():
    error = refusal({"wmtp_type": "mtp_native", "model_path": "x"})
    assert error.problem == "m.json: storage_version is missing, this version of wmtp reads '2.0'"
    assert error.faults == ()


def test_all_faults_of_a_file_are_told_at_once_each_with_its_path():
    document = copy.deepcopy(DOCUMENT)
    strategy = document["loading_strategy"]
    document["wmtp_typ"] = document.pop("wmtp_type")
    document["horizon"] = True
    strategy["loader_type"] = "custom-mtp"
    strategy["transformers_class"] = "transformers.AutoModel"
    strategy["state_dict_mapping"]["key_transforms"] = {"h.(": "x", "a": r"\2"}
    strategy["required_files"] = ["config.json", "../config.json", "config.json"]
    error = refusal(document)
    assert error.problem == "m.json: 8 faults"
    assert [fault.split("; ")[0] for fault in error.faults] == [
        "wmtp_type is missing",
        "loading_strategy.loader_type is 'custom-mtp'",
        "loading_strategy.transformers_class is 'transformers.AutoModel', which is not the plain name of a class",
        "loading_strategy.state_dict_mapping.key_transforms has 'h.(', which is not an RE2 pattern: 'missing ): h.('",
        "loading_strategy.state_dict_mapping.key_transforms has the replacement '\\\\2', but 'a' has no group 2",
        "loading_strategy.required_files.1 is '../config.json', which has the part '..' in it",
        "horizon is true: input should be a valid integer",
        "wmtp_typ is not a known field (did you mean 'wmtp_type'?)",
    ]
    assert error.faults[1].endswith("; use one of 'custom_mtp', 'huggingface' (did you mean 'custom_mtp'?)")


def test_a_file_of_a_mebibyte_full_of_faults_is_refused_with_the_first_twenty_for_the_price_of_some_honest_ones():
    unknown = {f"wmtp_{n:x}": 0 for n in range(60_000)}
    errors = []
    honest = json.dumps({**DOCUMENT, "extra": unknown}).encode()
    ratio = times_as_long(
        lambda: errors.append(refusal({**DOCUMENT, **unknown})), lambda: parse_metadata(honest, where="m.json")
    )
    assert ratio < 100
    error = errors[0]
    assert error.problem == "m.json: 60,000 faults"
    assert error.faults[-1] == "and 59,980 more"
    assert len(error.faults) == 21


def test_foreign_text_in_a_fault_is_shown_escaped_and_cut():
    error = refusal({**DOCUMENT, "wmtp_type": "\x1b[2J" + "x" * 1000, "\x1b[31m": 1})
    assert str(error).count("\x1b") == 0
    assert all(len(line) < 400 for line in str(error).splitlines())


def test_the_json_schema_describes_every_field_and_refuses_unknown_ones():
    schema = metadata_json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert {*DOCUMENT, "$schema", "horizon", "n_heads", "mtp", "tokenizer", "files", "extra"} <= set(
        schema["properties"]
    )
    assert set(schema["required"]) == set(DOCUMENT)


def test_rules_that_are_empty_are_not_written():
    metadata = parse_metadata(json.dumps(DOCUMENT).encode(), where="x")
    strategy = json.loads(dump_metadata(metadata))["loading_strategy"]
    assert strategy["state_dict_mapping"] == {"remove_prefix": "base_model."}
    assert next(iter(strategy)) == "loader_type"
    empty = {**DOCUMENT, "loading_strategy": {**DOCUMENT["loading_strategy"], "state_dict_mapping": {}}}
    plain = parse_metadata(json.dumps(empty).encode(), where="x")
    assert "state_dict_mapping" not in json.loads(dump_metadata(plain))["loading_strategy"]
    assert parse_metadata(dump_metadata(plain).encode(), where="x") == plain
