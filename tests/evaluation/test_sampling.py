"""Answers by the next-token head: with a cache as without, drawn by the model's distribution, ended where they end."""

import pytest
import torch

from tiny_models import tiny_mtp
from wmtp.evaluation.sampling import Sampling, sample
from wmtp.models.adapter import trainable
from wmtp.models.causal import causal_model

PROMPT = [5, 9, 2, 40]
END = 62
GREEDY = Sampling(0.0, 12, end=END)


class Foreign(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids, attention_mask=None):
        return self.inner(input_ids, attention_mask).logits


def never(_):
    return False


@pytest.fixture(scope="module")
def model():
    return causal_model(tiny_mtp(heads=2))


def greedy(model):
    ids = list(PROMPT)
    for _ in range(12):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1, 0].argmax()))
    return ids[len(PROMPT) :]


def test_the_most_probable_answer_is_the_same_with_a_cache_without_one_and_by_a_plain_loop(model):
    expected = greedy(model)
    assert END not in expected
    assert sample(model, PROMPT, 2, GREEDY, never) == [expected] * 2
    assert sample(trainable(Foreign(model)), PROMPT, 2, GREEDY, never) == [expected] * 2


def test_what_a_checkpoint_wishes_for_its_own_decoding_changes_nothing(model):
    model.trunk.generation_config.repetition_penalty = 50.0
    model.trunk.generation_config.max_new_tokens = 3
    assert sample(model, PROMPT, 1, GREEDY, never) == [greedy(model)]


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: trainable(Foreign(model))])
def test_an_answer_ends_before_the_token_that_ends_it_and_where_it_is_finished(model, wrap):
    expected = greedy(model)
    end = Sampling(0.0, 12, end=expected[4])
    assert sample(wrap(model), PROMPT, 1, end, never) == [expected[: expected.index(expected[4])]]
    assert sample(wrap(model), PROMPT, 1, GREEDY, lambda ids: len(ids) == 3) == [expected[:3]]


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: trainable(Foreign(model))])
def test_tokens_are_drawn_by_the_probabilities_of_the_model(model, wrap):
    torch.manual_seed(0)
    count, sampling = 4000, Sampling(2.0, 1, end=0)
    drawn = [row[0] if row else 0 for row in sample(wrap(model), PROMPT, count, sampling, never)]
    found = torch.bincount(torch.tensor(drawn), minlength=64) / count
    expected = (model(torch.tensor([PROMPT])).logits[0, -1, 0] / 2.0).softmax(-1)
    sigma = (expected * (1 - expected) / count).sqrt()
    assert ((found - expected).abs() < 4.5 * sigma + 1e-3).all()
    assert (expected > 0.01).sum() > 5
