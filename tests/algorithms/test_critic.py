import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from algorithms import plain
from algorithms.cases import as_dict, padded, random_case, rows_of
from wmtp.algorithms.base import BASE, Score
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.errors import TrainingError
from wmtp.faults import model_faults

MODES = [("batch", "batch"), ("batch", "ema"), ("horizon", "batch")]
REWARDS = torch.tensor([-1.0, 0.5, 1.0, 0.0])  # mean 0.125, deviation 0.73951


def critic(**section):
    algorithm = CriticWMTP(CriticSection(**section))
    algorithm.begin({"reward": REWARDS})
    return algorithm


def standardised(reward):
    mean = sum(REWARDS.tolist()) / 4
    deviation = math.sqrt(sum((r - mean) ** 2 for r in REWARDS.tolist()) / 4)
    return max(-5.0, min(5.0, (reward - mean) / deviation))


def fold_of(case, places):
    row, place = places[0]
    return case.signals.folds[row, place].item()


def plain_advantages(case, *, credit="token", gamma=1.0, lambda_=1.0, fold=None):
    """Of each learned token, by the heads of its document's fold, or of another one."""
    values, token_values = case.signals.values.tolist(), case.signals.token_values.tolist()
    rewards, found = case.signals.scores["reward"].tolist(), {}
    for places in case.documents:
        tokens, own = plain.learned_of(places, case.learned), fold_of(case, places) if fold is None else fold
        at = {(row, j): values[row][j][own] for row, j in places}
        row, last = tokens[-1]
        if credit == "token":
            found |= plain.token_credit({(r, j): token_values[r][j][own] for r, j in tokens}, at, tokens)
        else:
            found |= plain.advantages(at, standardised(rewards[row][last]), tokens, gamma, lambda_)
    return found


def after_steps(algorithm, cases, cut):
    for case in cases:
        parts = [rows_of(case, slice(start, start + cut)) for start in range(0, len(case.learned), cut)]
        weights = torch.cat([algorithm.weights(part) for part in parts])
        algorithm.end_step(lambda sums: sums)
    return weights


@pytest.mark.parametrize("seed", range(6))
def test_weights_by_token_credit_equal_their_definition(seed):
    case = random_case(seed)
    gates = plain.critic_gates(plain_advantages(case), 0.25)
    expected = plain.mean_one(gates, case.pairs, case.signals.prior.tolist())
    assert as_dict(critic().weights(case.signals), case.pairs) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 1.0), (1.0, 0.0), (0.9, 0.8)])
@pytest.mark.parametrize("seed", range(6))
def test_weights_by_return_equal_their_definition(seed, gamma, lambda_):
    case, algorithm = random_case(seed), critic(credit="return", gamma=gamma, lambda_advantage=lambda_, temperature=0.8)
    gates = plain.critic_gates(plain_advantages(case, credit="return", gamma=gamma, lambda_=lambda_), 0.8)
    expected = plain.mean_one(gates, case.pairs, case.signals.prior.tolist())
    assert as_dict(algorithm.weights(case.signals), case.pairs) == pytest.approx(expected, rel=1e-4)


def test_the_temperature_is_that_of_the_credit_unless_one_is_given():
    found = [critic(**section).temperature for section in ({}, {"credit": "return"}, {"temperature": 2.0})]
    assert found == [0.25, 1.0, 2.0]


def test_running_weights_divide_by_the_mean_of_past_steps():
    cases, algorithm = [random_case(seed).with_signals(prior=torch.ones(3)) for seed in (1, 2)], critic(scope="ema")
    assert set(as_dict(after_steps(algorithm, cases[:1], 3), cases[0].pairs).values()) == {1.0}
    gates, pairs = plain.critic_gates(plain_advantages(cases[0]), 0.25), cases[0].pairs
    mean = sum(gates[token] for token in pairs.values()) / len(pairs)
    now = plain.critic_gates(plain_advantages(cases[1]), 0.25)
    expected = {pair: now[token] / mean for pair, token in cases[1].pairs.items()}
    assert as_dict(algorithm.weights(cases[1].signals), cases[1].pairs) == pytest.approx(expected, rel=1e-4)


def test_horizon_weights_are_a_softmax_of_advantages_from_the_first_step_on():
    case = random_case(2)
    scores = {token: a / 0.7 for token, a in plain_advantages(case).items()}
    expected = plain.head_softmax(scores, case.pairs, case.signals.prior.tolist())
    weights = critic(normalize="horizon", temperature=0.7).weights(case.signals)
    assert as_dict(weights, expected) == pytest.approx(expected, rel=1e-4)


