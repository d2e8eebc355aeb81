import math
from dataclasses import replace

import pytest
import torch

from algorithms import plain
from algorithms.cases import as_dict, padded, random_case, rows_of
from wmtp.algorithms.base import BASE, Score
from wmtp.algorithms.critic_wmtp import CriticSection, CriticWMTP
from wmtp.errors import TrainingError

REWARDS = torch.tensor([-1.0, 0.5, 1.0, 0.0])  # mean 0.125, deviation 0.73951


def critic(**section):
    algorithm = CriticWMTP(CriticSection(**section))
    algorithm.begin({"reward": REWARDS})
    return algorithm


def standardised(reward):
    mean = sum(REWARDS.tolist()) / 4
    deviation = math.sqrt(sum((r - mean) ** 2 for r in REWARDS.tolist()) / 4)
    return max(-5.0, min(5.0, (reward - mean) / deviation))


def plain_advantages(case, gamma=1.0, lambda_=0.0):
    values, rewards, found = case.signals.values.tolist(), case.signals.scores["reward"].tolist(), {}
    for places in case.documents:
        tokens = plain.learned_of(places, case.learned)
        at = {(row, j): values[row][j] for row, j in places}
        row, last = tokens[-1]
        found |= plain.advantages(at, standardised(rewards[row][last]), tokens, gamma, lambda_)
    return found


def after_steps(algorithm, cases, cut):
    for case in cases:
        parts = [rows_of(case, slice(start, start + cut)) for start in range(0, len(case.learned), cut)]
        weights = torch.cat([algorithm.weights(part) for part in parts])
        algorithm.end_step(lambda sums: sums)
    return weights


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 0.0), (0.9, 0.8)])
@pytest.mark.parametrize("seed", range(6))
def test_weights_over_a_batch_equal_their_definition(seed, gamma, lambda_):
    case = random_case(seed)
    weights = critic(gamma=gamma, lambda_advantage=lambda_, temperature=0.8).weights(case.signals)
    gates = plain.critic_gates(plain_advantages(case, gamma, lambda_), 0.8)
    expected = plain.mean_one(gates, case.pairs, case.signals.prior.tolist())
    assert as_dict(weights, case.pairs) == pytest.approx(expected, rel=1e-4)


def test_running_weights_divide_by_the_deviation_and_mean_of_past_steps():
    cases, algorithm = [random_case(seed).with_signals(prior=torch.ones(3)) for seed in (1, 1, 2)], critic(scope="ema")
    first = as_dict(after_steps(algorithm, cases[:1], 3), cases[0].pairs)
    second = as_dict(after_steps(algorithm, cases[1:2], 3), cases[1].pairs)
    assert {*first.values(), *second.values()} == {1.0}
    past = plain_advantages(cases[0])
    deviation = math.sqrt(sum(a * a for a in past.values()) / len(past))
    gates, pairs = plain.critic_gates(past, 1.0), cases[0].pairs
    mean = sum(gates[token] for token in pairs.values()) / len(pairs)
    weights = as_dict(algorithm.weights(cases[2].signals), cases[2].pairs)
    now = plain_advantages(cases[2])
    for pair, token in cases[2].pairs.items():
        gate = min(5.0, max(0.1, math.exp(max(-3.0, min(3.0, now[token] / deviation)))))
        assert weights[pair] == pytest.approx(gate / mean, rel=1e-4)


def test_horizon_weights_are_a_softmax_of_advantages_in_past_deviations():
    cases, algorithm = [random_case(1), random_case(2)], critic(normalize="horizon", temperature=0.7)
    assert (after_steps(algorithm, cases[:1], 3) == 1).all()
    past, now = plain_advantages(cases[0]), plain_advantages(cases[1])
    deviation = math.sqrt(sum(a * a for a in past.values()) / len(past))
    scores = {token: max(-3.0, min(3.0, a / deviation)) / 0.7 for token, a in now.items()}
    expected = plain.head_softmax(scores, cases[1].pairs, cases[1].signals.prior.tolist())
    assert as_dict(algorithm.weights(cases[1].signals), expected) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("normalize", "scope"), [("batch", "batch"), ("batch", "ema"), ("horizon", "batch")])
def test_values_that_know_the_reward_make_every_weight_exactly_one(normalize, scope):
    case, algorithm = random_case(4), critic(normalize=normalize, scope=scope)
    case = case.with_signals(prior=torch.ones(3))
    known = case.with_signals(values=algorithm._standardise(case.signals.scores["reward"]).clone())
    for places in known.documents:  # the state before the first learned token knows it too
        row, start = places[0]
        known.signals.values[row, start] = known.signals.values[row, start + 1]
    for _ in range(3):
        weights = algorithm.weights(known.signals)
        algorithm.end_step(lambda sums: sums)
    assert (weights[known.signals.valid] == 1).all()


@pytest.mark.parametrize("normalize", ["batch", "horizon"])
def test_towards_infinite_temperature_all_tokens_are_equal(normalize):
    case = random_case(4).with_signals(prior=torch.ones(3))
    away = []
    for temperature in (1.0, 100.0):
        weights = after_steps(critic(normalize=normalize, temperature=temperature), [case] * 3, 3)
        away.append((weights[case.signals.valid] - 1).abs().max().item())
    assert away[1] < 0.05 < away[0]


