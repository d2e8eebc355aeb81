"""Cross-entropy with its gradients computed along with it, held to plain logits and autograd."""

import pytest
import torch
import torch.nn.functional as F

from wmtp.models import losses, losses_ahead
from wmtp.models.losses import per_head_cross_entropy
from wmtp.models.losses_ahead import cross_entropy_ahead

ROWS, DIM, VOCAB = 7, 5, 11


@pytest.fixture
def chunks(monkeypatch):
    """How often the logits of all rows were made."""
    made, whole = [], losses_ahead._gradients
    monkeypatch.setattr(losses_ahead, "_gradients", lambda *words: made.append(None) or whole(*words))
    return made


def inputs(bias=True):
    generator = torch.Generator().manual_seed(0)
    shapes = [(ROWS, DIM), (VOCAB, DIM), *([(VOCAB,)] if bias else [])]
    leaves = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    return leaves, torch.randint(0, VOCAB, (ROWS,), generator=generator), torch.rand(ROWS, generator=generator)


def plain(leaves, targets):
    return F.cross_entropy(F.linear(*leaves), targets, reduction="none")


def ahead(leaves, targets, shares, chunk_rows=3):
    return cross_entropy_ahead(*leaves, *[None] * (3 - len(leaves)), targets, shares, chunk_rows)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_rows", [3, 100])
def test_losses_and_gradients_are_those_of_plain_logits_and_logits_are_made_once(bias, chunk_rows, chunks):
    leaves, targets, shares = inputs(bias)
    expected, found = plain(leaves, targets), ahead(leaves, targets, shares, chunk_rows)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad((found * shares * 0.3).sum(), leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad((expected * shares * 0.3).sum(), leaves))
    assert len(chunks) == 1


def test_gradients_are_right_for_weights_that_nobody_expected(chunks):
    leaves, targets, shares = inputs()
    other = shares.flip(0)
    found = torch.autograd.grad((ahead(leaves, targets, shares) * other).sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad((plain(leaves, targets) * other).sum(), leaves))
    assert len(chunks) == 2


def test_one_row_that_is_off_by_a_thousandth_is_not_taken_for_rounding(chunks):
    leaves, targets, shares = inputs()
    other = shares * torch.tensor([1.001, *[1.0] * (ROWS - 1)])
    found = torch.autograd.grad((ahead(leaves, targets, shares) * other).sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad((plain(leaves, targets) * other).sum(), leaves))
    assert len(chunks) == 2


def test_gradients_that_are_asked_for_twice_are_the_same_and_each_its_own():
    leaves, targets, shares = inputs()
    loss = (ahead(leaves, targets, shares) * shares).sum()
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    kept = [each.clone() for each in first]
    second = torch.autograd.grad(3 * loss, leaves)
    torch.testing.assert_close(list(first), kept, rtol=0, atol=0)
    torch.testing.assert_close(list(second), [3 * each for each in kept])


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_what_is_frozen_has_no_gradient_and_the_rest_is_as_it_was(frozen):
    leaves, targets, shares = inputs()
    leaves[frozen].requires_grad_(False)
    learned = [each for each in leaves if each.requires_grad]
    found = torch.autograd.grad((ahead(leaves, targets, shares) * shares).sum(), learned)
    torch.testing.assert_close(found, torch.autograd.grad((plain(leaves, targets) * shares).sum(), learned))


@pytest.mark.parametrize("factor", [0.0, -2.0])
def test_no_weight_and_no_row_are_weights_like_others(factor):
    leaves, targets, shares = inputs()
    found = torch.autograd.grad((ahead(leaves, targets, shares) * shares * factor).sum(), leaves)
    torch.testing.assert_close(found, torch.autograd.grad((plain(leaves, targets) * shares * factor).sum(), leaves))
    nothing = [leaves[0][:0], *leaves[1:]]
    assert all((each == 0).all() for each in torch.autograd.grad(ahead(nothing, targets[:0], shares[:0]).sum(), leaves))
    untold = torch.autograd.grad((ahead(leaves, targets, torch.zeros(ROWS)) * shares).sum(), leaves)
    torch.testing.assert_close(untold, torch.autograd.grad((plain(leaves, targets) * shares).sum(), leaves))


