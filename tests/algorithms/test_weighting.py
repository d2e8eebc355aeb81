import math

import pytest
import torch

from algorithms import plain
from algorithms.cases import as_dict, random_case
from wmtp.algorithms.grouping import documents
from wmtp.algorithms.weighting import (
    describe_weights,
    head_prior,
    head_softmax,
    normalised,
    spread,
    weight_sums,
    weighted_sum,
)
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
    assert head_prior([2.0, 1.0, 0.0], 3).tolist() == pytest.approx([2, 1, 0])
    assert head_prior([4.0, 2.0, 0.0], 3).tolist() == pytest.approx([2, 1, 0])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([1.0, 2.0], "has 2 factors, and 3 heads are trained"),
        ([1.0, -1.0, 1.0], "is [1.0, -1.0, 1.0]"),
        ([0.0, 0.0, 0.0], "is [0.0, 0.0, 0.0]"),
        ({"decay": math.inf}, "is [1.0, inf, inf]"),
    ],
)
def test_a_prior_that_cannot_be_used_is_named(spec, message):
    with pytest.raises(SettingsError) as caught:
        head_prior(spec, 3)
    assert f"loss.head_prior {message}" in caught.value.problem


def test_weights_of_a_batch_without_valid_pairs_are_zero_and_finite():
    ce, weights, valid = random_pairs()
    nothing = torch.zeros_like(valid)
    assert weighted_sum(ce, weights, nothing) == 0
    assert set(describe_weights(weight_sums(weights, nothing)).values()) == {0.0}


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
    assert describe_weights(weight_sums(weights, valid)) == pytest.approx(
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
    found = describe_weights(weight_sums(ones, ones.bool()))
    assert found == pytest.approx({"mean": 1, "max": 1, "entropy": 1, "effective_share": 1, "share_kept": 1})


@pytest.mark.parametrize("seed", range(6))
def test_a_pair_has_the_gate_of_the_token_that_it_predicts(seed):
    case = random_case(seed)
    gate = torch.rand(3, 14)
    weights = spread(gate, case.signals.valid)
    gates = as_dict(gate, set(case.pairs.values()))
    assert as_dict(weights, case.pairs) == {pair: gates[token] for pair, token in case.pairs.items()}
    assert (weights[~case.signals.valid] == 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_normalised_weights_have_mean_one_under_the_prior(seed):
    case = random_case(seed)
    gate, prior, valid = torch.rand(3, 14), case.signals.prior, case.signals.valid
    weights = normalised(spread(gate, valid), valid, prior)
    expected = plain.mean_one(as_dict(gate, set(case.pairs.values())), case.pairs, prior.tolist())
    assert as_dict(weights, case.pairs) == pytest.approx(expected, rel=1e-5)
    assert (prior * weights * valid).sum().item() == pytest.approx((prior * valid).sum().item(), rel=1e-6)


def test_weights_without_anything_to_divide_by_are_one():
    case = random_case(1)
    valid, prior = case.signals.valid, torch.ones(3)
    assert (normalised(torch.zeros_like(case.signals.ce), valid, prior) == valid).all()
    nothing = torch.zeros_like(valid)
    assert (normalised(torch.ones_like(case.signals.ce), nothing, prior) == 0).all()


def test_a_group_without_weight_is_one_beside_a_group_that_has_some():
    valid, gate = torch.ones(2, 4, 1, dtype=torch.bool), torch.tensor([[0.0] * 4, [1.0, 3.0, 0.0, 0.0]])
    groups = torch.tensor([[0] * 4, [1] * 4])
    weights = normalised(gate.unsqueeze(2), valid, torch.ones(1), groups)
    assert weights.squeeze(2).tolist() == [[1, 1, 1, 1], [1, 3, 0, 0]]


@pytest.mark.parametrize("seed", range(6))
def test_a_softmax_over_heads_equals_its_definition(seed):
    case = random_case(seed)
    scores, prior = torch.randn(3, 14) * 3, case.signals.prior
    weights = head_softmax(scores, case.signals.valid, prior)
    expected = plain.head_softmax(as_dict(scores, set(case.pairs.values())), case.pairs, prior.tolist())
    assert as_dict(weights, expected) == pytest.approx(expected, rel=1e-5)
    counted = prior * case.signals.valid
    torch.testing.assert_close((counted * weights).sum(2), counted.sum(2))


def test_a_softmax_over_heads_bears_any_score():
    valid = torch.ones(1, 5, 2, dtype=torch.bool)
    weights = head_softmax(torch.tensor([[0.0, 1e30, -1e30, 1e30, 0.0]]), valid, torch.tensor([0.0, 2.0]))
    assert weights.isfinite().all()
    assert (weights[..., 1] == 1).all()
    assert (weights[..., 0] == 0).all()


def test_documents_of_different_rows_are_told_apart_though_their_ids_repeat():
    ids = torch.tensor([[0, 0, 1, 2], [2, 0, 0, 1]])
    assert documents(ids).tolist() == [[0, 0, 1, 2], [3, 4, 4, 5]]
