import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmtp.errors import MetadataError
from wmtp.metadata.file import parse_metadata
from wmtp.untrusted import relative_name_fault

CUSTOM = {
    "wmtp_type": "base_model",
    "training_algorithm": "mtp",
    "base_architecture": "gpt2",
    "storage_version": "2.0",
    "loading_strategy": {
        "loader_type": "custom_mtp",
        "model_class_name": "MTPForCausalLM",
        "required_files": ["config.json", "model.safetensors"],
    },
    "algorithm_compatibility": ["baseline-mtp"],
}
HUGGING_FACE = {
    **CUSTOM,
    "wmtp_type": "reference_model",
    "training_algorithm": "baseline",
    "base_architecture": "llama",
    "loading_strategy": {
        "loader_type": "huggingface",
        "transformers_class": "AutoModelForCausalLM",
        "required_files": ["config.json", "model.safetensors"],
    },
}
REMOVED = object()


def changed(document, path, value):
    """A copy with one value set, or removed, at a dotted path; missing objects on the way are made."""
    document = copy.deepcopy(document)
    *parents, last = path.split(".")
    place = document
    for part in parents:
        place = place.setdefault(part, {})
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return document


def parse(document):
    return parse_metadata(json.dumps(document).encode(), where="m.json")


def refusal(document) -> MetadataError:
    with pytest.raises(MetadataError) as caught:
        parse(document)
    return caught.value


@pytest.mark.parametrize("path", [*CUSTOM, "loading_strategy.loader_type", "loading_strategy.required_files"])
def test_a_required_field_that_is_missing_is_named(path):
    assert f"{path} is missing" in refusal(changed(CUSTOM, path, REMOVED)).problem


@pytest.mark.parametrize(
    ("path", "value", "problem", "hint"),
    [
        ("wmtp_type", "mtp_model", "wmtp_type is 'mtp_model'", "use one of 'base_model', 'reference_model', 'reward_"),
        ("wmtp_type", "base_modl", "wmtp_type is 'base_modl'", "did you mean 'base_model'?"),
        ("training_algorithm", "ppo", "training_algorithm is 'ppo'", "use one of 'mtp', 'baseline', 'critic', 'rho1'"),
        ("base_architecture", "", "base_architecture is '', which is not an identifier", "wmtp schema metadata"),
        ("base_architecture", "gpt2\n", "base_architecture is 'gpt2\\n', which is not an identifier", ""),
        ("base_architecture", "a/b", "base_architecture is 'a/b', which is not an identifier", ""),
        ("base_architecture", None, "base_architecture is null: input should be a valid string", ""),
        ("algorithm_compatibility", "baseline-mtp", "is 'baseline-mtp': input should be a valid array", ""),
        ("algorithm_compatibility", ["rho1"], "algorithm_compatibility.0 is 'rho1'", "did you mean 'rho1-wmtp'?"),
        ("algorithm_compatibility", ["a; b"], "algorithm_compatibility.0 is 'a; b'", "use one of 'baseline-mtp'"),
        ("loading_strategy", [], "loading_strategy is []: input should be an object", ""),
        ("loading_strategy.loader_type", "custom-mtp", "loader_type is 'custom-mtp'", "did you mean 'custom_mtp'?"),
        ("loading_strategy.loader_typ", "x", "loader_typ is not a known field (did you mean 'loader_type'?)", ""),
        ("loading_strategy.required_files", [], "required_files is []: list should have at least 1 item", ""),
        ("loading_strategy.required_files", ["a", "b", "a"], "required_files names a file twice: 'a'", ""),
        ("horizon", True, "horizon is true: input should be a valid integer", ""),
        ("horizon", 0, "horizon is 0: input should be greater than or equal to 1", ""),
        ("horizon", 4.0, "horizon is 4.0: input should be a valid integer", ""),
        ("n_heads", "4", "n_heads is '4': input should be a valid integer", ""),
        ("mtp.n_future_tokens", False, "mtp.n_future_tokens is false: input should be a valid integer", ""),
        ("mtp", {}, "mtp.n_future_tokens is missing", ""),
        ("mtp", {"n_future_tokens": 4, "head_type": "medusa"}, "mtp.head_type is 'medusa'", "'resblock', 'deepseek'"),
        ("mtp", {"n_future_tokens": 4, "kind": "parallel"}, "mtp.kind is 'parallel'", "'parallel_heads'"),
        ("mtp", {"n_future_token": 4, "n_future_tokens": 4}, "mtp.n_future_token is not a known field", ""),
        ("tokenizer", {"sha256": "AB" * 32}, "tokenizer.sha256 is 'ABAB", "wmtp schema metadata"),
        ("tokenizer", {"sha256": "ab" * 32, "vocab_size": 0}, "tokenizer.vocab_size is 0", ""),
        ("files", [{"path": "a", "size": -1, "sha256": "0" * 64}], "files.0.size is -1", ""),
        ("files", [{"path": "/a", "size": 1, "sha256": "0" * 64}], "files.0.path is '/a', which is an absolute", ""),
        ("model_size", 7, "model_size is 7: input should be a valid string", ""),
        ("extra", "text", "extra is 'text': input should be an object", ""),
        ("extras", {}, "extras is not a known field (did you mean 'extra'?)", ""),
        ("schema_", "x", "schema_ is not a known field (did you mean '$schema'?)", ""),
    ],
)
def test_a_value_that_the_format_does_not_know_is_refused_by_path_and_value(path, value, problem, hint):
    error = refusal(changed(CUSTOM, path, value))
    assert error.problem.startswith("m.json: ")
    assert problem in error.problem
    assert hint in error.hint


