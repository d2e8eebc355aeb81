import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BloomConfig,
    BltConfig,
    BltForCausalLM,
    FalconConfig,
    Gemma3ForConditionalGeneration,
    OPTConfig,
    PhiConfig,
    Qwen2VLForConditionalGeneration,
)

from tiny_models import HEAD_TYPES, around, gemma3_config, qwen2_vl_config, tiny_config, tiny_mtp, tokens
from wmtp.errors import CheckpointError
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.parts import find_parts

_LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 64}
_TEXT = _LLAMA | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
BART = {"d_model": 32, "decoder_layers": 2, "encoder_layers": 2, "decoder_attention_heads": 4, "vocab_size": 64,
        "decoder_ffn_dim": 48, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}  # fmt: skip
both_heads = pytest.mark.parametrize("head_type", HEAD_TYPES)


def qwen2_vl():
    return Qwen2VLForConditionalGeneration(qwen2_vl_config()).eval()


def gemma3():
    return Gemma3ForConditionalGeneration(gemma3_config()).eval()


SEEING = [(qwen2_vl, "Qwen2VLForConditionalGeneration"), (gemma3, None)]


@pytest.mark.parametrize(
    ("config_class", "name"),
    [(BloomConfig, "h.1"), (OPTConfig, "decoder.layers.1"), (PhiConfig, "layers.1"), (FalconConfig, "h.1")],
)
def test_parts_are_found_in_architectures_that_nothing_names(config_class, name):
    config = config_class(num_hidden_layers=2, hidden_size=32, vocab_size=64, num_attention_heads=4)
    config.mtp_config = {"n_future_tokens": 2, "head_type": "transformer"}
    model, ids = MTPForCausalLM(config).eval(), tokens(2, 8)
    assert model._parts.last_layer.endswith(name)
    model.copy_next_token_head()
    with torch.no_grad():
        logits, expected = model(ids).logits, model.trunk(ids).logits
    assert torch.equal(logits[:, :, 0], expected)
    assert torch.equal(logits[:, :, 1], expected)


def test_a_trunk_without_a_list_of_layers_is_refused_by_name():
    config = tiny_config("llama")
    config.mtp_config = {"n_future_tokens": 2, "head_type": "transformer"}
    trunk = AutoModelForCausalLM.from_config(config)
    trunk.config.num_hidden_layers = 3
    with pytest.raises(CheckpointError, match="LlamaForCausalLM cannot be the trunk") as caught:
        find_parts(trunk)
    assert "it has 0 lists of 3 layers, expected one" in caught.value.problem


def test_an_unembedding_that_does_more_than_multiply_is_refused_by_name():
    class Scaled(torch.nn.Linear):
        def forward(self, hidden):
            return 2 * super().forward(hidden)

    trunk = AutoModelForCausalLM.from_config(tiny_config("llama"))
    trunk.lm_head = Scaled(32, 64)
    with pytest.raises(CheckpointError, match="its unembedding is a Scaled, which is no plain linear layer"):
        find_parts(trunk)


def test_a_norm_is_found_by_the_order_of_calls_and_not_by_its_name():
    """BART has a norm beside its layers too, but it is on the embeddings; Llama's is called something else here."""
    bart = around(BartConfig(**BART), "transformer")
    llama = tiny_mtp("llama")
    llama.trunk.model.after = llama.trunk.model.norm
    with torch.no_grad():
        bart(tokens(1, 5)), llama(tokens(1, 5))
    assert bart._path == ()
    assert llama._path == ("model.norm",)


def test_linear_heads_need_no_decoder_layers():
    config = tiny_config("llama")
    config.mtp_config = {"n_future_tokens": 2, "head_type": "linear"}
    trunk = AutoModelForCausalLM.from_config(config)
    trunk.model.layers = torch.nn.ModuleDict({"first": trunk.model.layers[0]})
    assert find_parts(trunk, with_layers=False).body == "model"
    with pytest.raises(CheckpointError, match="it has 0 lists of 2 layers"):
        find_parts(trunk)


def test_what_stands_behind_the_last_layer_in_a_way_of_its_own_is_refused():
    model = tiny_mtp("llama")
    norm = model.trunk.model.norm
    norm.register_forward_pre_hook(lambda _, args: (args[0] + 0,))
    with pytest.raises(CheckpointError, match="LlamaForCausalLM cannot have heads with a decoder layer") as caught:
        model(tokens(1, 4))
    assert "what its last layer answers becomes its hidden state in a way of its own" in caught.value.problem
    assert "wmtp grow --head-type linear" in caught.value.hint


@pytest.mark.parametrize(("build", "recorded"), SEEING)
@both_heads
def test_heads_stand_on_the_part_of_a_model_that_reads_text(build, recorded, head_type):
    trunk = build()
    model, ids = MTPForCausalLM.around(trunk, heads=3, head_type=head_type), tokens(2, 8)
    with torch.no_grad():
        logits, expected = model(ids).logits, trunk(ids).logits
    # Which class a configuration of such a model stands for differs; what is not the usual one is recorded.
    assert model.config.mtp_config.get("trunk_class") == recorded
    assert all(torch.equal(logits[:, :, k], expected) for k in range(3))
    with torch.device("meta"):
        again = MTPForCausalLM(model.config)
    assert list(again.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LlamaForCausalLMM", "which is no model class of transformers"),
        ("AutoModel", "which is no model class of transformers"),
        ("GPT2LMHeadModel", "and the configuration is of the model_type 'llama'"),
    ],
)
def test_a_trunk_class_that_does_not_fit_is_named(name, message):
    config = tiny_config("llama")
    config.mtp_config = {"n_future_tokens": 2, "head_type": "linear", "trunk_class": name}
    with pytest.raises(CheckpointError, match=f"mtp_config.trunk_class is '{name}', {message}"):
        MTPForCausalLM(config)


def test_layers_that_a_configuration_does_not_count_are_not_looked_for():
    with torch.device("meta"):
        trunk = BltForCausalLM(BltConfig())
    with pytest.raises(CheckpointError, match="its configuration does not say how many decoder layers it has"):
        find_parts(trunk)
    assert find_parts(trunk, with_layers=False).body == "model"
