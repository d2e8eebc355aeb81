"""Bootstrap intervals, held to a computation of their own and to what statistics promises."""

import math

import numpy as np
import pytest

from wmtp.evaluation.estimates import Figures, differences
from wmtp.evaluation.intervals import Estimate, Resampling, ratio
from wmtp.evaluation.sums import Sums


def sums_of(losses, targets) -> Sums:
    sums = Sums.empty(len(losses), 1)
    sums.heads[:, 0, 0], sums.heads[:, 0, 3] = losses, targets
    return sums


def cross_entropy(sums, resampling):
    figures = Figures.of(sums, np.ones(len(sums.heads)), resampling)
    return figures.estimate(figures.of_head(1, "cross_entropy"))


def test_an_interval_is_that_of_a_plain_loop_over_draws():
    losses, targets = [3.0, 10.0, 1.0, 7.0, 2.0], [2, 4, 1, 2, 3]
    found = cross_entropy(sums_of(losses, targets), Resampling(200, 0.9, seed=5))
    generator, drawn = np.random.default_rng(5), []
    for _ in range(200):
        chosen = generator.integers(0, 5, 5).tolist()
        drawn.append(sum(losses[i] for i in chosen) / sum(targets[i] for i in chosen))
    drawn.sort()
    # Linear between the two draws that a share falls between.
    low, high = (drawn[math.floor(p)] + (p % 1) * (drawn[math.ceil(p)] - drawn[math.floor(p)]) for p in (9.95, 189.05))
    assert (found.value, found.low, found.high) == pytest.approx((23 / 12, low, high), rel=1e-12)


def test_of_many_documents_it_is_the_normal_one():
    values = np.random.default_rng(1).normal(3.0, 0.5, 900)
    found = cross_entropy(sums_of(values, np.ones(900)), Resampling(2000))
    expected = 1.96 * values.std(ddof=1) / 30
    assert found.high - found.value == pytest.approx(expected, rel=0.1)
    assert found.value - found.low == pytest.approx(expected, rel=0.1)


def test_documents_count_by_their_tokens():
    found = cross_entropy(sums_of([2.0, 30.0], [1, 10]), Resampling(10))
    assert found.value == pytest.approx(32 / 11)


def test_of_one_document_nothing_is_known_but_the_figure():
    assert cross_entropy(sums_of([6.0], [4]), Resampling(10)) == Estimate(1.5)


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    sums = sums_of([3.0, 10.0, 1.0, 7.0], [2, 4, 1, 2])
    one, again, other = (cross_entropy(sums, Resampling(50, 0.9, seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_draw_without_a_target_is_left_out():
    found = cross_entropy(sums_of([6.0, 0.0], [4, 0]), Resampling(100))
    assert (found.low, found.high) == (1.5, 1.5)
    assert np.isnan(ratio(np.zeros(1), np.zeros(1))).all()


def test_what_two_models_differ_by_is_drawn_on_the_same_documents():
    generator = np.random.default_rng(2)
    hard = generator.normal(5.0, 3.0, 100)
    first, second = (
        Figures.of(sums_of(hard + extra, np.ones(100)), np.ones(100), Resampling(500)) for extra in (0.0, 0.25)
    )
    (difference,) = differences(["a", "b"], [first, second])
    found = difference.heads[1]["cross_entropy"]
    # Documents are hard or easy for both: that cancels, and so the interval has no width.
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))
    assert difference.heads[1].keys() == {"cross_entropy", "top1", "top5"}


def test_what_is_not_a_number_is_null_in_json():
    assert Estimate(float("nan")).to_dict() == {"value": None, "low": None, "high": None}
