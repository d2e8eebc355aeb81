import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms import plain
from algorithms.cases import as_dict, random_case
from wmtp.algorithms.grouping import documents
from wmtp.algorithms.rho1_selection import (
    excess_loss,
    num_kept,
    running_threshold,
    score_histogram,
    soft_gate,
    threshold_gate,
    top_share,
)


def one_group(scores, learned=None):
    scores = torch.tensor([scores], dtype=torch.float32)
    learned = torch.ones_like(scores, dtype=torch.bool) if learned is None else torch.tensor([learned])
    return scores, learned, torch.zeros_like(scores, dtype=torch.long)


@pytest.mark.parametrize("seed", range(6))
def test_excess_loss_is_that_of_the_head_one_place_before_the_token_less_the_references(seed):
    case = random_case(seed)
    scores, ce, ref = (t.tolist() for t in (excess_loss(case.signals), case.signals.ce, case.signals.scores["ref_nll"]))
    for row in range(3):
        for j in range(14):
            expected = ce[row][j - 1][0] - ref[row][j] if case.learned[row][j] else 0.0
            assert scores[row][j] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("keep_ratio", [0.07, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_highest_share_of_each_document_is_kept(seed, keep_ratio):
    case = random_case(seed)
    scores = torch.randint(-3, 4, (3, 14)).float()  # ties everywhere
    kept = top_share(scores, case.signals.learned, keep_ratio, documents(case.signals.document_ids))
    expected = set()
    for places in case.documents:
        tokens = plain.learned_of(places, case.learned)
        expected |= plain.kept_and_threshold(as_dict(scores, tokens), tokens, keep_ratio)[0]
    assert {tuple(place) for place in kept.nonzero().tolist()} == expected


@pytest.mark.parametrize("seed", range(6))
def test_one_group_over_all_rows_keeps_the_highest_share_of_the_batch(seed):
    case = random_case(seed)
    scores = torch.randint(-3, 4, (3, 14)).float()
    kept = top_share(scores, case.signals.learned, 0.6, torch.zeros(3, 14, dtype=torch.long))
    tokens = [token for places in case.documents for token in plain.learned_of(places, case.learned)]
    expected = plain.kept_and_threshold(as_dict(scores, tokens), tokens, 0.6)[0]
    assert {tuple(place) for place in kept.nonzero().tolist()} == expected


@given(n=st.integers(0, 5000), thousandths=st.integers(1, 1000))
def test_the_number_kept_is_exact_in_decimals(n, thousandths):
    keep_ratio = thousandths / 1000
    assert num_kept(torch.tensor(n), keep_ratio).item() == (n * thousandths + 999) // 1000


@pytest.mark.parametrize(
    ("keep_ratio", "n", "expected"), [(0.07, 100, 7), (0.1 + 0.2, 10, 3), (1e-12, 5, 1), (1.0, 5, 5)]
)
def test_a_ratio_that_floats_cannot_hold_keeps_what_it_says(keep_ratio, n, expected):
    assert num_kept(torch.tensor(n), keep_ratio).item() == expected


def test_nothing_is_kept_where_nothing_is_learned():
    scores, learned, groups = one_group([3.0, 2.0, 1.0], [False] * 3)
    assert not top_share(scores, learned, 0.7, groups).any()
    assert (soft_gate(scores, learned, learned, groups, 0.5) == 0).all()


def test_a_token_that_is_not_learned_is_never_kept_however_high_its_score():
    scores, learned, groups = one_group([9.0, math.inf, 1.0, 2.0], [False, False, True, True])
    assert top_share(scores, learned, 0.5, groups).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("seed", range(6))
def test_the_soft_gate_equals_its_definition(seed):
    case = random_case(seed)
    scores, groups, learned = torch.randn(3, 14), documents(case.signals.document_ids), case.signals.learned
    gate = soft_gate(scores, learned, top_share(scores, learned, 0.6, groups), groups, 0.5)
    for places in case.documents:
        tokens = plain.learned_of(places, case.learned)
        expected = plain.rho1_gates(as_dict(scores, tokens), tokens, 0.6, 0.5)
        assert as_dict(gate, tokens) == pytest.approx(expected, rel=1e-5)


def test_towards_zero_temperature_the_soft_gate_is_the_hard_choice():
    scores, learned, groups = one_group([0.3, -1.0, 0.2, 5.0, 0.25])
    kept = top_share(scores, learned, 0.6, groups)
    torch.testing.assert_close(soft_gate(scores, learned, kept, groups, 1e-6), kept.float())


def test_a_group_that_keeps_all_has_gates_of_exactly_one():
    scores, learned, groups = one_group([0.3, -1000.0, 0.2])
    assert soft_gate(scores, learned, learned, groups, 0.5).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("keep_ratio", [0.1, 0.5, 0.7])
def test_the_running_threshold_keeps_the_share_within_one_bin(keep_ratio):
    scores = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0))
    learned = torch.ones_like(scores, dtype=torch.bool)
    threshold = running_threshold(score_histogram(scores, learned).double(), keep_ratio)
    share = threshold_gate(scores, learned, threshold.float(), None).mean().item()
    ranked = sorted(scores.flatten().tolist(), reverse=True)
    assert keep_ratio <= share
    assert ranked[math.ceil(keep_ratio * 8000) - 1] - threshold.item() < 1 / 256


def test_the_histogram_holds_every_learned_token_however_far_out():
    scores, learned, _ = one_group([-1e9, -16.0, 0.0, 15.999, 1e9, 3.0], [True] * 5 + [False])
    histogram = score_histogram(scores, learned)
    assert histogram.nonzero().flatten().tolist() == [0, 16 * 256, 32 * 256 - 1]
    assert histogram.sum() == 5


def test_equal_scores_are_all_kept_by_the_running_threshold():
    scores, learned, _ = one_group([0.0] * 10)
    assert running_threshold(score_histogram(scores, learned).double(), 0.3) == 0


def test_a_ratio_of_one_keeps_what_is_lower_than_anything_before():
    assert running_threshold(torch.ones(32 * 256), 1.0) == -math.inf