@pytest.mark.parametrize(
    ("document", "path", "value", "problem"),
    [
        (CUSTOM, "model_class_name", REMOVED, "model_class_name is missing, and loader_type 'custom_mtp' needs it"),
        (CUSTOM, "transformers_class", "AutoModel", "transformers_class is 'AutoModel', and loader_type 'custom_mtp'"),
        (CUSTOM, "model_class_name", "a.B", "model_class_name is 'a.B', which is not the plain name of a class"),
        (CUSTOM, "model_class_name", "__class__", "model_class_name is '__class__', which is not the plain name"),
        (CUSTOM, "custom_module_file", "model.so", "custom_module_file is 'model.so', which is not a plain ASCII name"),
        (CUSTOM, "custom_module_file", "../m.py", "custom_module_file is '../m.py', which has the part '..' in it"),
        (HUGGING_FACE, "transformers_class", REMOVED, "transformers_class is missing, and loader_type 'huggingface'"),
        (HUGGING_FACE, "model_class_name", "X", "model_class_name is 'X', and loader_type 'huggingface' has no use"),
        (HUGGING_FACE, "custom_module_file", "m.py", "custom_module_file is 'm.py', and loader_type 'huggingface'"),
    ],
)
def test_each_strategy_gets_the_fields_it_needs_and_no_others(document, path, value, problem):
    error = refusal(changed(document, f"loading_strategy.{path}", value))
    assert error.problem.startswith(f"m.json: loading_strategy.{problem}")


def test_two_missing_things_of_a_strategy_are_told_together():
    document = changed(CUSTOM, "loading_strategy.model_class_name", REMOVED)
    document = changed(document, "loading_strategy.required_files", [])
    assert refusal(document).problem == "m.json: 2 faults"


@pytest.mark.parametrize(
    ("transforms", "problem"),
    [
        ({"h(": "x"}, "key_transforms has 'h(', which is not an RE2 pattern: 'missing ): h('"),
        ({"(?=x)": "y"}, "which is not an RE2 pattern"),
        ({r"(a)\1": "y"}, "which is not an RE2 pattern"),
        ({"a{2000}": "y"}, "which is not an RE2 pattern"),
        ({r"\pL{1,100}": "y"}, "which is not an RE2 pattern: 'pattern too large - compile failed'"),
        ({"h": r"\1"}, "key_transforms has the replacement '\\\\1', but 'h' has no group 1"),
        ({r"(h)(\d)": r"\1.\3"}, "has no group 3"),
        ({"h": r"\0"}, "where a backslash is followed by neither 1-9 nor a backslash"),
        ({"h": r"\g<1>"}, "where a backslash is followed by neither 1-9 nor a backslash"),
        ({"h": "x\\"}, "where a backslash is followed by neither 1-9 nor a backslash"),
        ({"h" * 1025: "x"}, "has a rule longer than 1024 bytes: 'hhh"),
        ({"h": "ü" * 513}, "has a rule longer than 1024 bytes: 'h'"),
        ({f"h{n}": "x" for n in range(257)}, "key_transforms has 257 rules, at most 256 are allowed"),
        ({"h": 1}, "key_transforms.h is 1: input should be a valid string"),
    ],
)
def test_a_transform_that_could_not_work_is_refused_while_parsing(transforms, problem):
    error = refusal(changed(CUSTOM, "loading_strategy.state_dict_mapping.key_transforms", transforms))
    assert error.problem.startswith("m.json: loading_strategy.state_dict_mapping.key_transforms")
    assert problem in error.problem


