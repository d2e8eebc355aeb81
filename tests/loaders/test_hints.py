"""Refusals say which key, file or tensor is at fault, and offer only what is known to be harmless."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import wmtp
from checkpoints import MODELING, change_config, change_metadata, change_tensors, write_custom
from code_files import write_code
from wmtp.errors import CheckpointError, PlanError, TrustError


def plan_refusal(directory):
    with pytest.raises(PlanError) as refusal:
        wmtp.plan_load(directory)
    return refusal.value


@pytest.mark.parametrize("size", [128, 64])
def test_another_vocabulary_size_than_the_embeddings_have_is_named_by_its_key(saved, size):
    directory, _ = saved("llama", tie_word_embeddings=False)
    change_config(directory, vocab_size=size)
    error = plan_refusal(directory)
    assert f"the model has [{size}, 32]; vocab_size in config.json is {size}, not 96" in error.faults[0]
    assert error.hint.startswith('write "vocab_size": 96 in config.json')


@pytest.mark.parametrize(
    ("key", "size"),
    [
        ("num_key_value_heads", 4),
        ("num_key_value_heads", 1),
        ("num_key_value_heads", None),
        ("num_attention_heads", 8),
        ("num_attention_heads", 2),
        ("head_dim", 16),
        ("head_dim", 4),
        ("hidden_size", 96),
    ],
)
def test_a_size_is_blamed_only_where_writing_the_other_one_makes_it_load(saved, key, size):
    directory, _ = saved("llama", tie_word_embeddings=False)
    right = json.loads((directory / "config.json").read_text())[key]
    change_config(directory, **{key: size})
    error = plan_refusal(directory)
    assert error.hint == f'write "{key}": {right} in config.json; or take the config.json of these weights'
    change_config(directory, **{key: right})
    wmtp.plan_load(directory)


def test_no_size_is_blamed_where_two_are_wrong_at_once(saved):
    directory, _ = saved("llama", tie_word_embeddings=False)
    change_config(directory, num_attention_heads=8, head_dim=16)
    error = plan_refusal(directory)
    assert "wrong shape: model.layers.0.self_attn.q_proj.weight is [32, 32]" in error.faults[0]
    assert "check model class and config.json against the files" in error.hint


def test_a_padding_token_outside_the_vocabulary_is_named_before_what_torch_says_of_it(saved):
    directory, _ = saved("llama")
    change_config(directory, pad_token_id=96)
    with pytest.raises(CheckpointError) as refusal:
        wmtp.plan_load(directory)
    said = "config.json: pad_token_id is 96, but vocab_size is 96, so that ids end at 95"
    assert refusal.value.problem.startswith(f"{directory}/{said}")
    assert "in LlamaModel.__init__ (transformers/models/llama/modeling_llama.py, line " in refusal.value.faults[0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"hidden_size": -32}, "hidden_size is -32, which is no size: model.embed_tokens.weight in model.safetensors"),
        ({"vocab_size": -5}, "vocab_size is -5, which is no size"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, which is no size"),
        ({"num_key_value_heads": "2"}, "num_key_value_heads is '2', which is no whole number"),
    ],
)
def test_a_size_of_which_nothing_can_be_made_is_named_by_its_key(saved, values, said):
    directory, _ = saved("llama")
    change_config(directory, **values)
    with pytest.raises(CheckpointError) as refusal:
        wmtp.plan_load(directory)
    assert refusal.value.problem.startswith(f"{directory}/config.json: {said}")


def test_another_number_of_layers_than_the_tensors_are_of_is_named_by_its_key(saved):
    directory, _ = saved("llama")
    change_config(directory, num_hidden_layers=3)
    assert plan_refusal(directory).hint == "in config.json num_hidden_layers is 3, but the tensors are of 2 layers"


def test_a_class_of_the_library_that_fails_is_named_with_its_file(saved):
    directory, _ = saved("llama")
    change_config(directory, hidden_act="no-such")
    with pytest.raises(CheckpointError, match=r"in LlamaMLP\.__init__ \(transformers/models/llama/modeling_llama\.py"):
        wmtp.plan_load(directory)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ("model.layers.1.self_attn.v_proj.lora_B.weight", "merge_and_unload"),
        ("model.layers.1.self_attn.v_proj.weight_scale_inv", "save them dequantised"),
        ("model.layers.1.self_attn.v_proj.weight_mask", "prune.remove"),
        ("model.layers.1.self_attn.v_proj.weight_extra", "a pair"),
        ("model.layers.1.odd", "nothing is known"),
    ],
)
def test_a_tensor_that_may_matter_is_never_offered_to_be_left_out(saved, added, said):
    directory, _ = saved("llama")
    change_tensors(directory, lambda tensors: tensors.update({added: torch.zeros(2)}))
    hint = plan_refusal(directory).hint
    assert said in hint
    assert '"allow_unexpected"' not in hint


def test_old_buffers_and_another_head_are_offered_to_be_left_out_and_then_it_loads(saved):
    directory, _ = saved("llama")
    added = {f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.ones(4) for n in range(2)}
    change_tensors(directory, lambda tensors: tensors.update({**added, "v_head.summary.weight": torch.ones(1, 32)}))
    offered = json.loads(plan_refusal(directory).hint.partition('"state_dict_mapping": ')[2])
    assert offered == {"allow_unexpected": ["model.layers.*.self_attn.rotary_emb.inv_freq", "v_head.summary.weight"]}
    change_metadata(directory, state_dict_mapping=offered)
    assert len(wmtp.plan_load(directory).left_unused) == 3


def test_a_mapping_is_not_offered_where_shapes_would_still_not_fit(saved):
    directory, _ = saved("llama")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(31)
    save_file({f"net.{name}": tensor for name, tensor in tensors.items()}, directory / "model.safetensors")
    assert "state_dict_mapping" not in plan_refusal(directory).hint


def test_a_missing_tensor_of_shards_names_the_index_that_was_looked_in(saved):
    directory, _ = saved("llama", shards=True)
    change_config(directory, num_hidden_layers=3)
    fault = plan_refusal(directory).faults[0]
    assert fault.endswith(".q_proj.weight in model.safetensors.index.json")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("raise ValueError('no good')", "ValueError: 'no good', in ToyModel.__init__ (modeling.py, line 27)"),
        ("nn.Linear(-1, 3)", "dimension -1: [3, -1]', in ToyModel.__init__ (modeling.py, line 27)"),
        ("Block()", "in Block.__init__ (modeling.py, line 36) of ToyModel.__init__ (modeling.py, line 27)"),
    ],
)
def test_a_class_of_the_checkpoint_that_fails_is_named_with_its_file_and_line(tmp_path, line, said):
    block = "\n\nclass Block(nn.Module):\n    def __init__(self):\n        1 / 0\n"
    write_custom(tmp_path / "toy")
    consent = write_code(tmp_path / "toy", MODELING.replace("# in __init__", line) + block)
    with pytest.raises(TrustError) as refusal:
        wmtp.load_model(tmp_path / "toy", allow_code=consent)
    assert refusal.value.problem.startswith(f"{tmp_path}/toy/modeling.py: the code raised ")
    assert said in refusal.value.problem
