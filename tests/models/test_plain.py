"""A plain causal LM gives the losses and gradients of its logits without making them, or makes them."""

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    ElectraConfig,
    Gemma2Config,
    Gemma3ForConditionalGeneration,
    GraniteConfig,
    LlamaForCausalLM,
    OPTConfig,
)

from tiny_models import gemma3_config, tiny_config, tokens
from wmtp.models.adapter import trainable, unwrapped
from wmtp.models.foreign import LogitsModel
from wmtp.models.plain import PlainModel

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
OTHERS = {
    "gemma2": (Gemma2Config, {"final_logit_softcapping": 0.3, "num_key_value_heads": 2}),
    "granite": (GraniteConfig, {"logits_scaling": 3.0, "num_key_value_heads": 2}),
    "cohere": (CohereConfig, {"logit_scale": 0.25, "num_key_value_heads": 2}),
    "opt": (OPTConfig, {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
}


def plain(kind="llama", **of_config):
    torch.manual_seed(0)
    if kind in OTHERS:
        make, own = OTHERS[kind]
        return AutoModelForCausalLM.from_config(make(vocab_size=64, pad_token_id=0, **SHAPE, **own)).train()
    return AutoModelForCausalLM.from_config(tiny_config(kind, **of_config)).train()


def losses_and_gradients(wrapped, *, shares=None, **inputs):
    wrapped.loss_shares = shares
    wrapped.zero_grad(set_to_none=True)
    output = wrapped(labels=inputs["input_ids"], with_top1=True, **inputs)
    output.ce.sum().backward()
    return output, [parameter.grad for parameter in wrapped.parameters()]


def packed(count=2, length=12):
    return {"input_ids": tokens(count, length), "document_ids": torch.tensor([[0] * 5 + [1] * 7] * count)}


@pytest.mark.parametrize("shares", [None, (1.0,)])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", *OTHERS])
def test_losses_top1_and_gradients_are_those_of_the_logits(kind, shares):
    model = plain(kind).eval()  # no dropout
    found, of_found = losses_and_gradients(trainable(model), shares=shares, **packed())
    expected, of_expected = losses_and_gradients(LogitsModel(model, model.forward), **packed())
    assert not trainable(model).makes_logits()
    torch.testing.assert_close(found.ce, expected.ce)
    torch.testing.assert_close(of_found, of_expected)
    assert torch.equal(found.top1, expected.top1 & expected.valid)
    assert torch.equal(found.valid, expected.valid)


def test_no_logits_of_a_batch_are_made_and_names_and_mode_stay(monkeypatch):
    wrapped = trainable(model := plain())
    names = list(model.state_dict())
    wrapped(tokens(1, 4), labels=tokens(1, 4))
    monkeypatch.setattr(type(model), "forward", None)
    wrapped(tokens(2, 9), labels=tokens(2, 9)).ce.sum().backward()
    assert isinstance(wrapped, PlainModel)
    assert unwrapped(wrapped) is model
    assert model.training
    assert list(model.state_dict()) == names


def test_a_model_whose_class_ignores_a_cap_of_its_configuration_is_asked_and_not_believed():
    wrapped, ids = trainable(model := plain("llama", final_logit_softcapping=0.3)), tokens(2, 6)
    assert wrapped.makes_logits()
    torch.testing.assert_close(wrapped(ids, labels=ids).ce, trainable(plain())(ids, labels=ids).ce)
    assert unwrapped(wrapped) is model


def test_a_model_that_sees_is_asked_for_its_logits_since_it_reads_some_tokens_otherwise():
    wrapped, ids = trainable(Gemma3ForConditionalGeneration(gemma3_config())), tokens(1, 6)
    assert type(wrapped) is LogitsModel
    assert wrapped(ids, labels=ids).ce.shape == (1, 6, 1)


class Bent(LlamaForCausalLM):
    """A class of transformers, as far as its name says, that bends its logits."""

    __module__ = "transformers.models.llama"

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.sin()
        return output


class Padded(Bent):
    __module__ = "transformers.models.llama"

    def forward(self, *args, **kwargs):
        output = LlamaForCausalLM.forward(self, *args, **kwargs)
        output.logits = output.logits[..., :60]
        return output


def of_logits(model, ids):
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    return F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)


def electra():
    shape = {"hidden_size": 32, "embedding_size": 16, "intermediate_size": 48, "num_hidden_layers": 2}
    config = ElectraConfig(vocab_size=64, num_attention_heads=4, is_decoder=True, **shape)
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("make", [lambda: Bent(tiny_config("llama")), lambda: Padded(tiny_config("llama")), electra])
def test_a_model_that_does_something_else_to_its_logits_is_taken_at_its_word(make):
    wrapped, ids = trainable(model := make().eval()), tokens(2, 6) % 60
    found = wrapped(ids, labels=ids).ce
    assert isinstance(wrapped, PlainModel)
    assert wrapped.makes_logits()
    torch.testing.assert_close(found[:, :-1, 0], of_logits(model, ids))


def test_a_class_of_its_own_is_called_as_it_is_with_all_its_heads():
    class Several(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits.unsqueeze(2).expand(-1, -1, 4, -1)
            return output

    wrapped, ids = trainable(Several(tiny_config("llama"))), tokens(1, 6)
    assert type(wrapped) is LogitsModel
    assert wrapped(ids, labels=ids).ce.shape == (1, 6, 4)


def test_the_question_fits_a_small_vocabulary_and_leaves_parts_in_eval_mode_there():
    model = plain("llama", vocab_size=5)
    model.model.norm.eval()
    ids = tokens(1, 6) % 5
    assert trainable(model)(ids, labels=ids).ce.shape == (1, 6, 1)
    assert model.training
    assert not model.model.norm.training
