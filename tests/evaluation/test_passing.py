"""pass@k against what it is defined as: drawing k of n samples in every way."""

from itertools import combinations

import pytest

from wmtp.evaluation import pass_at_k


@pytest.mark.parametrize(("n", "c", "k"), [(1, 0, 1), (1, 1, 1), (5, 2, 1), (5, 2, 3), (6, 5, 2), (7, 3, 7), (8, 0, 4)])
def test_it_is_the_share_of_choices_with_a_sample_that_passes(n, c, k):
    choices = list(combinations([place < c for place in range(n)], k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices), rel=1e-15)


def test_many_samples_lose_no_digit():
    # 1 - (1 - c/n)^k would say 0.00100000.
    assert pass_at_k(10**6, 1, 1000) == pytest.approx(1e-3, rel=1e-15)
    assert pass_at_k(10**5, 99_999, 2) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_numbers_that_cannot_be_counts_of_samples_are_refused(n, c, k):
    with pytest.raises(ValueError, match=f"n={n}, c={c}, k={k}, expected 0 <= c <= n and 1 <= k <= n"):
        pass_at_k(n, c, k)
