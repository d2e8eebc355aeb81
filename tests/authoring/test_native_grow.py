"""A native module is grown in the layout of a family, and refused for trunks of others."""

import json

import pytest
import torch

import wmtp
from native_files import write_vision_language
from native_models import plain
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.errors import CheckpointError
from wmtp.serving.check import check_serving
from wmtp.serving.table import PROGRAMS


def save_stripped(directory, family):
    model = plain(family).eval()
    model.config.num_nextn_predict_layers = model.config.mtp_num_hidden_layers = 0
    model.save_pretrained(directory)
    init_metadata(directory)
    return model


@pytest.mark.parametrize(("family", "tensor"), [("mimo", "model.mtp_layers.0.input_proj"), ("qwen3_5", "mtp.fc")])
def test_a_grown_module_has_the_layout_of_its_family(family, tensor, tmp_path):
    source = save_stripped(tmp_path / "plain", family)
    grow(tmp_path / "plain", tmp_path / "grown", heads=2, head_type="deepseek")
    model, ids = wmtp.load_model(tmp_path / "grown").eval(), torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits[:, :, 0], source(ids).logits)
    config = json.loads((tmp_path / "grown/config.json").read_text())
    assert 1 in (config["num_nextn_predict_layers"], config["mtp_num_hidden_layers"])
    assert f"{tensor}.weight".encode() in (tmp_path / "grown/model.safetensors").read_bytes()


def test_another_trunk_is_refused_by_name(tmp_path):
    save_stripped(tmp_path / "plain", "mellum")
    with pytest.raises(CheckpointError, match="model_type is 'mellum', and native modules are grown for 'qwen2'"):
        grow(tmp_path / "plain", tmp_path / "grown", heads=2, head_type="deepseek")
    assert not (tmp_path / "grown").exists()


def test_a_module_on_a_text_model_out_of_a_larger_one_is_written_as_servers_read_it(tmp_path):
    text = write_vision_language(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()  # of more tokens than the model has
    init_metadata(tmp_path / "m", "Qwen3_5ForCausalLM")
    grow(tmp_path / "m", tmp_path / "grown", heads=2, head_type="deepseek")
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        assert torch.equal(wmtp.load_model(tmp_path / "grown")(ids).logits[:, :, 0], text.eval()(ids).logits[:, :, 0])
    config = json.loads((tmp_path / "grown/config.json").read_text())
    assert (config["model_type"], config["mtp_num_hidden_layers"]) == ("qwen3_5_text", 1)
    assert check_serving(tmp_path / "grown", PROGRAMS["vllm"])[1].num_modules == 1
