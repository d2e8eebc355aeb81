import pytest
import torch

from tiny_models import tiny_mtp, tokens
from wmtp.errors import TrainingError
from wmtp.models.adapter import trainable
from wmtp.models.value_heads import WithValueHead, kind_of_heads

IDS = tokens(2, 10)


def with_values(**options):
    torch.manual_seed(0)
    return WithValueHead(trainable(tiny_mtp("llama", 2)), 32, **({"detach_trunk": True} | options))


def gradients(module):
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_before_anything_is_learned_every_value_is_zero():
    answer = with_values(folds=3, values_tokens=True)(IDS, labels=IDS)
    for values in (answer.state_values, answer.token_values):
        assert values.shape == (2, 10, 3)
        assert values.dtype == torch.float32
        assert not values.any()


def test_states_alone_are_valued_where_that_is_asked():
    answer = with_values()(IDS, labels=IDS)
    assert answer.state_values.shape == (2, 10, 1)
    assert answer.token_values is None


def test_the_value_of_a_token_reads_the_state_before_it_and_its_embedding():
    model = learned(with_values(values_tokens=True))
    head = model.value_heads.tokens[0]
    hidden, embedded = model.model(IDS, labels=IDS).hidden_states, model.model.trunk.get_input_embeddings()(IDS)
    found = model(IDS, labels=IDS).token_values[..., 0]
    for row, j in ((0, 1), (0, 6), (1, 9)):
        one = torch.cat([head.norm(hidden[row, j - 1]), head.token_norm(embedded[row, j])])
        expected = head.output(torch.nn.functional.gelu(head.hidden(one))).item()
        assert found[row, j].item() == pytest.approx(expected, rel=1e-4)


def test_each_fold_has_heads_of_its_own():
    answer = learned(with_values(folds=2, values_tokens=True))(IDS, labels=IDS)
    for values in (answer.state_values, answer.token_values):
        assert not torch.allclose(values[..., 0], values[..., 1], atol=1e-3)


def learned(model):
    for head in (*model.value_heads.states, *model.value_heads.tokens):
        torch.nn.init.normal_(head.output.weight)
    return model


def test_everything_else_of_the_answer_is_the_models_own():
    model = with_values()
    answer, own = model(IDS, labels=IDS, with_top1=True), model.model(IDS, labels=IDS, with_top1=True)
    assert torch.equal(answer.ce, own.ce)
    assert torch.equal(answer.valid, own.valid)
    assert torch.equal(answer.top1, own.top1)
    assert torch.equal(model(IDS).logits, model.model(IDS).logits)


@pytest.mark.parametrize("detach", [True, False])
def test_the_value_loss_reaches_the_trunk_only_when_it_may(detach):
    model = learned(with_values(detach_trunk=detach, values_tokens=True))
    answer = model(IDS, labels=IDS)
    (answer.state_values.square().sum() + answer.token_values.square().sum()).backward()
    assert all(gradient.any() for gradient in gradients(model.value_heads))
    assert bool(gradients(model.model)) is not detach


def test_cross_entropy_does_not_reach_value_heads():
    model = with_values(values_tokens=True)
    model(IDS, labels=IDS).ce.sum().backward()
    assert not gradients(model.value_heads)


def test_values_are_fp32_on_a_trunk_in_bf16_and_under_autocast():
    model = learned(with_values(values_tokens=True))
    model.model.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model(IDS, labels=IDS)
    for values in (answer.state_values, answer.token_values):
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())


class OnlyLogits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 64)

    def forward(self, input_ids):
        return self.embedding(input_ids).unsqueeze(2)


def test_a_model_without_hidden_states_is_refused_by_name():
    model = WithValueHead(trainable(OnlyLogits()), 32, detach_trunk=True)
    with pytest.raises(TrainingError, match="returns logits and no hidden states for a value head"):
        model(IDS, labels=IDS)


def test_a_model_that_shows_no_embeddings_is_refused_before_tokens_are_valued():
    with pytest.raises(
        TrainingError, match="OnlyLogits: the base model's class has no method get_input_embeddings"
    ) as e:
        WithValueHead(trainable(OnlyLogits()), 32, detach_trunk=True, values_tokens=True)
    assert "or set critic.credit: return" in e.value.hint


def test_what_stands_in_a_checkpoint_is_known_by_its_names():
    names = {
        folds: WithValueHead(trainable(tiny_mtp("llama", 2)), 32, detach_trunk=True, folds=folds) for folds in (1, 2)
    }
    kinds = [kind_of_heads(model.value_heads.state_dict()) for model in names.values()]
    assert kinds == ["value heads of states in 1 fold", "value heads of states in 2 folds"]
    tokens_too = with_values(folds=2, values_tokens=True).value_heads.state_dict()
    assert kind_of_heads(tokens_too) == "value heads of states and tokens in 2 folds"
    assert kind_of_heads(list(tokens_too)[1:]) is None
    old = ["norm.weight", "norm.bias", "hidden.weight", "hidden.bias", "output.weight", "output.bias"]
    assert kind_of_heads(old).startswith("the value head of critic-wmtp as it was before")
