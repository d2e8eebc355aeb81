import pytest
import torch

from wmtp.algorithms.running import DECAY, RunningSums, by_running_mean


def one_process(sums):
    return sums


def stepped(running, *steps):
    for micro_batches in steps:
        for sums in micro_batches:
            running.add(torch.tensor(sums))
        running.end_step(one_process)
    return running


def test_a_mean_is_right_from_the_first_step_on():
    assert RunningSums(2).mean() is None
    assert stepped(RunningSums(2), [[6.0, 3.0], [2.0, 1.0]]).mean().item() == pytest.approx(2)


def test_an_older_step_counts_less():
    steps = [(6.0, 3.0), (1.0, 2.0), (5.0, 4.0)]
    kept = stepped(RunningSums(2), *[[list(step)] for step in steps])
    shares = [DECAY**age for age in (2, 1, 0)]
    tops, bottoms = ([share * step[n] for share, step in zip(shares, steps, strict=True)] for n in (0, 1))
    assert kept.mean().item() == pytest.approx(sum(tops) / sum(bottoms), rel=1e-9)


def test_figures_stand_still_within_a_step():
    running = stepped(RunningSums(2), [[6.0, 3.0]])
    running.add(torch.tensor([100.0, 1.0]))
    assert running.mean().item() == pytest.approx(2)


def test_every_step_asks_for_the_total_once_even_if_nothing_was_added():
    asked = []
    running = stepped(RunningSums(2), [[6.0, 3.0]])
    running.end_step(lambda sums: asked.append(sums.tolist()) or sums)
    assert asked == [[0.0, 0.0]]
    assert running.mean().item() == pytest.approx(2)


def test_what_was_added_before_a_restore_is_forgotten():
    running, other = stepped(RunningSums(2), [[6.0, 3.0]]), RunningSums(2)
    other.add(torch.tensor([1000.0, 1.0]))
    kept = running.kept.float()
    other.restore(kept)
    kept += 1  # a copy was taken
    other.end_step(one_process)
    assert other.mean().item() == pytest.approx(2)
    assert other.kept.dtype == torch.float64


def test_a_mean_weight_of_zero_leaves_all_weights_one():
    valid, prior = torch.ones(1, 3, 2, dtype=torch.bool), torch.ones(2)
    running = stepped(RunningSums(2), [[0.0, 6.0]])
    assert (by_running_mean(torch.zeros(1, 3, 2), valid, prior, running) == 1).all()
    running.end_step(one_process)
    assert running.kept[0] == 0
    assert running.kept[1] > 0


def test_a_running_mean_weight_counts_each_pair_with_its_prior():
    valid = torch.tensor([[[True, True], [True, False]]])
    weights, prior = torch.tensor([[[1.0, 4.0], [2.0, 9.0]]]), torch.tensor([0.5, 1.5])
    running = RunningSums(2)
    by_running_mean(weights, valid, prior, running)
    running.end_step(one_process)
    expected = (0.5 * 1 + 1.5 * 4 + 0.5 * 2) / (0.5 + 1.5 + 0.5)
    assert running.mean().item() == pytest.approx(expected)
    torch.testing.assert_close(by_running_mean(weights, valid, prior, running), weights / expected)
