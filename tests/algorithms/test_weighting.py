import math

import pytest
import torch

from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.weighting import head_prior, weight_statistics, weighted_sum
from wmtp.errors import SettingsError


def random_pairs(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    ce = torch.rand(2, 6, 3, generator=generator) * 5
    valid = torch.rand(2, 6, 3, generator=generator) > 0.3
    weights = torch.rand(2, 6, 3, generator=generator)
    return ce * valid, weights, valid


def pairs(*tensors: torch.Tensor):
    return list(zip(*(tensor.flatten().tolist() for tensor in tensors), strict=True))


def test_the_uniform_prior_is_exactly_one_for_every_head():
    assert head_prior("uniform", 4).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_decaying_prior_falls_by_its_factor_and_has_mean_one():
    prior = head_prior({"decay": 0.5}, 3)
    assert prior.mean().item() == pytest.approx(1)
    assert (prior / prior[0]).tolist() == pytest.approx([1, 0.5, 0.25])


def test_a_listed_prior_keeps_its_proportions():
    assert head_prior([2, 1, 0], 3).tolist() == pytest.approx([2, 1, 0])
    assert head_prior([4, 2, 0], 3).tolist() == pytest.approx([2, 1, 0])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([1, 2], "has 2 factors, and 3 heads are trained"),
        ([1, -1, 1], "is [1.0, -1.0, 1.0]"),
        ([0, 0, 0], "is [0.0, 0.0, 0.0]"),
        ({"decay": math.inf}, "is [1.0, inf, inf]"),
    ],
)
def test_a_prior_that_cannot_be_used_is_named(spec, message):
    with pytest.raises(SettingsError) as caught:
        head_prior(spec, 3)
    assert f"loss.head_prior {message}" in caught.value.problem


def test_baseline_weights_under_the_uniform_prior_are_exactly_one():
    ce, _, valid = random_pairs()
    weights = BaselineMTP().weights(ce, valid)
    assert (weights == 1).all()
    assert (weights * head_prior("uniform", 3) == 1).all()


def test_weights_of_a_batch_without_valid_pairs_are_zero_and_finite():
    ce, weights, valid = random_pairs()
    nothing = torch.zeros_like(valid)
    assert weighted_sum(ce, weights, nothing) == 0
    assert set(weight_statistics(weights, nothing).values()) == {0.0}


def test_the_weighted_sum_is_the_sum_over_valid_pairs():
    ce, weights, valid = random_pairs()
    expected = sum(c * w for c, w, v in pairs(ce, weights, valid) if v)
    assert weighted_sum(ce, weights, valid).item() == pytest.approx(expected, rel=1e-6)


def test_an_infinite_loss_at_a_pair_that_does_not_count_changes_nothing():
    ce, weights, valid = random_pairs()
    spoiled = torch.where(valid, ce, math.inf)
    assert weighted_sum(spoiled, weights, valid) == weighted_sum(ce, weights, valid)


def test_the_sum_is_fp32_and_its_gradient_reaches_the_losses_alone():
    ce, weights, valid = random_pairs()
    ce, weights = ce.bfloat16().requires_grad_(), weights.requires_grad_()
    total = weighted_sum(ce, weights, valid)
    total.backward()
    assert total.dtype == torch.float32
    assert weights.grad is None
    torch.testing.assert_close(ce.grad, (weights.detach() * valid).bfloat16())


def test_statistics_equal_their_definitions():
    _, weights, valid = random_pairs()
    weights = torch.where(weights > 0.4, weights, 0)
    kept = [w for w, v in pairs(weights, valid) if v]
    n, total = len(kept), sum(kept)
    assert weight_statistics(weights, valid) == pytest.approx(
        {
            "mean": total / n,
            "max": max(kept),
            "entropy": -sum(w / total * math.log(w / total) for w in kept if w) / math.log(n),
            "effective_share": total**2 / sum(w**2 for w in kept) / n,
            "share_kept": sum(w > 0 for w in kept) / n,
        },
        rel=1e-5,
    )


@pytest.mark.parametrize("num_pairs", [1, 7])
def test_equal_weights_are_as_spread_as_can_be(num_pairs):
    ones = torch.ones(1, num_pairs, 1)
    found = weight_statistics(ones, ones.bool())
    assert found == pytest.approx({"mean": 1, "max": 1, "entropy": 1, "effective_share": 1, "share_kept": 1})
