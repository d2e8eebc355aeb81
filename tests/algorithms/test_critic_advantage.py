import math

import pytest
import torch

from algorithms import plain
from algorithms.cases import as_dict, random_case
from wmtp.algorithms.critic_advantage import (
    Response,
    RewardStandardiser,
    advantages,
    exponential_gate,
    is_constant,
    token_credit,
    value_targets,
)
from wmtp.algorithms.explained import ValueStates, explained_variance

DISCOUNTS = [(1.0, 0.0), (1.0, 1.0), (0.9, 0.7), (0.5, 0.0), (0.95, 1.0)]


def documents_of(case):
    """Of each document: its learned tokens, the values at and before them, and its reward."""
    values = case.signals.values[..., 0].tolist()
    rewards = case.signals.scores["reward"].tolist()
    for places in case.documents:
        tokens = plain.learned_of(places, case.learned)
        at = {(row, j): values[row][j] for row, j in places}
        yield tokens, at, rewards[tokens[-1][0]][tokens[-1][1]]


def arguments(case):
    response = Response.of(case.signals.learned, case.signals.document_ids)
    return case.signals.values[..., 0], case.signals.scores["reward"], response


@pytest.mark.parametrize(("gamma", "lambda_"), DISCOUNTS)
@pytest.mark.parametrize("seed", range(6))
def test_advantages_of_packed_documents_equal_their_definition(seed, gamma, lambda_):
    case = random_case(seed, length=23)
    found = advantages(*arguments(case), gamma=gamma, lambda_=lambda_)
    for tokens, values, reward in documents_of(case):
        expected = plain.advantages(values, reward, tokens, gamma, lambda_)
        assert as_dict(found, tokens) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert (found[~case.signals.learned] == 0).all()


