"""config.json against the headers, before anything is built."""

from __future__ import annotations

import pytest

from checkpoints import metadata_document, write_files
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.checkpoint.sizes import check_sizes, largest_size
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError

TENSORS = [TensorInfo("w", "F32", (128_256, 4096), "model.safetensors", 0, 4 * 128_256 * 4096)]


@pytest.mark.parametrize(
    "key",
    [
        *("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "num_attention_heads", "n_head" + "s"),
        *("vocab_size", "hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "head_dim", "kv_lora_dim"),
        *("num_local_experts", "n_future_tokens", "num_labels"),
    ],
)
def test_a_size_that_no_header_can_fill_is_refused_by_key(key):
    with pytest.raises(PlanError) as refusal:
        check_sizes({key: 10_000_000}, TENSORS, where="model")
    assert f"model/config.json: {key} is 10000000; the headers hold 1 tensors" in refusal.value.problem
    assert "no dimension of them is above 128,256" in refusal.value.problem


def test_sizes_of_sub_models_are_looked_at_and_all_faults_named_at_once():
    config = {
        "vocab_size": 10**9,
        "text_config": {"num_hidden_layers": 10**7},
        "mtp_config": {"n_future_tokens": 10**8},
    }
    with pytest.raises(PlanError) as refusal:
        check_sizes(config, TENSORS, where="model")
    for found in ("vocab_size is 1000000000", "text_config.num_hidden_layers is", "mtp_config.n_future_tokens is"):
        assert found in refusal.value.problem


@pytest.mark.parametrize(
    "config",
    [
        {"vocab_size": 128_256, "hidden_size": 4096, "num_hidden_layers": 32},
        {"max_position_embeddings": 10_485_760, "rope_theta": 500_000_000, "bos_token_id": 128_000},
        {"initializer_range": 1e9, "model_max_length": 10**30, "num_hidden_layers": True, "vocab_size": None},
        {"intermediate_size": 65_536, "id2label": {"0": "LABEL_0"}, "layer_types": ["full_attention"] * 3},
    ],
)
def test_what_honest_configurations_say_is_let_through(config):
    check_sizes(config, TENSORS, where="model")


def test_a_checkpoint_without_tensors_has_bounds_too():
    assert largest_size([]) == largest_size([]) > 0


def test_a_checkpoint_is_refused_before_torch_is_needed(tmp_path):
    config = {"model_type": "llama", "num_hidden_layers": 10**7}
    with pytest.raises(PlanError, match=r"config\.json: num_hidden_layers is 10000000"):
        open_checkpoint(write_files(tmp_path, metadata=metadata_document(), config=config))