def knowing(case, algorithm):
    """The case where every head knows the reward from the state before the first learned token on."""
    known = algorithm._standardise(case.signals.scores["reward"]).unsqueeze(2).repeat(1, 1, 2)
    for places in case.documents:
        row, start = places[0]
        known[row, start] = known[row, start + 1]
    return case.with_signals(values=known, token_values=known)


@pytest.mark.parametrize("credit", ["token", "return"])
@pytest.mark.parametrize(("normalize", "scope"), MODES)
def test_values_that_know_the_reward_make_every_weight_exactly_one(normalize, scope, credit):
    algorithm = critic(normalize=normalize, scope=scope, credit=credit if normalize == "batch" else "token")
    known = knowing(random_case(4).with_signals(prior=torch.ones(3)), algorithm)
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


@pytest.mark.parametrize(("normalize", "scope"), MODES)
def test_more_padding_changes_nothing(normalize, scope):
    case, algorithms = random_case(5), [critic(normalize=normalize, scope=scope) for _ in range(2)]
    for _ in range(3):
        weights, wider = algorithms[0].weights(case.signals), algorithms[1].weights(padded(case))
        for algorithm in algorithms:
            algorithm.end_step(lambda sums: sums)
    torch.testing.assert_close(wider[:3, :14][case.signals.valid], weights[case.signals.valid])
    torch.testing.assert_close(algorithms[1].value_loss(padded(case)), algorithms[0].value_loss(case.signals))


def with_gradient(case):
    values, token_values = (each.clone().requires_grad_() for each in (case.signals.values, case.signals.token_values))
    return values, token_values, replace(case.signals, values=values, token_values=token_values)


def plain_errors(case, fold, gamma, lambda_):
    """By (row, place, fold), what a fold's heads of states are off by: A[t + 1], at documents of other folds."""
    found = plain_advantages(case, credit="return", gamma=gamma, lambda_=lambda_, fold=fold)
    others = [places for places in case.documents if fold_of(case, places) != fold]
    return {(row, j - 1, fold): -found[row, j] for at in others for row, j in at if (row, j) in found}


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 1.0), (0.9, 0.5)])
def test_the_loss_of_states_and_its_gradient_equal_their_definition(gamma, lambda_):
    case = random_case(6)
    section = {"credit": "return", "gamma": gamma, "lambda_value": lambda_, "value_coefficient": 0.3}
    values, _, signals = with_gradient(case)
    loss = critic(**section).value_loss(signals)
    loss.backward()
    errors = plain_errors(case, 0, gamma, lambda_) | plain_errors(case, 1, gamma, lambda_)
    assert loss.item() == pytest.approx(0.3 * sum(e * e for e in errors.values()), rel=1e-4)
    found = {key: values.grad[key].item() for key in errors}
    assert found == pytest.approx({key: 0.6 * e for key, e in errors.items()}, rel=1e-4, abs=1e-6)
    assert values.grad.count_nonzero() <= len(errors)


def test_the_loss_of_tokens_is_beside_that_of_states_and_equals_its_definition():
    case = random_case(6)
    values, token_values, signals = with_gradient(case)
    loss = critic(value_coefficient=0.3).value_loss(signals)
    loss.backward()
    rewards, errors = case.signals.scores["reward"].tolist(), {}
    for places in case.documents:
        for row, j in plain.learned_of(places, case.learned):
            other = 1 - fold_of(case, places)
            errors[row, j, other] = token_values[row, j, other].item() - standardised(rewards[row][j])
    of_states = [*plain_errors(case, 0, 1.0, 1.0).values(), *plain_errors(case, 1, 1.0, 1.0).values()]
    assert loss.item() == pytest.approx(0.3 * sum(e * e for e in [*errors.values(), *of_states]), rel=1e-4)
    found = {key: token_values.grad[key].item() for key in errors}
    assert found == pytest.approx({key: 0.6 * e for key, e in errors.items()}, rel=1e-4, abs=1e-6)
    assert token_values.grad.count_nonzero() == len(errors)
    assert values.grad.any()


@pytest.mark.parametrize("credit", ["token", "return"])
def test_weights_have_no_gradient_to_value_heads(credit):
    assert not critic(credit=credit).weights(with_gradient(random_case(6))[2]).requires_grad


