"""Greedy decoding with drafts gives the tokens of plain greedy decoding, whatever the heads propose."""

import pytest
import torch

import wmtp
from generation.taught import KINDS, NEW_TOKENS, PARALLEL, prompts, taught, untaught
from tiny_models import VOCAB

every_kind = pytest.mark.parametrize("kind", KINDS)


def tokens_of(generation):
    return [row.tokens for row in generation.rows]


def spoken(model, given, **options):
    return wmtp.generate(model, given, max_new_tokens=NEW_TOKENS, ignore_eos=True, **options)


@every_kind
def test_tokens_are_those_of_plain_decoding_with_and_without_a_cache(kind):
    model = taught(kind)
    given = [*prompts(4), *prompts(4, seed=1)]  # half of them the heads have seen
    plain, cached, whole = (
        spoken(model, given, **options) for options in ({"drafts": 0, "kv_cache": False}, {}, {"kv_cache": False})
    )
    assert tokens_of(cached) == tokens_of(whole) == tokens_of(plain)
    assert cached.notes == ()
    # Equal tokens prove nothing about drafts, as wrong ones are refused. How many are accepted does.
    assert cached.counts == whole.counts
    assert 0 < sum(cached.counts.accepted) < sum(cached.counts.drafted)
    assert cached.tokens_per_forward > 1


@pytest.mark.parametrize("kind", ["llama-transformer", "qwen3_5", "inkling"])
def test_heads_that_know_nothing_change_no_token(kind):
    model, given = untaught(kind), prompts(4)
    assert tokens_of(spoken(model, given)) == tokens_of(spoken(model, given, drafts=0))


@pytest.mark.parametrize("kind", ["llama-linear", "mistral-transformer", "qwen3_5"])
def test_plain_decoding_is_that_of_transformers(kind):
    trunk, given = taught(kind).trunk, prompts(4)
    with torch.no_grad():
        expected = [
            trunk.generate(torch.tensor([ids]), max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None)
            for ids in given
        ]
    assert [row.prompt_tokens + row.tokens for row in spoken(trunk, given).rows] == [
        tuple(row[0].tolist()) for row in expected
    ]
    assert tokens_of(spoken(taught(kind), given)) == tokens_of(spoken(trunk, given))


@pytest.mark.parametrize("kind", ["llama-transformer", "mellum-3"])
def test_fewer_drafts_than_heads_may_be_asked_for(kind):
    model, given = taught(kind), prompts(4)
    two = spoken(model, given, drafts=2)
    assert tokens_of(two) == tokens_of(spoken(model, given, drafts=0))
    assert len(two.counts.drafted) == 2
    three = spoken(model, given).counts
    assert three.drafted[2] > 0


@pytest.mark.slow
@every_kind
def test_two_hundred_prompts(kind):
    model, given = taught(kind), prompts(200)
    plain, cached, whole = (spoken(model, given, **each) for each in ({"drafts": 0}, {}, {"kv_cache": False}))
    assert tokens_of(cached) == tokens_of(whole) == tokens_of(plain)
    assert cached.counts == whole.counts
    assert sum(cached.counts.accepted) > 0


@pytest.mark.parametrize("kind", [*PARALLEL[:3], "deepseek"])
def test_a_model_goes_on_training_as_it_was(kind):
    model = taught(kind).train()
    spoken(model, prompts(1))
    assert model.training
    model(torch.zeros(1, 4, dtype=torch.long), labels=torch.zeros(1, 4, dtype=torch.long)).ce.sum().backward()
    model.zero_grad()
    model.eval()


def test_what_stays_in_no_cache_is_read_again_and_not_for_ever():
    # A recurrent state cannot be taken back, so tokens wait behind a wrong draft; a pass without drafts reads them.
    model = untaught("qwen3_5")
    found = wmtp.generate(model, prompts(1), max_new_tokens=40, ignore_eos=True)
    assert found.counts.drafted[0] < found.counts.passes - 2  # but for the first pass and the last
    assert tokens_of(found) == tokens_of(wmtp.generate(model, prompts(1), max_new_tokens=40, ignore_eos=True, drafts=0))
    assert max(max(row.tokens) for row in found.rows) < VOCAB
