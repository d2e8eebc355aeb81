import math

import pytest
import torch
import torch.nn.functional as F
from transformers import CohereConfig, Gemma2Config, GraniteConfig, HyperCLOVAXConfig, MiniCPM3Config

from tiny_models import HEAD_TYPES, around, tiny_config, tokens
from wmtp.errors import CheckpointError
from wmtp.models.mtp import MTPForCausalLM

_LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
_TEXT = _LLAMA | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
GRANITE = GraniteConfig(**_TEXT, logits_scaling=3.0)
CHANGED = (
    CohereConfig(**_TEXT, logit_scale=0.3),
    GRANITE,
    Gemma2Config(**_TEXT, final_logit_softcapping=0.5),
    MiniCPM3Config(**_LLAMA, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16,
                   qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, dim_model_base=10),
)  # fmt: skip
both_heads = pytest.mark.parametrize("head_type", HEAD_TYPES)


@pytest.mark.parametrize("config", CHANGED, ids=lambda config: config.model_type)
@both_heads
def test_heads_on_a_trunk_that_changes_its_logits_change_theirs_alike(config, head_type):
    model, ids = around(config, head_type), tokens(2, 9)
    with torch.no_grad():
        expected, plain = model.trunk(ids).logits, F.linear(model.forward_heads(ids)[0], *model.unembedding(1))
        logits = model(ids).logits
    assert not torch.allclose(plain, expected, rtol=1e-3)  # else nothing would be shown
    for k in range(2):
        assert torch.equal(logits[:, :, k], expected)


@pytest.mark.parametrize("config", CHANGED, ids=lambda config: config.model_type)
def test_the_loss_is_that_of_changed_logits(config):
    model, ids = around(config, "transformer"), tokens(2, 9)
    logits = model.trunk(ids).logits
    expected = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    output = model(ids, labels=ids, with_top1=True)
    torch.testing.assert_close(output.ce[:, :-1, 0], expected)
    assert torch.equal(output.top1[:, :-1, 0], logits[:, :-1].argmax(-1) == ids[:, 1:])
    weight = model.unembedding(1)[0]
    gradients = [torch.autograd.grad(ce.sum(), weight)[0] for ce in (output.ce[:, :, 0], expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_how_a_factor_is_applied_is_asked_of_the_trunk_and_recorded():
    multiplied, divided = around(HyperCLOVAXConfig(**_TEXT, logits_scaling=3.0)), around(GRANITE)
    assert multiplied.config.mtp_config["scaling"] == "multiply"
    assert "scaling" not in divided.config.mtp_config
    again, ids = MTPForCausalLM(multiplied.config).eval(), tokens(1, 6)
    again.load_state_dict(multiplied.state_dict())
    with torch.no_grad():
        assert torch.equal(again(ids).logits[:, :, 0], multiplied.trunk(ids).logits)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits_scaling": "8"}, "logits_scaling is '8', expected a finite number other than 0"),
        ({"logits_scaling": 0}, "logits_scaling is 0, expected a finite number other than 0"),
        ({"logits_scaling": math.inf}, "logits_scaling is Infinity, expected a finite number"),
        ({"logits_soft_cap": -3.0}, "logits_soft_cap is -3.0, expected a soft cap above 0"),
        ({"logit_scale": 2.0, "logits_scaling": 3.0}, "logit_scale and logits_scaling are given, and both change"),
    ],
)
def test_a_change_of_logits_that_is_no_number_to_apply_is_refused(changes, message):
    config = tiny_config("llama")
    config.update(changes)
    config.mtp_config = {"n_future_tokens": 2, "head_type": "linear"}
    with torch.device("meta"), pytest.raises(CheckpointError, match="the trunk's configuration: ") as caught:
        MTPForCausalLM(config)
    assert message in caught.value.problem
