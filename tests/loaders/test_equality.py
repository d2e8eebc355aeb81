"""A loaded model is the model that was saved, bit for bit, and the one that `from_pretrained` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import transformers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPTJConfig,
    GPTJForCausalLM,
    PreTrainedModel,
)

import wmtp
from checkpoints import metadata_document
from wmtp.loaders.huggingface import _keep_in_float32

IDS = torch.randint(0, 96, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("shards", [False, True], ids=["single", "shards"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_loaded_outputs_equal_those_of_plain_construction_and_of_from_pretrained(
    place, saved, architecture, tied, shards, dtype
):
    directory, model = saved(architecture, dtype=dtype, shards=shards, tie_word_embeddings=tied)
    expected = model(IDS).logits
    loaded = place.load_model(directory)
    assert torch.equal(loaded(IDS).logits, expected)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(directory)(IDS).logits, expected)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) is tied
    assert loaded.training is False


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral"])
def test_buffers_that_are_not_in_the_checkpoint_equal_those_of_plain_construction(place, saved, architecture):
    directory, _model = saved(architecture, dtype=torch.bfloat16)
    loaded = dict(place.load_model(directory).named_buffers())
    for name, buffer in AutoModelForCausalLM.from_pretrained(directory).named_buffers():
        assert torch.equal(loaded[name], buffer), name
        assert loaded[name].dtype == buffer.dtype, name


def save_other(directory: Path, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Save a model of another architecture, and return what `from_pretrained` makes of it."""
    model.save_pretrained(directory)
    kind = type(model).__name__
    strategy = {"loader_type": "huggingface", "transformers_class": kind, "model_class_name": None}
    document = metadata_document(strategy, base_architecture=model.config.model_type)
    (directory / "metadata.json").write_text(json.dumps(document))
    expected = getattr(transformers, kind).from_pretrained(directory, dtype="auto")
    return {**expected.state_dict(), **dict(expected.named_buffers())}


def check_equal(directory: Path, expected: dict[str, torch.Tensor]) -> None:
    loaded = wmtp.load_model(directory)
    found = {**loaded.state_dict(), **dict(loaded.named_buffers())}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        assert torch.equal(found[name], values), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_tables_of_positions_are_computed_in_float32_whatever_is_stored(tmp_path, dtype):
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64, "vocab_size": 64, "rotary_dim": 16}
    model = GPTJForCausalLM(GPTJConfig(**sizes, bos_token_id=1, eos_token_id=2)).to(dtype)
    check_equal(tmp_path, save_other(tmp_path, model))


def test_buffers_that_an_architecture_keeps_in_float32_lose_no_bit():
    class Keeping(GPTJForCausalLM):
        _keep_in_fp32_modules_strict: ClassVar = ["bias_of_experts"]

    model = Keeping(GPTJConfig(n_embd=8, n_layer=1, n_head=2, n_positions=8, vocab_size=8, rotary_dim=4))
    model.register_buffer("bias_of_experts", torch.ones(3, dtype=torch.bfloat16))
    model.register_buffer("number_of_bias_of_experts", torch.ones(3, dtype=torch.int64))
    model.register_buffer("other", torch.ones(3, dtype=torch.bfloat16))
    _keep_in_float32(model, torch.bfloat16)
    assert [buffer.dtype for buffer in (model.bias_of_experts, model.number_of_bias_of_experts, model.other)] == [
        torch.float32,
        torch.int64,
        torch.bfloat16,
    ]


def test_infinite_numbers_as_transformers_writes_them_are_read(place, saved):
    directory, _ = saved("llama")
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"extra_limit": [0.0, {"__float__": "Infinity"}]}))
    assert place.load_model(directory).config.extra_limit == [0.0, float("inf")]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_asking_for_a_dtype_casts_every_parameter_and_the_receipt_says_so(place, saved, dtype):
    directory, _ = saved("llama", dtype=torch.bfloat16)
    result = place.load(directory, dtype=dtype)
    expected = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
    assert torch.equal(result.model(IDS).logits, expected(IDS).logits)
    assert {p.stored_dtype for p in result.receipt.parameters} == {"BF16"}
    assert {p.loaded_dtype for p in result.receipt.parameters} == {{"float32": "F32", "float16": "F16"}[dtype]}


def test_writing_to_a_loaded_parameter_never_reaches_the_file(saved):
    directory, _ = saved("llama")
    before = (directory / "model.safetensors").read_bytes()
    model = wmtp.load_model(directory)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert (directory / "model.safetensors").read_bytes() == before


def test_private_memory_is_untouched_when_the_file_is_overwritten(saved):
    directory, model = saved("llama")
    loaded = wmtp.load_model(directory, mmap=False)
    file = directory / "model.safetensors"
    with file.open("r+b") as stream:
        stream.seek(-1024, 2)
        stream.write(b"\xff" * 1024)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_a_reward_head_loads_with_its_own_class(place, saved):
    directory, model = saved(
        "mistral",
        auto_class="AutoModelForSequenceClassification",
        num_labels=1,
        pad_token_id=0,
        strategy={"transformers_class": "AutoModelForSequenceClassification"},
    )
    loaded = place.load_model(directory)
    assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    assert torch.equal(AutoModelForSequenceClassification.from_pretrained(directory)(IDS).logits, model(IDS).logits)


def test_the_trunk_of_a_causal_lm_loads_once_the_metadata_says_how(place, saved):
    mapping = {"remove_prefix": "model.", "allow_unexpected": ["lm_head.weight"]}
    directory, model = saved(
        "llama",
        tie_word_embeddings=False,
        strategy={"transformers_class": "AutoModel", "state_dict_mapping": mapping},
    )
    result = place.load(directory)
    assert torch.equal(result.model(IDS).last_hidden_state, model.model(IDS).last_hidden_state)
    assert torch.equal(result.model(IDS).last_hidden_state, AutoModel.from_pretrained(directory)(IDS).last_hidden_state)
    assert result.receipt.left_unused == ("lm_head.weight",)


def test_a_parameter_that_may_be_missing_keeps_its_initial_value_and_stands_in_the_receipt(place, saved):
    directory, _ = saved(
        "llama",
        tie_word_embeddings=False,
        strategy={
            "transformers_class": "AutoModelForSequenceClassification",
            "state_dict_mapping": {"allow_missing": ["score.weight"], "allow_unexpected": ["lm_head.*"]},
        },
    )
    torch.manual_seed(5)
    result = place.load(directory)
    assert result.receipt.kept_initial == ("score.weight",)
    assert 0.3 < result.model.score.weight.std() < 0.7  # the class's own initialisation: initializer_range is 0.5


def test_every_parameter_of_the_model_stands_in_the_receipt_with_its_tensor(place, saved):
    directory, model = saved("gpt2", tie_word_embeddings=True)
    receipt = place.load(directory).receipt
    names = [name for p in receipt.parameters for name in (p.name, *p.tied)]
    assert sorted(names) == sorted(model.state_dict())
    assert [p.tied for p in receipt.parameters if p.tied] == [("lm_head.weight",)]


def test_generation_settings_come_along(place, saved):
    directory, _model = saved("llama")
    (directory / "generation_config.json").write_text('{"max_new_tokens": 7, "eos_token_id": 5}')
    assert place.load_model(directory).generation_config.max_new_tokens == 7