@pytest.mark.parametrize("credit", ["token", "return"])
def test_what_is_measured_is_what_gives_credit_with_its_reward_and_place(credit):
    case, expected = random_case(5), []
    values, token_values = case.signals.values.tolist(), case.signals.token_values.tolist()
    rewards = case.signals.scores["reward"].tolist()
    for places in case.documents:
        tokens, own = plain.learned_of(places, case.learned), fold_of(case, places)
        for number, (row, j) in enumerate(tokens):
            place = 1 if number == len(tokens) - 1 else number / (len(tokens) - 1)
            said = token_values[row][j][own] if credit == "token" else values[row][j - 1][own]
            expected.append((said, standardised(rewards[row][j]), place))
    found = critic(credit=credit).value_states(case.signals)
    rows = zip(found.values.tolist(), found.returns.tolist(), found.positions.tolist(), strict=True)
    assert torch.tensor(list(rows)).tolist() == [pytest.approx(row, rel=1e-5, abs=1e-6) for row in expected]


def test_heads_in_folds_need_rows_that_say_their_fold():
    with pytest.raises(ValueError, match="rows that do not say which fold a document is in"):
        critic().weights(replace(random_case(1).signals, folds=None))


@pytest.mark.parametrize(
    ("section", "problem", "hint"),
    [
        ({"credit": "return", "normalize": "horizon"}, "normalize is horizon, and credit return", "credit: token"),
        ({"lambda_advantage": 0.0}, "lambda_advantage is 0, and credit token", "or write credit: return"),
        ({"lambda_value": 0.5}, "lambda_value is 0.5, and credit token", "leave lambda_value out"),
        ({"gamma": 0.9}, "gamma is 0.9, and credit token", "leave gamma out"),
    ],
)
def test_settings_that_do_not_fit_the_credit_are_refused_with_both_ways_out(section, problem, hint):
    with pytest.raises(ValidationError) as caught:
        CriticSection(**section)
    (fault,) = model_faults(caught.value, CriticSection)
    assert str(fault).startswith(problem)
    assert hint in fault.hint


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


@pytest.mark.parametrize("best", [0.009, -3.0, math.nan])
def test_values_of_tokens_that_say_nothing_anywhere_are_refused_with_their_whole_curve(best):
    with pytest.raises(TrainingError) as caught:
        CriticWMTP().require_fit([best, math.nan, math.nan])
    assert f"explain at most {best:.3f} of the variance" in caught.value.problem
    assert "at least 0.01 is needed: weights would be noise" in caught.value.problem
    assert caught.value.faults == (f"explained variance from begin to end of documents: {best:.3f} nan nan",)
    assert "raise critic.stage1_steps" in caught.value.hint


def test_values_of_tokens_that_say_something_somewhere_are_enough():
    CriticWMTP().require_fit([math.nan, 0.01, -0.5])


def test_the_baseline_of_credit_by_return_may_know_nothing():
    CriticWMTP(CriticSection(credit="return")).require_fit([-0.1, math.nan])


def test_a_restored_critic_keeps_its_unit_of_rewards_and_its_figures():
    first, second, cases = critic(scope="ema"), CriticWMTP(CriticSection(scope="ema")), [random_case(1), random_case(2)]
    after_steps(first, cases, 3)
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    second.begin({"reward": torch.tensor([0.5, 1.5])})
    assert torch.equal(first.weights(cases[1].signals), second.weights(cases[1].signals))
    assert torch.equal(first.state()["reward_figures"], second.state()["reward_figures"])
    assert set(first.state()) == {"reward_figures", "mean_weight"}


def test_a_column_of_rewards_needs_no_reward_model():
    by_column, by_model = CriticWMTP(CriticSection(reward_column="passed")), CriticWMTP(CriticSection(reward_index=1))
    assert by_column.roles == (BASE,)
    assert by_column.scores == (Score("reward", "column", column="passed"),)
    assert [role.name for role in by_model.roles] == ["base", "rm"]
    assert by_model.scores == (Score("reward", "reward", role="rm", label=1),)


def test_what_the_section_says_of_the_value_head_reaches_the_trainer():
    algorithm = CriticWMTP(CriticSection(stage1_steps=7, value_learning_rate=0.01, detach_trunk=False, folds=3))
    assert (algorithm.fit_steps, algorithm.value_learning_rate, algorithm.detach_trunk) == (7, 0.01, False)
    assert (algorithm.folds, algorithm.values_tokens) == (3, True)
    assert not CriticWMTP(CriticSection(credit="return")).values_tokens