@pytest.mark.parametrize(("normalize", "scope"), [("batch", "ema"), ("horizon", "batch")])
def test_how_a_step_is_cut_changes_nothing(normalize, scope):
    cases, found = [random_case(seed, rows=8).with_signals(prior=torch.ones(3)) for seed in range(5)], []
    for cut in (8, 4, 1):
        algorithm = critic(normalize=normalize, scope=scope)
        found.append((after_steps(algorithm, cases, cut), algorithm.state()))
    for weights, state in found[1:]:
        torch.testing.assert_close(weights, found[0][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(state, found[0][1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("normalize", "scope"), [("batch", "batch"), ("batch", "ema"), ("horizon", "batch")])
def test_more_padding_changes_nothing(normalize, scope):
    case, algorithms = random_case(5), [critic(normalize=normalize, scope=scope) for _ in range(2)]
    for _ in range(3):
        weights, wider = algorithms[0].weights(case.signals), algorithms[1].weights(padded(case))
        for algorithm in algorithms:
            algorithm.end_step(lambda sums: sums)
    torch.testing.assert_close(wider[:3, :14][case.signals.valid], weights[case.signals.valid])
    torch.testing.assert_close(algorithms[1].value_loss(padded(case)), algorithms[0].value_loss(case.signals))


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 1.0), (0.9, 0.5)])
def test_the_value_loss_and_its_gradient_equal_their_definition(gamma, lambda_):
    case, algorithm = random_case(6), critic(gamma=gamma, lambda_value=lambda_, value_coefficient=0.3)
    values = case.signals.values.clone().requires_grad_()
    loss = algorithm.value_loss(replace(case.signals, values=values))
    loss.backward()
    # A[t+1] is target less value: the loss is a sum of squared advantages, and targets have no gradient.
    expected = plain_advantages(case, gamma, lambda_)
    assert loss.item() == pytest.approx(0.3 * sum(a * a for a in expected.values()), rel=1e-4)
    gradient = {(row, j - 1): -0.6 * a for (row, j), a in expected.items()}
    assert as_dict(values.grad, gradient) == pytest.approx(gradient, rel=1e-4, abs=1e-6)
    assert values.grad.count_nonzero() <= len(gradient)


def test_weights_have_no_gradient_to_the_value_head():
    case = random_case(6)
    weights = critic().weights(replace(case.signals, values=case.signals.values.clone().requires_grad_()))
    assert not weights.requires_grad


def test_states_are_those_before_learned_tokens_with_their_reward_and_place():
    case, algorithm = random_case(5), critic()
    values, rewards, expected = case.signals.values.tolist(), case.signals.scores["reward"].tolist(), []
    for places in case.documents:
        tokens = plain.learned_of(places, case.learned)
        for number, (row, j) in enumerate(tokens):
            place = 1 if number == len(tokens) - 1 else number / (len(tokens) - 1)
            expected.append((values[row][j - 1], standardised(rewards[row][j]), place))
    found = algorithm.value_states(case.signals)
    rows = zip(found.values.tolist(), found.returns.tolist(), found.positions.tolist(), strict=True)
    assert torch.tensor(list(rows)).tolist() == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in expected]


@pytest.mark.parametrize(
    ("section", "problem", "hint"),
    [
        ({}, "the reward model gives the same reward, 0.5, to all of the 3 training documents", "critic.reward_index"),
        (
            {"reward_column": "passed"},
            "the column 'passed' of data.train gives the same reward, 0.5, to all of the 3 training documents",
            "critic.reward_column",
        ),
    ],
)
def test_a_constant_reward_is_refused_before_training(section, problem, hint):
    with pytest.raises(TrainingError) as caught:
        CriticWMTP(CriticSection(**section)).begin({"reward": torch.full((3,), 0.5)})
    assert caught.value.problem == f"critic-wmtp: {problem}"
    assert hint in caught.value.hint


@pytest.mark.parametrize("last", [0.049, -3.0, math.nan])
def test_a_value_head_that_has_learned_nothing_is_refused_with_its_whole_curve(last):
    with pytest.raises(TrainingError) as caught:
        CriticWMTP().require_fit([0.3, math.nan, last])
    assert "at least 0.05 is needed: weights would be noise" in caught.value.problem
    assert caught.value.faults == (f"explained variance from begin to end of documents: 0.300 nan {last:.3f}",)
    assert "raise critic.stage1_steps" in caught.value.hint


def test_a_value_head_that_knows_the_end_is_enough():
    CriticWMTP().require_fit([math.nan, -0.5, 0.05])


def test_a_restored_critic_keeps_its_unit_of_rewards_and_its_figures():
    first, second, cases = critic(scope="ema"), CriticWMTP(CriticSection(scope="ema")), [random_case(1), random_case(2)]
    after_steps(first, cases, 3)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    second.begin({"reward": torch.tensor([0.5, 1.5])})
    assert torch.equal(first.weights(cases[1].signals), second.weights(cases[1].signals))
    assert torch.equal(first.state()["reward_figures"], second.state()["reward_figures"])
    assert set(first.state()) == {"reward_figures", "advantage_squares", "mean_weight"}


def test_a_column_of_rewards_needs_no_reward_model():
    by_column, by_model = CriticWMTP(CriticSection(reward_column="passed")), CriticWMTP(CriticSection(reward_index=1))
    assert by_column.roles == (BASE,)
    assert by_column.scores == (Score("reward", "column", column="passed"),)
    assert [role.name for role in by_model.roles] == ["base", "rm"]
    assert by_model.scores == (Score("reward", "reward", role="rm", label=1),)


def test_what_the_section_says_of_the_value_head_reaches_the_trainer():
    algorithm = CriticWMTP(CriticSection(stage1_steps=7, value_learning_rate=0.01, detach_trunk=False))
    assert (algorithm.fit_steps, algorithm.value_learning_rate, algorithm.detach_trunk) == (7, 0.01, False)
