"""What the loss and its gradients take in memory: bytes that PyTorch allocates, which are the same in every run."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from wmtp.models import losses
from wmtp.models.losses import per_head_cross_entropy

# An eighth of 1,024 tokens, hidden size 576, vocabulary 49,152 and chunks of 512: the same ratios, a 512th of the work.
TOKENS, DIM, VOCAB, CHUNK = 128, 72, 6144, 64
WEIGHT_BYTES, HIDDEN_BYTES = 4 * VOCAB * DIM, 4 * TOKENS * DIM


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_ROWS", CHUNK)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK, chunking_method=None)
    monkeypatch.setattr(losses, "_CHUNKED", options)


def random_inputs(heads, shared):
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(2, TOKENS // 2, DIM, generator=generator).requires_grad_() for _ in range(heads)]
    weights = [
        (0.1 * torch.randn(VOCAB, DIM, generator=generator)).requires_grad_() for _ in range(1 if shared else heads)
    ]
    targets = torch.randint(0, VOCAB, (2, TOKENS // 2, heads), generator=generator)
    return hidden, weights, targets


def loss(arm, hidden, weights, targets):
    def unembedding(k):
        return weights[(k - 1) % len(weights)], None

    if arm == "even":
        return per_head_cross_entropy(hidden, unembedding, targets, shares=[1.0] * len(hidden))
    if arm != "stacked":
        return per_head_cross_entropy(hidden, unembedding, targets, arm)
    logits = torch.stack([F.linear(each, *unembedding(k)) for k, each in enumerate(hidden, 1)], dim=2)
    return F.cross_entropy(logits.flatten(0, 2), targets.flatten(), reduction="none").view_as(targets)


def peak(tmp_path, arm, heads, shared):
    """The most bytes allocated at once by loss and gradients, without the gradients of weights."""
    hidden, weights, targets = random_inputs(heads, shared)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        loss(arm, hidden, weights, targets).sum().backward()
    recorded.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    steps = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    held = torch.tensor([num_bytes for _, num_bytes in steps]).cumsum(0)
    return int(held.max()) - sum(weight.grad.nbytes for weight in weights)


@pytest.mark.parametrize("backend", ["torch", "eager", "even"])
@pytest.mark.parametrize("shared", [True, False])
def test_loss_and_gradients_take_at_most_a_fifth_of_what_stacked_logits_take(tmp_path, backend, shared):
    stacked = peak(tmp_path, "stacked", 4, shared)
    assert stacked > 2 * 4 * TOKENS * VOCAB * 4  # the logits of four heads, at least twice
    assert peak(tmp_path, backend, 4, shared) <= 0.2 * stacked


@pytest.mark.parametrize("backend", ["torch", "eager", "even"])
@pytest.mark.parametrize("shared", [True, False])
def test_more_heads_take_no_more_memory_than_their_inputs_have(tmp_path, backend, shared):
    one, two, eight = (peak(tmp_path, backend, heads, shared) for heads in (1, 2, 8))
    # Each head's hidden states have a gradient, and their valid rows are kept; nothing of the vocabulary's size is.
    assert two - one < 3 * HIDDEN_BYTES < WEIGHT_BYTES / 2
    assert eight - one < 7 * 3 * HIDDEN_BYTES < 4 * TOKENS * VOCAB


@pytest.mark.parametrize("backend", ["torch", "eager", "even"])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_are_those_of_stacked_logits(backend, shared):
    hidden, weights, targets = random_inputs(4, shared)
    factors = 2 * torch.rand(targets.shape, generator=torch.Generator().manual_seed(1))
    expected, found = (
        torch.autograd.grad((loss(arm, hidden, weights, targets) * factors).sum(), [*hidden, *weights])
        for arm in ("stacked", backend)
    )
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max())


def test_heads_with_one_unembedding_are_kept_apart_where_another_lies_between():
    hidden, weights, targets = random_inputs(4, shared=False)
    order = [weights[0], weights[1], weights[0], weights[0]]
    found = per_head_cross_entropy(hidden, lambda k: (order[k - 1], None), targets)
    alone = [
        per_head_cross_entropy([each], lambda _, weight=weight: (weight, None), targets[..., k : k + 1])
        for k, (each, weight) in enumerate(zip(hidden, order, strict=True))
    ]
    torch.testing.assert_close(found, torch.cat(alone, dim=2))
