"""Nothing is guessed, and nothing is left random: what does not fit is refused by name."""

from __future__ import annotations

import json

import pytest
import torch

import wmtp
from checkpoints import change_metadata, change_tensors, write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from wmtp.errors import (
    CheckpointError,
    IncompatibleModelError,
    IntegrityError,
    MetadataError,
    PlanError,
    SettingsError,
    TrustError,
    UnknownNameError,
)
from wmtp.manifest import sha256_bytes


def test_a_missing_tensor_is_named_and_nothing_is_left_random(place, saved):
    directory, _ = saved("llama")
    change_tensors(directory, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(PlanError, match="1 missing") as refusal:
        place.load_model(directory)
    assert "missing: no tensor for model.norm.weight in model.safetensors" in refusal.value.faults


def test_missing_unexpected_and_misshapen_tensors_are_all_named_at_once(place, saved):
    directory, _ = saved("llama")

    def change(tensors):
        del tensors["model.norm.weight"]
        tensors["model.extra.weight"] = torch.zeros(3)
        tensors["model.embed_tokens.weight"] = torch.zeros(95, 32)

    change_tensors(directory, change)
    with pytest.raises(PlanError, match="1 missing, 1 unexpected, 1 unfit") as refusal:
        place.plan_load(directory)
    assert "unexpected: no parameter for model.extra.weight in model.safetensors" in refusal.value.faults
    assert "model.embed_tokens.weight is [95, 32] in model.safetensors, the model has [96, 32]" in str(refusal.value)


def test_an_integer_tensor_for_a_floating_parameter_is_refused(place, saved):
    directory, _ = saved("llama")
    change_tensors(directory, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int32)}))
    with pytest.raises(PlanError, match=r"model\.norm\.weight is I32 in model\.safetensors, the model has F32"):
        place.load_model(directory)


def test_a_causal_lm_offered_as_a_trunk_is_refused_with_the_lines_to_add(place, saved):
    directory, _ = saved("llama", tie_word_embeddings=False, strategy={"transformers_class": "AutoModel"})
    with pytest.raises(PlanError) as refusal:
        place.load_model(directory)
    assert '{"remove_prefix": "model.", "allow_unexpected": ["lm_head.weight"]}' in refusal.value.hint


def test_two_stored_copies_of_a_tied_tensor_must_be_equal(place, saved):
    directory, _model = saved("llama", tie_word_embeddings=True)
    change_tensors(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    loaded = place.load_model(directory)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    change_tensors(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    with pytest.raises(IntegrityError, match=r"'lm_head\.weight' differs from the tensor that the model ties it to"):
        place.load_model(directory)


def test_a_class_that_transformers_does_not_export_is_refused_with_the_nearest_name(place, saved):
    directory, _ = saved("llama", strategy={"transformers_class": "AutoModelForCausalLMs"})
    with pytest.raises(MetadataError, match=r"transformers_class is 'AutoModelForCausalLMs'") as refusal:
        place.load_model(directory)
    assert "did you mean 'AutoModelForCausalLM'?" in refusal.value.hint


def test_an_unknown_built_in_class_names_both_fields(place, saved):
    directory, _ = saved("llama")
    change_metadata(directory, loader_type="custom_mtp", transformers_class=None, model_class_name="MTPForCausalLn")
    with pytest.raises(UnknownNameError, match="model_class_name is 'MTPForCausalLn'") as refusal:
        place.load_model(directory)
    assert "custom_module_file is null" in refusal.value.problem
    assert "did you mean 'MTPForCausalLM'?" in refusal.value.hint


def test_a_config_that_cannot_build_the_model_is_refused_by_file(place, saved):
    directory, _ = saved("llama")
    config = json.loads((directory / "config.json").read_text()) | {"hidden_act": "no-such-activation"}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json: .*no-such-activation"):
        place.load_model(directory)


def test_what_a_class_of_ours_refuses_names_the_file_even_of_a_directory_with_one_letter(tmp_path, monkeypatch):
    write_mtp_checkpoint(tmp_path / "m", tiny_mtp())
    document = json.loads((tmp_path / "m" / "metadata.json").read_text())
    document["mtp"] = {"n_future_tokens": 3, "kind": "sequential"}
    (tmp_path / "m" / "metadata.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"^m/metadata.json: mtp.kind is 'sequential'"):
        wmtp.plan_load("m")


def test_a_model_that_does_not_declare_the_algorithm_is_refused(place, saved):
    directory, _ = saved("llama")
    with pytest.raises(IncompatibleModelError, match="algorithm_compatibility lacks 'rho1-wmtp', it has: baseline-mtp"):
        place.load_model(directory, algorithm="rho1-wmtp")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dtype": "bf16"}, CheckpointError, "did you mean 'bfloat16'"),
        ({"allow_code": True}, TrustError, "consent is given by hash"),
        ({"device": "gpu"}, CheckpointError, "device is 'gpu'"),
        ({"device": "cuda:0"}, CheckpointError, "device is 'cuda:0', and torch .* finds none here"),
        ({"device_map": "auto"}, TypeError, "unexpected keyword argument 'device_map'"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_is_read(tmp_path, monkeypatch, options, error, text):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=text):
        wmtp.load_model(tmp_path / "nowhere", **options)


def test_a_loader_without_an_address_needs_exactly_one_configured_model():
    with pytest.raises(SettingsError, match=r"paths\.models\.base names 0 models"):
        wmtp.StandardizedModelLoader().load_model()


def test_planning_reads_headers_only_and_promises_what_loading_does(place, saved, monkeypatch):
    directory, _ = saved("llama", shards=True)
    promised = place.plan_load(directory)
    receipt = place.load(directory).receipt
    assert [a.names[0] for a in promised.assignments] == [p.name for p in receipt.parameters]
    assert promised.bytes_to_read == receipt.num_bytes
    assert promised.num_parameters == sum(p.numel() for p in place.load_model(directory).parameters())


def test_a_tokenizer_is_made_of_the_checked_files_and_of_no_others(place, tmp_path):
    directory = write_llama_checkpoint(tmp_path / "model")
    lock = {"tokenizer.json": sha256_bytes((directory / "tokenizer.json").read_bytes())}
    (directory / "tekken.bin").write_text("not one of them")
    loaded = place.load(directory, lock=lock)
    tokenizer = loaded.tokenizer
    assert tokenizer.name_or_path == loaded.receipt.uri
    assert tokenizer.decode(tokenizer("def add(a, b):").input_ids) == "def add(a, b):"
    (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "AutoProcessor"}')
    with pytest.raises(TrustError, match="which is no tokenizer"):
        _ = place.load(directory).tokenizer