@pytest.mark.parametrize(("gamma", "lambda_"), DISCOUNTS)
@pytest.mark.parametrize("seed", range(6))
def test_value_targets_equal_their_definition(seed, gamma, lambda_):
    case = random_case(seed, length=23)
    found = value_targets(*arguments(case), gamma=gamma, lambda_=lambda_).tolist()
    for tokens, values, reward in documents_of(case):
        expected = plain.advantages(values, reward, tokens, gamma, lambda_)
        for row, j in tokens:
            assert found[row][j - 1] == pytest.approx(expected[row, j] + values[row, j - 1], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_target_is_the_reward_itself_without_discounts(seed):
    case = random_case(seed, length=23)
    found = value_targets(*arguments(case), gamma=1.0, lambda_=1.0).tolist()
    for tokens, _, reward in documents_of(case):
        assert [found[row][j - 1] for row, j in tokens] == pytest.approx([reward] * len(tokens), abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_one_step_errors_add_up_to_the_reward_less_the_value_of_the_prompt(seed):
    case = random_case(seed, length=23)
    found = advantages(*arguments(case), gamma=1.0, lambda_=0.0)
    for tokens, values, reward in documents_of(case):
        (row, first), total = tokens[0], sum(as_dict(found, tokens).values())
        assert total == pytest.approx(reward - values[row, first - 1], abs=1e-5)


def test_tokens_between_learned_ones_are_steps_that_errors_add_up_over():
    learned = torch.tensor([[False, True, False, False, True, False]])
    response = Response.of(learned, torch.zeros(1, 6, dtype=torch.long))
    assert response.inside.tolist() == [[False, True, True, True, True, False]]
    values = torch.randn(1, 6)
    found = advantages(values, torch.full((1, 6), 2.0), response, gamma=1.0, lambda_=0.0)
    assert found.sum().item() == pytest.approx(2.0 - values[0, 0].item(), abs=1e-5)
    assert response.place.tolist() == [[0, 0, 1, 1, 1, 1]]


def test_what_stands_outside_responses_is_not_read():
    case = random_case(2)
    before, inside = case.signals.valid[..., 0], case.signals.learned
    _, rewards, response = arguments(case)
    spoiled = torch.where(before | inside, case.signals.values[..., 0], math.nan)
    found = advantages(spoiled, torch.where(inside, rewards, math.nan), response, gamma=1.0, lambda_=0.9)
    assert torch.equal(found, advantages(*arguments(case), gamma=1.0, lambda_=0.9))


@pytest.mark.parametrize("seed", range(4))
def test_an_advantage_with_lambda_one_is_the_reward_less_what_was_expected(seed):
    case = random_case(seed, length=23)
    found = advantages(*arguments(case), gamma=1.0, lambda_=1.0)
    for tokens, values, reward in documents_of(case):
        expected = {(row, j): reward - values[row, j - 1] for row, j in tokens}
        assert as_dict(found, tokens) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_credit_for_tokens_is_their_value_less_that_of_the_state_before(seed):
    case = random_case(seed, length=23)
    values, token_values = (each[..., 0] for each in (case.signals.values, case.signals.token_values))
    found = token_credit(token_values, values, case.signals.learned)
    tokens = [token for places in case.documents for token in plain.learned_of(places, case.learned)]
    at = {(row, j): values[row, j].item() for places in case.documents for row, j in places}
    chosen = {(row, j): token_values[row, j].item() for row, j in tokens}
    assert as_dict(found, tokens) == pytest.approx(plain.token_credit(chosen, at, tokens), rel=1e-5)
    assert (found[~case.signals.learned] == 0).all()


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_gates_equal_their_definition_and_keep_their_bounds(temperature, scale):
    case = random_case(3)
    advantage = advantages(*arguments(case), gamma=1.0, lambda_=1.0) * scale
    gate = exponential_gate(advantage, temperature)
    tokens = set(case.pairs.values())
    assert as_dict(gate, tokens) == pytest.approx(plain.critic_gates(as_dict(advantage, tokens), temperature), rel=1e-4)
    assert 0.1 <= gate.min() <= gate.max() <= 5


def test_rewards_are_standardised_by_what_was_fitted_and_clipped():
    standardise = RewardStandardiser()
    assert not standardise.is_fitted
    standardise.fit(torch.tensor([1.0, 2.0, 3.0, 6.0]))  # mean 3, deviation sqrt(3.5)
    assert standardise.is_fitted
    found = standardise(torch.tensor([3.0, 6.0, 1e6, -1e6])).tolist()
    assert found == pytest.approx([0, 3 / math.sqrt(3.5), 5, -5])


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([], True),
        ([0.7], True),
        ([0.0, 0.0], True),
        ([1e5, 1e5 * (1 + 1e-7)], True),
        ([0, 1e-9], False),
        ([1, 2], False),
    ],
)
def test_rewards_are_constant_when_they_differ_by_rounding_alone(rewards, expected):
    assert is_constant(torch.tensor(rewards, dtype=torch.float32)) is expected


def test_explained_variance_of_each_part_equals_its_definition():
    values, returns, positions = torch.randn(200), torch.randn(200) * 2 + 1, torch.rand(200)
    values += returns * 0.5
    found = explained_variance(ValueStates(values, returns, positions), parts=4)
    for part in range(4):
        chosen = [n for n, place in enumerate(positions.tolist()) if int(place * 4) == part]
        expected = plain.explained([values.tolist()[n] for n in chosen], [returns.tolist()[n] for n in chosen])
        assert found[part] == pytest.approx(expected, rel=1e-5)


def test_explained_variance_is_one_for_the_reward_zero_for_a_constant_and_nan_for_nothing():
    returns, positions = torch.tensor([1.0, 2.0, 1.0, 2.0, 3.0]), torch.tensor([0.0, 0.1, 0.3, 0.35, 0.9])
    exact = explained_variance(ValueStates(returns, returns, positions), parts=5)
    assert exact[:2] == [1, 1]
    assert all(math.isnan(share) for share in exact[2:])  # no state, no state, one state: nothing differs
    assert explained_variance(ValueStates(torch.zeros(5), returns, positions), parts=5)[:2] == [0, 0]
