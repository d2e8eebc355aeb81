from dataclasses import replace

import pytest
import torch

from algorithms import plain
from algorithms.cases import as_dict, padded, random_case, rows_of
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP

MODES = ("token_skip", "weighted", "horizon")


def weigh(signals, **section):
    return Rho1WMTP(Rho1Section(**section)).weights(signals)


def scores_of(case):
    ce, ref = case.signals.ce.tolist(), case.signals.scores["ref_nll"].tolist()
    return {(row, j): ce[row][j - 1][0] - ref[row][j] for row, j in set(case.pairs.values())}


def with_reference(signals, ref_nll):
    return replace(signals, scores={"ref_nll": ref_nll})


def after_steps(algorithm, batches, cut=1):
    """Weights of the last step's rows, each step being one batch that is cut into micro-batches of `cut` rows."""
    for number, case in enumerate(batches):
        rows = len(case.learned)
        parts = [rows_of(case, slice(start, start + cut)) for start in range(0, rows, cut)]
        weights = torch.cat([algorithm.weights(replace(part, step=number)) for part in parts])
        algorithm.end_step(lambda sums: sums)
    return weights


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_weights_over_a_batch_equal_their_definition(seed, temperature):
    case, scores = random_case(seed), scores_of(random_case(seed))
    mode = {"selection_mode": "token_skip"} if temperature is None else {"selection_mode": "weighted"}
    weights = weigh(case.signals, keep_ratio=0.6, **mode)
    gates = plain.rho1_gates(scores, list(scores), 0.6, temperature)
    expected = plain.mean_one(gates, case.pairs, case.signals.prior.tolist())
    assert as_dict(weights, case.pairs) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("temperature", [None, 0.5])
@pytest.mark.parametrize("seed", range(6))
def test_weights_by_document_equal_their_definition(seed, temperature):
    case, scores = random_case(seed), scores_of(random_case(seed))
    mode = "token_skip" if temperature is None else "weighted"
    weights = weigh(case.signals, keep_ratio=0.6, scope="sequence", selection_mode=mode)
    for places in case.documents:
        pairs = {pair: token for pair, token in case.pairs.items() if token in places}
        gates = plain.rho1_gates(scores, sorted(set(pairs.values())), 0.6, temperature)
        expected = plain.mean_one(gates, pairs, case.signals.prior.tolist())
        assert as_dict(weights, pairs) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_horizon_weights_equal_their_definition(seed):
    case = random_case(seed)
    scores = {token: score / 0.5 for token, score in scores_of(case).items()}
    expected = plain.head_softmax(scores, case.pairs, case.signals.prior.tolist())
    assert as_dict(weigh(case.signals, selection_mode="horizon"), expected) == pytest.approx(expected, rel=1e-4)


def test_token_skip_keeps_exactly_the_share_of_the_learned_tokens():
    signals = random_case(2, rows=8, length=40, horizon=1).signals
    weights = weigh(signals, keep_ratio=0.7)
    n = int(signals.learned.sum())
    assert int((weights > 0).sum()) == plain.num_kept(n, 0.7)
    assert weights.max().item() == pytest.approx(n / plain.num_kept(n, 0.7))


@pytest.mark.parametrize(("mode", "keep_ratio"), [("weighted", 0.7), ("horizon", 0.7), ("token_skip", 1.0)])
@pytest.mark.parametrize("scope", ["batch", "sequence", "ema"])
def test_a_reference_that_is_the_model_itself_makes_all_tokens_equal(mode, keep_ratio, scope):
    case = random_case(3)
    case = case.with_signals(prior=torch.ones(3), scores={"ref_nll": case.signals.token_ce})
    algorithm = Rho1WMTP(Rho1Section(selection_mode=mode, keep_ratio=keep_ratio, scope=scope))
    weights = after_steps(algorithm, [case] * 3, cut=3)
    torch.testing.assert_close(weights[case.signals.valid], torch.ones(int(case.signals.valid.sum())))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", ["batch", "sequence"])
