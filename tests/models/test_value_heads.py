import pytest
import torch

from tiny_models import tiny_mtp, tokens
from wmtp.errors import TrainingError
from wmtp.models.adapter import trainable
from wmtp.models.value_heads import WithValueHead

IDS = tokens(2, 10)


def with_values(**options):
    torch.manual_seed(0)
    return WithValueHead(trainable(tiny_mtp("llama", 2)), 32, **({"detach_trunk": True} | options))


def gradients(module):
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def test_before_anything_is_learned_every_value_is_zero():
    values = with_values()(IDS, labels=IDS).state_values
    assert values.shape == (2, 10)
    assert values.dtype == torch.float32
    assert not values.any()


def test_everything_else_of_the_answer_is_the_models_own():
    model = with_values()
    answer, own = model(IDS, labels=IDS, with_top1=True), model.model(IDS, labels=IDS, with_top1=True)
    assert torch.equal(answer.ce, own.ce)
    assert torch.equal(answer.valid, own.valid)
    assert torch.equal(answer.top1, own.top1)
    assert torch.equal(model(IDS).logits, model.model(IDS).logits)


@pytest.mark.parametrize("detach", [True, False])
def test_the_value_loss_reaches_the_trunk_only_when_it_may(detach):
    model = with_values(detach_trunk=detach)
    torch.nn.init.normal_(model.value_head.output.weight)
    model(IDS, labels=IDS).state_values.square().sum().backward()
    assert all(gradient.any() for gradient in gradients(model.value_head))
    assert bool(gradients(model.model)) is not detach


def test_cross_entropy_does_not_reach_the_value_head():
    model = with_values()
    model(IDS, labels=IDS).ce.sum().backward()
    assert not gradients(model.value_head)


def test_values_are_fp32_on_a_trunk_in_bf16_and_under_autocast():
    model = with_values()
    model.model.bfloat16()
    torch.nn.init.normal_(model.value_head.output.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = model(IDS, labels=IDS).state_values
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