def test_large_logits_do_not_overflow():
    leaves, targets, shares = inputs(bias=False)
    with torch.no_grad():
        leaves[0].mul_(1e4)
    found = ahead(leaves, targets, shares)
    torch.testing.assert_close(found, plain(leaves, targets))
    assert all(each.isfinite().all() for each in torch.autograd.grad((found * shares).sum(), leaves))


@pytest.mark.parametrize(("backend", "times"), [("auto", 2), ("torch", 0), ("eager", 0)])
def test_heads_that_count_differently_have_the_gradients_of_their_prior(backend, times, chunks, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ROWS", 2)
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(2, 3, DIM, generator=generator).requires_grad_() for _ in range(3)]
    weights = [torch.randn(VOCAB, DIM, generator=generator).requires_grad_() for _ in range(2)]
    targets = torch.randint(0, VOCAB, (2, 3, 3), generator=generator)
    targets[0, 1:, 1] = -100
    shares = [1.0, 0.5, 0.25]

    def weighed(**words):
        ce = per_head_cross_entropy(hidden, lambda k: (weights[k // 3], None), targets, **words)
        return torch.autograd.grad((ce * torch.tensor(shares)).sum(), [*hidden, *weights])

    found = weighed(backend=backend, shares=shares)
    assert len(chunks) == times  # once for the two heads of one unembedding, once for the third
    torch.testing.assert_close(found, weighed(backend="eager"))


def test_states_of_another_dtype_than_the_unembedding_are_taken_as_without_shares():
    leaves, targets, _ = inputs(bias=False)
    states = leaves[0].detach().bfloat16()[None].requires_grad_()
    words = ([states], lambda _: (leaves[1], None), targets[None, :, None])
    found, expected = (
        torch.autograd.grad(per_head_cross_entropy(*words, shares=s).sum(), states) for s in ((1,), None)
    )
    torch.testing.assert_close(found, expected)
    assert found[0].dtype == torch.bfloat16


def test_a_tiny_share_that_is_not_what_was_said_is_not_taken_for_rounding(chunks):
    leaves, targets, _ = inputs()
    shares = torch.tensor([1.0, *[1e-7] * (ROWS - 1)])
    other = torch.tensor([1.0, *[0.0] * (ROWS - 1)])
    torch.autograd.grad((ahead(leaves, targets, shares) * other).sum(), leaves)
    assert len(chunks) == 2


@pytest.mark.parametrize(("own", "times"), [(True, 2), (False, 2)])
def test_gradients_of_several_unembeddings_never_stand_beside_those_of_earlier_micro_batches(own, times, chunks):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(VOCAB, DIM, generator=generator).requires_grad_() for _ in range(2 if own else 1)]
    for _ in range(2):
        hidden = [torch.randn(1, 3, DIM, generator=generator).requires_grad_() for _ in range(2)]
        targets = torch.randint(0, VOCAB, (1, 3, 2), generator=generator)
        ce = per_head_cross_entropy(hidden, lambda k: (weights[(k - 1) % len(weights)], None), targets, shares=(1, 1))
        ce.sum().backward()
    assert len(chunks) == times  # own: both in the first micro-batch, none in the second; shared: one in each


def test_without_gradients_nothing_is_computed_ahead(chunks):
    leaves, targets, _ = inputs(bias=False)
    hidden, targets = leaves[0].detach()[None], targets[None, :, None]
    with torch.no_grad():
        per_head_cross_entropy([hidden], lambda _: (leaves[1], None), targets, shares=(1.0,))
    assert chunks == []
