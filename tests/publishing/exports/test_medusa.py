import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PhiConfig

import wmtp
from checkpoints import write_custom, write_mtp_checkpoint
from tiny_models import tiny_mtp, tokens
from wmtp.errors import CheckpointError
from wmtp.loaders.standardized import load
from wmtp.models.mtp import MTPForCausalLM
from wmtp.publishing.exports.medusa import medusa_heads
from wmtp.publishing.exports.medusa_readers import check_reference, check_vllm

SHARED = {"shared_unembedding": True}
FORMS = [("linear", {}), ("resblock", {"num_blocks": 2}), ("resblock", {"block_bias": True}), ("resblock", SHARED)]
every_form = pytest.mark.parametrize(("head_type", "options"), FORMS)


def exported(tmp_path, model, to):
    write_mtp_checkpoint(tmp_path / "mtp", model)
    wmtp.export(tmp_path / "mtp", tmp_path / "trunk", to="transformers")
    wmtp.export(tmp_path / "mtp", tmp_path / "heads", to=to)
    trunk = AutoModelForCausalLM.from_pretrained(tmp_path / "trunk").eval()
    return trunk, json.loads((tmp_path / "heads" / "config.json").read_text())


def silu_block(x, weight, bias):
    z = x @ weight.T + (0 if bias is None else bias)
    return x + z * torch.sigmoid(z)


@every_form
@torch.no_grad()
def test_vllm_drafts_from_the_exported_trunk_what_the_model_predicts(tmp_path, head_type, options):
    model, ids = tiny_mtp(head_type=head_type, options=options), tokens(2, 8)
    trunk, config = exported(tmp_path, model, "vllm-medusa")
    tensors = load_file(tmp_path / "heads" / "model.safetensors")
    for i in range(config["num_heads"]):
        hidden = trunk.model(ids).last_hidden_state
        for j in range(config["num_hidden_layers"]):
            name = f"blocks.{i}.layers.{j}"
            hidden = silu_block(hidden, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"))
        head = tensors["lm_head.weight" if config["original_lm_head"] else f"lm_heads.{i}.weight"]
        torch.testing.assert_close(hidden @ head.T, model(ids).logits[:, :, i + 1], rtol=1e-4, atol=1e-4)
    assert config["num_heads"] == 2


@every_form
@torch.no_grad()
def test_the_reference_drafts_from_the_exported_trunk_what_the_model_predicts(tmp_path, head_type, options):
    model, ids = tiny_mtp(head_type=head_type, options=options), tokens(2, 8)
    trunk, config = exported(tmp_path, model, "medusa")
    tensors = load_file(tmp_path / "heads" / "medusa_lm_head.safetensors")
    num_layers = config["medusa_num_layers"]
    for i in range(config["medusa_num_heads"]):
        hidden = trunk.model(ids).last_hidden_state
        for j in range(num_layers):
            hidden = silu_block(hidden, tensors[f"{i}.{j}.linear.weight"], tensors[f"{i}.{j}.linear.bias"])
        logits = F.linear(hidden, tensors[f"{i}.{num_layers}.weight"])
        torch.testing.assert_close(logits, model(ids).logits[:, :, i + 1], rtol=1e-4, atol=1e-4)


def test_the_configuration_that_vllm_reads_has_nothing_of_the_trunk(tmp_path):
    _, config = exported(tmp_path, tiny_mtp(head_type="resblock", heads=4, options=SHARED), "vllm-medusa")
    assert config == {
        "model_type": "medusa", "architectures": ["MedusaModel"], "hidden_size": 32, "vocab_size": 64,
        "truncated_vocab_size": 64, "num_heads": 3, "num_hidden_layers": 1, "medusa_fc_bias": False,
        "original_lm_head": True,
    }  # fmt: skip


def test_the_configuration_of_the_reference_names_no_architecture(tmp_path):
    _, config = exported(tmp_path, tiny_mtp(head_type="linear", heads=4), "medusa")
    assert (config["medusa_num_heads"], config["medusa_num_layers"]) == (3, 1)
    assert config["base_model_name_or_path"] == str(tmp_path / "mtp")
    assert "architectures" not in config


def with_biased_unembedding():
    config = PhiConfig(num_hidden_layers=1, hidden_size=32, vocab_size=64, num_attention_heads=4)
    config.mtp_config = {"n_future_tokens": 2, "head_type": "linear"}
    return MTPForCausalLM(config)


@pytest.mark.parametrize("target", ["medusa", "vllm-medusa"])
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (tiny_mtp, "its heads are of the type 'transformer', which Medusa does not have"),
        (lambda: tiny_mtp(heads=1, head_type="linear"), "it has no head but the next-token head"),
        (with_biased_unembedding, "the unembedding of head 2 has a bias, and Medusa's has none"),
    ],
)
def test_what_medusa_has_no_place_for_is_refused_and_nothing_written(tmp_path, make, problem, target):
    write_mtp_checkpoint(tmp_path / "mtp", make())
    with pytest.raises(CheckpointError, match=problem):
        wmtp.export(tmp_path / "mtp", tmp_path / "new" / "heads", to=target)
    assert not (tmp_path / "new").exists()


def test_a_class_of_its_own_is_refused_by_name(tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    with pytest.raises(CheckpointError, match="loads as ToyModel, and Medusa reads heads of the class MTPForCausalLM"):
        wmtp.export(tmp_path / "toy", tmp_path / "heads", to="medusa", allow_code=consent)


class CappedHead(nn.Module):
    def __init__(self, unembedding):
        super().__init__()
        self.unembedding = unembedding

    def forward(self, hidden):
        return 30 * torch.tanh(hidden / 30)


def test_logits_that_a_reader_would_not_have_are_refused(tmp_path):
    loaded = load(write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(head_type="linear", logit_scale=None)))
    assert len(medusa_heads(loaded)) == 2
    loaded.checkpoint.config["final_logit_softcapping"] = 30.0
    loaded.model.heads["3"] = CappedHead(loaded.model.heads["3"].unembedding)
    with pytest.raises(CheckpointError, match="the logits of head 3 are not those of its blocks") as caught:
        medusa_heads(loaded)
    assert "in config.json final_logit_softcapping is 30.0" in caught.value.problem


def rename(tensors, old, new):
    tensors[new] = tensors.pop(old)


@pytest.mark.parametrize(
    ("to", "file", "check", "old"),
    [
        ("vllm-medusa", "model.safetensors", check_vllm, "lm_heads.1.weight"),
        ("medusa", "medusa_lm_head.safetensors", check_reference, "1.0.linear.bias"),
    ],
)
def test_a_tensor_that_a_reader_would_skip_in_silence_is_named(tmp_path, to, file, check, old):
    exported(tmp_path, tiny_mtp(head_type="linear"), to)
    check(tmp_path / "heads")
    tensors = load_file(tmp_path / "heads" / file)
    rename(tensors, old, "lm_head.9.weight")
    save_file(tensors, tmp_path / "heads" / file)
    with pytest.raises(CheckpointError, match="2 of its parts are not what its readers look for") as caught:
        check(tmp_path / "heads")
    assert any(old in fault and "is None" in fault for fault in caught.value.faults)
