"""What is said of transformers is what transformers does, with a tiny Mellum that is whole or in want of a tensor."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MellumConfig, MellumForCausalLM
from transformers.modeling_layers import MtpModel

from wmtp.errors import CheckpointError

_SIZES = {
    "vocab_size": 16,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "mlp_layer_types": ["dense"] * 2,
    "num_mtp_layers": 1,
    "mtp_layer_types": ["full_attention"],
    "mtp_mlp_layer_types": ["dense"],
}


def write_mellum(directory, lacking=""):
    """A Mellum as it is released: transformers saves the trunk, and the module is a layer of it under other names."""
    MellumForCausalLM(MellumConfig(**_SIZES)).save_pretrained(directory)
    tensors = load_file(directory / "model.safetensors")
    layer = {name: tensor for name, tensor in tensors.items() if name.startswith("model.layers.1.")}
    norms = {f"mtp.{part}.weight": torch.ones(32) for part in ("pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")}
    block = {name.replace("model.layers.1.", "mtp.layers.0."): tensor.clone() for name, tensor in layer.items()}
    module = {"mtp.fc.weight": torch.zeros(32, 64), **norms, **block}
    module.pop(lacking, None)
    save_file({**tensors, **module}, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def test_a_whole_module_is_loaded(tmp_path, verdict):
    directory = write_mellum(tmp_path)
    assert verdict(directory, "transformers").num_modules == 1
    assert MtpModel.from_pretrained(MellumForCausalLM.from_pretrained(directory)).num_mtp_layers == 1


@pytest.mark.parametrize("lacking", ["mtp.fc.weight", "mtp.norm.weight", "mtp.layers.0.self_attn.q_proj.weight"])
def test_a_module_in_want_of_a_tensor_is_refused_by_both(lacking, tmp_path, verdict):
    directory = write_mellum(tmp_path, lacking)
    with pytest.raises(CheckpointError, match=lacking):
        verdict(directory, "transformers")
    with pytest.raises(RuntimeError, match="weights are missing"):
        MtpModel.from_pretrained(MellumForCausalLM.from_pretrained(directory))


def test_what_save_pretrained_leaves_behind_is_told(tmp_path, refusal):
    directory = write_mellum(tmp_path / "whole")
    MellumForCausalLM.from_pretrained(directory).save_pretrained(tmp_path / "saved")
    count = json.loads((tmp_path / "saved/config.json").read_text())["num_nextn_predict_layers"]
    assert count == 1
    said = refusal(tmp_path / "saved", "transformers")
    assert "num_nextn_predict_layers is 1, and no tensor of a module is there" in said