def test_groups_escaped_backslashes_and_file_order_are_kept():
    transforms = {r"^h\.(\d+)\.(.*)$": r"layers.\1.\2", "a": r"\\1", "": "x"}
    document = changed(CUSTOM, "loading_strategy.state_dict_mapping.key_transforms", transforms)
    parsed = parse(document).loading_strategy.state_dict_mapping.key_transforms
    assert list(parsed.items()) == list(transforms.items())


def test_without_re2_transforms_are_refused_and_other_files_still_read(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    assert parse(CUSTOM)
    document = changed(CUSTOM, "loading_strategy.state_dict_mapping.key_transforms", {"a": "b"})
    assert "key_transforms needs the package google-re2" in refusal(document).problem


@pytest.mark.parametrize("field", ["allow_missing", "allow_unexpected"])
@pytest.mark.parametrize(
    ("globs", "problem"),
    [([""], ".0 is '': string should have at least 1 char"), (["*"] * 257, "list should have at most 256 items")],
    ids=["empty", "too many"],
)
def test_globs_are_bounded_in_number_and_never_empty(field, globs, problem):
    error = refusal(changed(CUSTOM, f"loading_strategy.state_dict_mapping.{field}", globs))
    assert field in error.problem
    assert problem in error.problem


@pytest.mark.parametrize("field", ["remove_prefix", "add_prefix"])
def test_an_empty_prefix_is_refused_and_null_means_none(field):
    path = f"loading_strategy.state_dict_mapping.{field}"
    assert f"{field} is ''" in refusal(changed(CUSTOM, path, "")).problem
    assert getattr(parse(changed(CUSTOM, path, None)).loading_strategy.state_dict_mapping, field) is None


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"horizon": 4, "n_heads": 5}, "m.json: n_heads is 5, but horizon is 4"),
        ({"horizon": 4, "mtp": {"n_future_tokens": 3}}, "m.json: mtp.n_future_tokens is 3, but horizon is 4"),
        ({"n_heads": 2, "mtp": {"n_future_tokens": 3}}, "m.json: mtp.n_future_tokens is 3, but n_heads is 2"),
    ],
)
def test_head_counts_that_disagree_within_the_file_are_refused(fields, problem):
    assert refusal({**CUSTOM, **fields}).problem == problem


@pytest.mark.parametrize(
    ("document", "fields", "num_heads"),
    [
        (CUSTOM, {}, None),
        (CUSTOM, {"horizon": 4}, 4),
        (CUSTOM, {"n_heads": 3}, 3),
        (CUSTOM, {"horizon": 2, "n_heads": 2, "mtp": {"n_future_tokens": 2}}, 2),
        (HUGGING_FACE, {}, 1),
        (HUGGING_FACE, {"horizon": 4, "n_heads": 5}, 1),
    ],
)
def test_the_number_of_heads_is_what_the_file_says(document, fields, num_heads):
    # On a transformers class the older spellings describe the run that the model served.
    assert parse({**document, **fields}).num_heads == num_heads


def test_descriptive_fields_are_kept_as_they_are():
    fields = {"model_size": "7B", "created_by": "lab", "standardization_date": "2026", "original_format": "pt"}
    metadata = parse({**CUSTOM, **fields, "source_path": "/x", "dtype": "bfloat16", "provenance": {"steps": 3}})
    assert metadata.model_dump(include=set(fields)) == fields
    assert metadata.provenance == {"steps": 3}


@given(st.text(st.sampled_from("ab./\\~:%\0é "), max_size=10) | st.text())
def test_required_files_follow_the_one_path_rule(name):
    document = changed(CUSTOM, "loading_strategy.required_files", [name])
    fault = relative_name_fault(name)
    if fault is None:
        assert parse(document).loading_strategy.required_files == [name]
    else:
        assert f"which {fault}" in refusal(document).problem