def test_a_constant_added_to_all_reference_losses_changes_nothing(mode, scope):
    signals = random_case(4).signals
    more = with_reference(signals, signals.scores["ref_nll"] + 2.5)
    section = {"selection_mode": mode, "scope": scope}
    torch.testing.assert_close(weigh(signals, **section), weigh(more, **section), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", ["batch", "sequence", "ema"])
def test_more_padding_changes_nothing(mode, scope):
    case, section = random_case(5), Rho1Section(selection_mode=mode, scope=scope)
    plainly, wider = Rho1WMTP(section), Rho1WMTP(section)
    for _ in range(3):
        weights, found = plainly.weights(case.signals), wider.weights(padded(case))
        for algorithm in (plainly, wider):
            algorithm.end_step(lambda sums: sums)
    torch.testing.assert_close(found[:3, :14][case.signals.valid], weights[case.signals.valid])


@pytest.mark.parametrize("mode", ["token_skip", "weighted"])
def test_a_perfect_reference_ranks_tokens_by_the_models_own_loss(mode):
    signals = with_reference(random_case(4, horizon=1).signals, torch.zeros(3, 14))
    weights = weigh(signals, selection_mode=mode).flatten()[signals.valid.flatten()]
    losses = signals.ce.flatten()[signals.valid.flatten()]
    assert (weights[losses.argsort()].diff() >= 0).all()
    assert weights.max() > weights.min()


@pytest.mark.parametrize("mode", ["weighted", "horizon"])
def test_towards_infinite_temperature_all_tokens_are_equal(mode):
    signals = replace(random_case(4).signals, prior=torch.ones(3))
    found = weigh(signals, selection_mode=mode, temperature=100.0)[signals.valid]
    nearer = weigh(signals, selection_mode=mode, temperature=1.0)[signals.valid]
    assert (found - 1).abs().max() < 0.1 < (nearer - 1).abs().max()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scope", ["batch", "ema"])
def test_every_token_counts_the_same_while_warming_up(mode, scope):
    algorithm = Rho1WMTP(Rho1Section(selection_mode=mode, scope=scope, warmup_steps=3))
    for step in range(3):
        assert (algorithm.weights(replace(random_case(step).signals, step=step)) == 1).all()
        algorithm.end_step(lambda sums: sums)
    # Running figures were gathered meanwhile: there is no second begin after the warm-up.
    assert not (algorithm.weights(replace(random_case(4).signals, step=3)) == 1).all()


@pytest.mark.parametrize(("mode", "scope"), [("token_skip", "ema"), ("weighted", "ema"), ("weighted", "sequence"),
                                             ("token_skip", "sequence"), ("horizon", "batch")])  # fmt: skip
def test_how_a_step_is_cut_changes_nothing(mode, scope):
    batches = [random_case(seed, rows=8).with_signals(prior=torch.tensor([1.2, 0.9, 0.9])) for seed in range(5)]
    found = []
    for cut in (8, 4, 1):
        algorithm = Rho1WMTP(Rho1Section(selection_mode=mode, scope=scope))
        found.append((after_steps(algorithm, batches, cut), algorithm.state()))
    for weights, state in found[1:]:
        torch.testing.assert_close(weights, found[0][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(state, found[0][1], rtol=1e-6, atol=1e-6)


def test_two_processes_reach_the_figures_of_one():
    section, case = Rho1Section(selection_mode="weighted", scope="ema"), random_case(1, rows=8)
    whole, first, second = Rho1WMTP(section), Rho1WMTP(section), Rho1WMTP(section)
    for _ in range(3):
        weights = whole.weights(case.signals)
        halves = [first.weights(rows_of(case, slice(0, 5))), second.weights(rows_of(case, slice(5, 8)))]
        torch.testing.assert_close(torch.cat(halves), weights, rtol=1e-6, atol=1e-6)
        whole.end_step(lambda sums: sums)
        sent = []  # what the second process adds to each sum of the first
        second.end_step(lambda sums, sent=sent: sent.append(sums) or sums)
        first.end_step(lambda sums, sent=sent: sums + sent.pop(0))
        second.restore(first.state())
    torch.testing.assert_close(first.state(), whole.state(), rtol=1e-6, atol=1e-9)


def test_running_figures_go_on_where_a_checkpoint_left_them():
    section = Rho1Section(selection_mode="weighted", scope="ema")
    first, second = Rho1WMTP(section), Rho1WMTP(section)
    after_steps(first, [random_case(seed) for seed in range(3)])
    second.restore({name: tensor.clone() for name, tensor in first.state().items()})
    assert set(first.state()) == {"score_histogram", "mean_weight"}
    signals = random_case(7).signals
    assert torch.equal(first.weights(signals), second.weights(signals))
    first.end_step(lambda sums: sums)
    assert not torch.equal(first.state()["score_histogram"], second.state()["score_histogram"])


def test_scores_follow_the_section():
    score = Rho1WMTP(Rho1Section(online=True)).scores[0]
    assert (score.name, score.what, score.role, score.online) == ("ref_nll", "nll", "ref", True)
    assert not Rho1WMTP().scores[0].online
