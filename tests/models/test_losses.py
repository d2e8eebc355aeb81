import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tiny_models import HEAD_TYPES, VOCAB, tiny_mtp, tokens
from wmtp.models import losses
from wmtp.models.losses import per_head_cross_entropy, per_head_top1


def random_inputs(bias: bool = True, dtype: torch.dtype = torch.float32):
    generator = torch.Generator().manual_seed(1)
    hidden = [torch.randn(2, 5, 8, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
    weights = [torch.randn(11, 8, generator=generator).to(dtype).requires_grad_() for _ in range(2)]
    biases = [torch.randn(11, generator=generator).to(dtype).requires_grad_() if bias else None for _ in range(2)]
    targets = torch.randint(0, 11, (2, 5, 2), generator=generator)
    targets[0, 3:] = -100
    return hidden, lambda k: (weights[k - 1], biases[k - 1]), targets, [*hidden, *weights, *(biases if bias else [])]


def by_hand(hidden, unembedding, targets):
    """Cross-entropy in plain Python, one number at a time."""
    ce = torch.zeros(targets.shape)
    for b, t, k in torch.cartesian_prod(*(torch.arange(size) for size in targets.shape)).tolist():
        if (target := targets[b, t, k].item()) != -100:
            weight, bias = unembedding(k + 1)
            logits = [
                sum(x * w for x, w in zip(hidden[k][b, t].tolist(), row, strict=True)) + offset
                for row, offset in zip(weight.tolist(), bias.tolist(), strict=True)
            ]
            ce[b, t, k] = math.log(sum(math.exp(x) for x in logits)) - logits[target]
    return ce


@pytest.mark.parametrize("backend", ["auto", "torch", "eager"])
def test_cross_entropy_equals_a_computation_by_hand(backend):
    hidden, unembedding, targets, _ = random_inputs()
    found = per_head_cross_entropy(hidden, unembedding, targets, backend)
    torch.testing.assert_close(found, by_hand(hidden, unembedding, targets), rtol=1e-5, atol=1e-5)
    assert (found[targets == -100] == 0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_both_backends_have_the_gradients_of_plain_logits(bias):
    hidden, unembedding, targets, leaves = random_inputs(bias)
    factors = torch.rand(targets.shape, generator=torch.Generator().manual_seed(2))
    logits = torch.stack([F.linear(h, *unembedding(k)) for k, h in enumerate(hidden, 1)], dim=2)
    ce = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view_as(targets)
    expected = torch.autograd.grad((ce * factors).sum(), leaves)
    for backend in ("torch", "eager"):
        found = per_head_cross_entropy(hidden, unembedding, targets, backend)
        torch.testing.assert_close(torch.autograd.grad((found * factors).sum(), leaves), expected)


@pytest.mark.parametrize("backend", ["auto", "torch", "eager"])
def test_in_bf16_the_loss_itself_is_fp32_and_not_rounded(backend):
    hidden, unembedding, targets, leaves = random_inputs(dtype=torch.bfloat16)
    exact = by_hand(hidden, unembedding, targets)
    found = per_head_cross_entropy(hidden, unembedding, targets, backend)
    assert found.dtype == torch.float32
    # Logits in bf16 are off by up to 2^-8; a loss in bf16 would be off by as much again.
    torch.testing.assert_close(found, exact, rtol=1e-6 if backend == "torch" else 1e-2, atol=3e-2)
    assert not torch.equal(found, found.bfloat16().float())
    gradients = torch.autograd.grad(found.sum(), leaves)
    assert all(gradient.dtype == torch.bfloat16 and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_a_batch_without_any_target_has_a_loss_of_zero_and_gradients_of_zero(backend):
    hidden, unembedding, targets, leaves = random_inputs()
    found = per_head_cross_entropy(hidden, unembedding, torch.full_like(targets, -100), backend)
    gradients = torch.autograd.grad(found.sum(), leaves)
    assert found.sum() == 0
    assert all((gradient == 0).all() for gradient in gradients)


def test_rows_beyond_one_chunk_are_all_counted(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ROWS", 3)
    hidden, unembedding, targets, _ = random_inputs()
    found = per_head_cross_entropy(hidden, unembedding, targets, "eager")
    torch.testing.assert_close(found, per_head_cross_entropy(hidden, unembedding, targets, "torch"))


def test_top1_says_where_the_most_probable_token_is_right():
    hidden, unembedding, targets, _ = random_inputs()
    best = torch.stack([F.linear(h, *unembedding(k)).argmax(-1) for k, h in enumerate(hidden, 1)], dim=2)
    targets[1, 0] = best[1, 0]
    found = per_head_top1(hidden, unembedding, targets)
    assert torch.equal(found, best == targets)
    assert found[1, 0].all()
    assert not found[targets == -100].any()


def test_auto_falls_back_to_eager_and_says_so_when_the_kernel_disagrees(monkeypatch, caplog):
    losses._torch_agrees_with_eager.cache_clear()
    monkeypatch.setattr(losses, "_torch_rows", lambda *inputs: losses._eager_rows(*inputs) * 1.01)
    assert losses.fitting_backend(torch.zeros(1)) == "eager"
    assert "linear_cross_entropy differs from plain PyTorch on cpu" in caplog.text
    losses._torch_agrees_with_eager.cache_clear()


def test_the_self_test_runs_inside_inference_mode_and_leaves_the_random_state_alone():
    losses._torch_agrees_with_eager.cache_clear()
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert losses.fitting_backend(torch.zeros(1)) == "torch"
    assert torch.equal(before, torch.get_rng_state())


class _LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("backend", ["torch", "eager"])
@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_training_never_holds_the_logits_of_a_batch(monkeypatch, backend, head_type):
    chunk, vocab, batch, seq = 8, 2048, 4, 48
    monkeypatch.setattr(losses, "CHUNK_ROWS", chunk)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk, chunking_method=None)
    monkeypatch.setattr(losses, "_CHUNKED", options)
    model = tiny_mtp(head_type=head_type, vocab_size=vocab).train()
    model.loss_backend = backend
    ids = torch.randint(0, vocab, (batch, seq))
    with _LargestTensor() as seen:
        model(ids, labels=ids).ce.sum().backward()
    unembedding = vocab * 32
    assert seen.numel <= unembedding  # a weight, or its gradient, is the largest thing there is
    assert unembedding < batch * seq * vocab / 4  # logits of a single head would be far larger


def test_the_largest_tensor_is_seen_when_logits_are_asked_for():
    model, ids = tiny_mtp(), tokens(2, 8)
    with _LargestTensor() as seen, torch.no_grad():
        model(ids)
    assert seen.numel == 2 * 8 * 3 * VOCAB
