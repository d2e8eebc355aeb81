import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaModel

from tiny_models import HEAD_TYPES, tiny_config, tiny_mtp, tokens
from wmtp.errors import TrainingError
from wmtp.models.adapter import check_packing, trainable, unwrapped
from wmtp.models.foreign import HeadsModel, LogitsModel
from wmtp.models.losses import per_head_cross_entropy


class ForeignLogits(nn.Module):
    """As a checkpoint's modeling.py might be: stacked linear heads, logits in the answer."""

    def __init__(self, answer: str = "dict"):
        super().__init__()
        torch.manual_seed(0)
        self.base_model = LlamaModel(tiny_config("llama"))
        self.heads = nn.ModuleList(nn.Linear(32, 64, bias=False) for _ in range(3))
        self.answer = answer

    def forward(self, input_ids, attention_mask=None, position_ids=None):
        hidden = self.base_model(input_ids, attention_mask=attention_mask, position_ids=position_ids).last_hidden_state
        logits = torch.stack([head(hidden) for head in self.heads], dim=2)
        return {"dict": {"logits": logits}, "tensor": logits, "wrong": logits[:, :, 0, 0], "none": (logits,)}[
            self.answer
        ]


class ForeignHeads(ForeignLogits):
    def forward_heads(self, input_ids, attention_mask=None, position_ids=None):
        hidden = self.base_model(input_ids, attention_mask=attention_mask, position_ids=position_ids).last_hidden_state
        return hidden, hidden.unsqueeze(2).expand(-1, -1, 3, -1)

    def unembedding(self, k):
        return self.heads[k - 1].weight, None


class Blind(ForeignLogits):
    def forward(self, input_ids, **kwargs):  # noqa: ARG002
        return super().forward(input_ids)


class Careless(ForeignLogits):
    def forward(self, input_ids, position_ids=None):  # noqa: ARG002
        return super().forward(input_ids)


def test_our_own_class_is_taken_as_it_is_with_the_recipes_backend():
    model = tiny_mtp()
    assert trainable(model, backend="eager") is model
    assert model.loss_backend == "eager"
    assert unwrapped(model) is model


def test_the_wrapped_model_and_its_names_come_back():
    model = ForeignLogits()
    wrapped = trainable(model)
    assert isinstance(wrapped, LogitsModel)
    assert unwrapped(wrapped) is model
    assert trainable(wrapped) is wrapped


@pytest.mark.parametrize("answer", ["dict", "tensor"])
def test_foreign_logits_and_foreign_heads_give_the_same_losses_and_gradients(answer):
    ids = tokens(2, 9)
    results = []
    for model in (ForeignLogits(answer), ForeignHeads()):
        wrapped = trainable(model)
        output = wrapped(ids, labels=ids, with_top1=True)
        output.ce.sum().backward()
        results.append((output, [parameter.grad for parameter in model.parameters()]))
    (logits, of_logits), (heads, of_heads) = results
    torch.testing.assert_close(logits.ce, heads.ce)
    torch.testing.assert_close(of_logits, of_heads)
    assert torch.equal(logits.valid, heads.valid)
    assert torch.equal(logits.top1 & logits.valid, heads.top1)
    assert logits.hidden_states is None
    assert heads.hidden_states.shape == (2, 9, 32)


def test_a_model_with_heads_is_never_asked_for_logits_in_training():
    wrapped = trainable(ForeignHeads("wrong"))
    assert isinstance(wrapped, HeadsModel)
    assert wrapped(tokens(1, 5), labels=tokens(1, 5)).ce.shape == (1, 5, 3)


def test_a_plain_causal_lm_trains_as_one_head():
    model = AutoModelForCausalLM.from_config(tiny_config("gpt2")).eval()
    ids = tokens(2, 7)
    with torch.no_grad():
        output = trainable(model)(ids, labels=ids)
        hidden = model.base_model(ids).last_hidden_state
    targets = torch.full((2, 7, 1), -100)
    targets[:, :-1, 0] = ids[:, 1:]
    expected = per_head_cross_entropy([hidden], lambda _: (model.lm_head.weight, None), targets)
    torch.testing.assert_close(output.ce, expected)


@pytest.mark.parametrize("model", [ForeignLogits(), ForeignHeads()])
def test_packed_documents_do_not_see_each_other_although_the_model_would_make_a_cache(model):
    wrapped, row = trainable(model.eval()), tokens(1, 12)
    documents = torch.tensor([[0] * 5 + [1] * 7])
    with torch.no_grad():
        packed = wrapped(row, labels=row, document_ids=documents).ce
        alone = [wrapped(part, labels=part).ce for part in row.split([5, 7], dim=1)]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=0, atol=1e-5)
    assert model.base_model.config.use_cache is True
    check_packing(wrapped)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "mistral"])
def test_packing_is_proven_for_our_own_models(architecture, head_type):
    model = tiny_mtp(architecture, head_type=head_type).train()
    check_packing(model)
    assert model.training


def test_packing_without_the_argument_position_ids_is_refused_even_where_anything_is_taken():
    with pytest.raises(TrainingError, match="Blind has no argument position_ids") as caught:
        trainable(Blind())(tokens(1, 4), document_ids=torch.tensor([[0, 0, 1, 1]]))
    assert "data.train.packing: false" in caught.value.hint


def test_a_model_that_takes_position_ids_and_drops_them_is_found_out():
    with pytest.raises(TrainingError, match="Careless: documents packed into one row see each other"):
        check_packing(trainable(Careless()))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("wrong", "ForeignLogits.forward returned torch.float32 of shape [2, 4], expected [2, 4, future, vocab]"),
        ("none", "ForeignLogits.forward returned tuple without logits"),
    ],
)
def test_an_answer_of_another_form_is_named(answer, message):
    with pytest.raises(TrainingError) as caught:
        trainable(ForeignLogits(answer))(tokens(2, 4))
    assert message in caught.value.problem


def test_recomputing_activations_is_refused_where_the_model_cannot():
    with pytest.raises(TrainingError, match="ForeignLogits has no method activation_checkpointing_enable"):
        trainable(ForeignLogits()).activation_checkpointing_enable()


def test_logits_that_are_not_finite_are_named_where_packing_is_proven():
    model = trainable(tiny_mtp("llama", 2))
    torch.nn.init.constant_(model.trunk.lm_head.weight, torch.nan)
    with pytest.raises(TrainingError, match="MTPForCausalLM: its logits for eight tokens are not finite"):
        check_packing(model)
