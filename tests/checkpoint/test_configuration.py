import json

import pytest

from checkpoints import metadata_document
from wmtp.checkpoint.configuration import check_declaration, read_config
from wmtp.errors import CheckpointError, MetadataError, NotFoundError, StorageError, TrustError
from wmtp.metadata.schema import ModelMetadata
from wmtp.storage.opening import open_store

KERNEL = "someone/kernel"


def read(directory, name="config.json", **document):
    if name != "config.json":
        (directory / "config.json").write_text("{}")
    (directory / name).write_text(json.dumps(document))
    return read_config(open_store(directory))


def contradiction(config, strategy=None, **fields):
    metadata = ModelMetadata.model_validate_json(json.dumps(metadata_document(strategy, **fields)))
    with pytest.raises(MetadataError) as caught:
        check_declaration(metadata, config, where="models/a")
    assert "load the checkpoint these weights came from" in caught.value.hint
    return caught.value


def accept(config, strategy=None, **fields):
    metadata = ModelMetadata.model_validate_json(json.dumps(metadata_document(strategy, **fields)))
    check_declaration(metadata, config, where="models/a")


def test_a_plain_configuration_is_returned_as_it_stands(tmp_path):
    harmless = {"model_type": "llama", "_attn_implementation_autoset": True, "auto_map": None, "hidden_size": 8}
    assert read(tmp_path, **harmless) == harmless


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoModel": "modeling.Model"}),
        ("trust_remote_code", True),
        ("trust_remote_code", 1),
        ("attn_implementation", KERNEL),
        ("_attn_implementation", KERNEL),
        ("_attn_implementation_internal", KERNEL),
        ("experts_implementation", KERNEL),
        ("quantization_config", {"quant_method": "gptq"}),
        ("attribute_map", {"harmless": "_attn_implementation_internal"}),
        ("sub_configs", {}),
        ("backbone", KERNEL),
        ("use_pretrained_backbone", True),
        ("__class__", "x"),
    ],
)
def test_a_key_that_picks_code_kernels_or_a_format_is_refused(tmp_path, key, value):
    with pytest.raises(TrustError) as caught:
        read(tmp_path, model_type="llama", **{key: value})
    assert caught.value.problem.startswith(f"{tmp_path}/config.json: {key} = ")
    assert "a checkpoint may not set this" in caught.value.problem
    assert "remove" in caught.value.hint


def test_refused_keys_are_found_in_the_configuration_of_a_sub_model(tmp_path):
    with pytest.raises(TrustError) as caught:
        read(
            tmp_path, text_config={"model_type": "llama", "rope": {"attn_implementation": KERNEL}}, auto_map={"A": "b"}
        )
    assert f"text_config.rope.attn_implementation = '{KERNEL}', auto_map = " in caught.value.problem


def test_refused_keys_are_found_in_lists_as_well(tmp_path):
    with pytest.raises(TrustError, match=r"layers\.1\.auto_map = "):
        read(tmp_path, layers=[{}, {"auto_map": {"AutoModel": "x.Y"}}])


@pytest.mark.parametrize("key", ["vocab_file", "merges_file", "tokenizer_file", "fast_tokenizer_files", "source_spm"])
def test_tokenizer_settings_may_not_name_files(tmp_path, key):
    with pytest.raises(TrustError, match=rf"tokenizer_config\.json: {key} = "):
        read(tmp_path, "tokenizer_config.json", **{key: "../../etc/passwd"})


def test_what_tokenizer_settings_often_hold_is_let_through(tmp_path):
    usual = {"special_tokens_map_file": "/root/.cache/special_tokens_map.json", "vocab_file": None}
    read(tmp_path, "tokenizer_config.json", **usual, name_or_path="/root/model", use_fast=True)


def test_a_refused_value_is_shown_without_terminal_escapes(tmp_path):
    with pytest.raises(TrustError) as caught:
        read(tmp_path, **{"x\x1b[2J": {"auto_map": "\x1b[31m\nerror: all is well"}})
    assert "\x1b" not in str(caught.value)
    assert caught.value.problem.count("\n") == 0


def test_tokenizer_and_generation_settings_may_not_name_code_either(tmp_path):
    for name in ("tokenizer_config.json", "generation_config.json"):
        with pytest.raises(TrustError, match=rf"{name}: auto_map = "):
            read(tmp_path, name, auto_map={"AutoTokenizer": ["tok.Tok", None]})
        (tmp_path / name).unlink()


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    with pytest.raises(TrustError, match=r"adapter_config\.json: an adapter beside the weights") as caught:
        read(tmp_path, "adapter_config.json", peft_type="LORA")
    assert "merge the adapter" in caught.value.hint


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "\\u0061": 2}', "has the key 'a' twice"),
        ('{"a": NaN}', "NaN"),
        ("[]", r"expected a JSON object"),
        ("version https://git-lfs.github.com/spec/v1", "this is a Git LFS pointer, not the file itself"),
        ("\ufeff{}", "byte order mark"),
    ],
)
def test_every_small_file_is_read_as_strict_json(tmp_path, name, text, fault):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{name}: .*{fault}"):
        read_config(open_store(tmp_path))


