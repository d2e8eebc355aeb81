"""Drafts change how fast tokens are drawn, not their distribution."""

from functools import cache

import pytest
import torch

import wmtp
from generation.taught import KINDS, prompts, taught
from wmtp.generation.choosing import Draft, Sampling, residual

_VOCAB, _SAMPLES = 8, 1500


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class AcceptsAll(Sampling):
    """A broken rule: drafts are taken as they come."""

    def _accepts(self, p, q):  # noqa: ARG002
        return True


class DrawsAgainFromP(Sampling):
    """A broken rule: what takes a refused draft's place is drawn from p, and not from what p has more than q."""

    def verify(self, drafts, logits):
        own = self.probabilities(logits)
        for place, draft in enumerate(drafts):
            if not self._accepts(float(own[place, draft.token]), float(draft.probabilities[draft.token])):
                return place, self._drawn(own[place])
        return len(drafts), self._drawn(own[len(drafts)])


def p_value(counts, expected):
    """Of a chi-square test that these counts were drawn with these probabilities; rare classes are taken together."""
    assert int(counts[expected == 0].sum()) == 0
    groups = [[0.0, 0.0]]
    for mean, count in sorted(zip((counts.sum() * expected).tolist(), counts.tolist(), strict=True)):
        if groups[-1][0] >= 5:  # as the test needs it
            groups.append([0.0, 0.0])
        groups[-1] = [groups[-1][0] + mean, groups[-1][1] + count]
    assert len(groups) > 2
    statistic = sum((count - mean) ** 2 / mean for mean, count in groups)
    return float(torch.special.gammaincc(torch.tensor((len(groups) - 1) / 2), torch.tensor(statistic / 2)))


@cache
def two_tokens(rule_class, temperature=0.7, top_p=1.0):
    """p-values of the first two tokens that a rule gives, of a model and a head that differ, over many rounds."""
    made = generator(7)
    first, head = torch.randn(_VOCAB, generator=made) * 1.5, torch.randn(_VOCAB, generator=made) * 1.5
    after = torch.randn(_VOCAB, _VOCAB, generator=made) * 1.5  # logits after each token
    rule = rule_class(temperature, top_p, generator(1))
    pairs = torch.zeros(_VOCAB, _VOCAB)
    for _ in range(_SAMPLES):
        draft = rule.choose(head)
        accepted, token = rule.verify([draft], torch.stack([first, after[draft.token]]))
        second = token if accepted else rule.choose(after[token]).token
        pairs[draft.token if accepted else token, second] += 1
    expected = rule.probabilities(first).unsqueeze(1) * rule.probabilities(after)
    return p_value(pairs.sum(dim=1), expected.sum(dim=1)), p_value(pairs.sum(dim=0), expected.sum(dim=0))


@pytest.mark.parametrize(("temperature", "top_p"), [(0.7, 1.0), (1.0, 0.8), (2.0, 0.5)])
def test_tokens_are_drawn_as_by_the_model_alone(temperature, top_p):
    assert min(two_tokens(Sampling, temperature, top_p)) > 0.001


@pytest.mark.parametrize("broken", [AcceptsAll, DrawsAgainFromP])
def test_a_broken_rule_is_seen_by_the_same_test(broken):
    assert min(two_tokens(broken)) < 1e-9


def test_what_a_refused_draft_is_replaced_by_has_what_the_head_lacks():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.4, 0.4])
    torch.testing.assert_close(residual(p, q), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(residual(p, p), p)


def test_top_p_keeps_the_most_probable_tokens_and_the_one_that_crosses_it():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    rule = Sampling(1.0, 0.6, generator())
    torch.testing.assert_close(rule.probabilities(logits), torch.tensor([0.625, 0.375, 0, 0]))
    torch.testing.assert_close(Sampling(1.0, 0.5, generator()).probabilities(logits)[0], torch.tensor(1.0))


def test_a_draft_that_the_model_cannot_say_is_never_accepted():
    rule = Sampling(1.0, 0.5, generator())
    logits = torch.tensor([[0.9, 0.1, 1e-9]]).log().repeat(2, 1)
    draft = Draft(2, torch.tensor([0.0, 0.0, 1.0]))
    assert [rule.verify([draft], logits) for _ in range(50)] == [(0, 0)] * 50


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("mellum", 100),
        *(pytest.param(kind, 3000, marks=pytest.mark.slow) for kind in KINDS),
    ],
)
def test_a_models_own_second_and_third_token_are_drawn_as_it_would(kind, count):
    # Through all of it: heads, caches, rejections. Tokens 2 and 3 come of drafts.
    model, prompt = taught(kind), prompts(8)[5]
    options = {"max_new_tokens": 3, "temperature": 2.0, "top_p": 0.9, "ignore_eos": True}
    found = wmtp.generate(model, [prompt] * count, seed=3, **options)
    assert sum(found.counts.accepted) > count / 20
    with torch.no_grad():
        expected = chain(model, prompt)
    seen = torch.zeros(3, 64)
    for row in found.rows:
        for place, token in enumerate(row.tokens):
            seen[place, token] += 1
    assert min(p_value(*each) for each in zip(seen, expected, strict=True)) > 0.001


def chain(model, prompt):
    """The distribution of each of three tokens by the trunk alone, over all that may stand before."""
    rule = Sampling(2.0, 0.9, generator())
    ids, weights, found = torch.tensor([prompt]), torch.ones(1), []
    for _ in range(3):
        both = weights.unsqueeze(1) * rule.probabilities(model.trunk(ids).logits[:, -1])  # before token
        found.append(both.sum(dim=0))
        before, token = both.nonzero(as_tuple=True)
        ids, weights = torch.cat([ids[before], token.unsqueeze(1)], dim=1), both[before, token]
    return found


def test_the_same_seed_draws_the_same_tokens_and_rows_differ():
    model = taught("llama-linear")
    options = {"max_new_tokens": 8, "temperature": 1.0, "ignore_eos": True}
    first, again, other = (wmtp.generate(model, [[5], [5]], seed=seed, **options) for seed in (1, 1, 2))
    assert [row.tokens for row in first.rows] == [row.tokens for row in again.rows]
    assert first.rows[0].tokens != first.rows[1].tokens
    assert first.rows[0].tokens != other.rows[0].tokens
    unseeded = wmtp.generate(model, [[5]], **options)
    replayed = wmtp.generate(model, [[5]], seed=unseeded.seed, **options)
    assert unseeded.rows[0].tokens == replayed.rows[0].tokens