def test_a_configuration_has_at_most_a_mebibyte_and_a_tokenizers_may_have_more(tmp_path):
    large = {"text": "x" * (1 << 20)}
    assert read(tmp_path, "tokenizer_config.json", **large) == {}
    with pytest.raises(StorageError, match=r"config\.json: 1,048,\d\d\d bytes, more than the 1,048,576 allowed"):
        read(tmp_path, **large)


def test_a_missing_configuration_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"config\.json: no such file"):
        read_config(open_store(tmp_path))


def test_a_directory_or_an_outward_link_in_place_of_the_configuration_is_refused(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    path = tmp_path / "checkpoint" / "config.json"
    (tmp_path / "secret.json").write_text("{}")
    path.symlink_to("../secret.json")
    with pytest.raises(StorageError, match=r"config\.json: a symbolic link to "):
        read_config(open_store(tmp_path / "checkpoint"))
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError, match=r"config\.json: not a regular file"):
        read_config(open_store(tmp_path / "checkpoint"))


def test_a_contradicted_architecture_is_refused_with_both_values():
    error = contradiction({"model_type": "gpt2"})
    assert error.problem == (
        "models/a/metadata.json: base_architecture is 'llama', but config.json has model_type 'gpt2'"
    )
    accept({})
    accept({"model_type": None})


@pytest.mark.parametrize(
    "config",
    [
        {"n_future_tokens": 2},
        {"num_future_tokens": 2},
        {"mtp_config": {"n_future_tokens": 2}},
        {"mtp_config": {"num_future_tokens": 2}},
    ],
)
@pytest.mark.parametrize(
    ("field", "declared"),
    [
        ("mtp.n_future_tokens", {"mtp": {"n_future_tokens": 4}}),
        ("horizon", {"horizon": 4}),
        ("n_heads", {"n_heads": 4}),
    ],
)
def test_a_contradicted_number_of_heads_is_refused_with_both_fields(config, field, declared):
    error = contradiction(config, **declared)
    assert f"{field} is 4, but config.json has " in error.problem
    assert "future_tokens 2" in error.problem
    accept(config)
    accept(config, **json.loads(json.dumps(declared).replace("4", "2")))


@pytest.mark.parametrize(("found", "shown"), [(True, "true"), (1.0, "1.0"), ("1", "'1'"), ([1], "[1]")])
def test_what_only_looks_like_a_number_of_heads_is_not_one(found, shown):
    error = contradiction({"n_future_tokens": found}, mtp={"n_future_tokens": 1})
    assert error.problem.endswith(f"mtp.n_future_tokens is 1, but config.json has n_future_tokens {shown}")


def test_a_contradicted_type_of_heads_is_refused_with_both_fields():
    config = {"mtp_config": {"n_future_tokens": 4, "head_type": "resblock"}}
    error = contradiction(config, mtp={"n_future_tokens": 4, "head_type": "linear"})
    assert error.problem == (
        "models/a/metadata.json: mtp.head_type is 'linear', but config.json has mtp_config.head_type 'resblock'"
    )
    accept(config, mtp={"n_future_tokens": 4, "head_type": "resblock"})
    accept(config, mtp={"n_future_tokens": 4})
    accept({"mtp_config": {"n_future_tokens": 4}}, mtp={"n_future_tokens": 4, "head_type": "linear"})


def test_all_contradictions_are_named_at_once():
    error = contradiction({"model_type": "gpt2", "n_future_tokens": 2, "mtp_config": {"n_future_tokens": 3}}, horizon=4)
    assert [fault.split(": ", 1)[1] for fault in (error.problem, *error.faults)] == [
        "base_architecture is 'llama', but config.json has model_type 'gpt2'",
        "horizon is 4, but config.json has n_future_tokens 2",
        "horizon is 4, but config.json has mtp_config.n_future_tokens 3",
    ]


def test_on_a_transformers_class_the_heads_describe_the_run_and_are_not_checked():
    strategy = {"loader_type": "huggingface", "model_class_name": None, "transformers_class": "AutoModelForCausalLM"}
    accept({"n_future_tokens": 2}, strategy, horizon=4, n_heads=3)
