"""Cross-entropy whose gradients are computed along with it, for rows whose weights are known beforehand.

What each row's cross-entropy counts is known after all of them are computed, so that logits are made once more in the
backward pass: a quarter of all multiplications. Where that is known beforehand but for one factor, as when every token
of a head counts the same, nothing is made twice. Source of the idea, for the mean over rows: Liger Kernel, Hsu et al.
2024 (arXiv 2410.10989), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

# How far a row's gradient may be off the one that was expected of it, as a share of that: rounding.
_ROUNDING = 1e-6


def cross_entropy_ahead(
    rows: Float[Tensor, "n dim"],
    weight: Float[Tensor, "vocab dim"],
    bias: Float[Tensor, " vocab"] | None,
    targets: Int[Tensor, "n"],
    shares: Float[Tensor, "n"],
    chunk_rows: int,
) -> Float[Tensor, "n"]:
    """Return -log P(target) of each row in nats, fp32.

    Gradients are right whatever is made of it; they come at no further cost if that of each row is its share times one
    factor for all.

    Args:
        rows: What the unembedding is applied to; fp32 like all of them.
        weight: The unembedding.
        bias: Its bias.
        targets: The right token of each row.
        shares: How much each row will count, but for a factor.
        chunk_rows: For so many rows at a time logits exist.
    """
    found: Tensor = _Ahead.apply(rows, weight, bias, targets, shares, chunk_rows)
    return found


class _Ahead(torch.autograd.Function):
    @staticmethod
    @override
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shares: Tensor, chunk_rows: int
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, bias, targets, shares)
        ce, ctx.chunk_rows = torch.empty(len(rows), dtype=torch.float32, device=rows.device), chunk_rows
        ctx.ahead = _gradients((rows, weight, bias), ctx.needs_input_grad, targets, shares, chunk_rows, ce)
        return ce

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (*inputs, targets, shares) = gradients[0], ctx.saved_tensors
        # What autograd is given is its own: asked once more, everything is made again.
        ahead, ctx.ahead = ctx.ahead, None
        factor = _factor(gradient, shares) if ahead else None
        if factor is None:
            ahead = None  # frees its memory
            ahead = _gradients(inputs, ctx.needs_input_grad, targets, gradient, ctx.chunk_rows)
        scales = (gradient[:, None], *[1.0 if factor is None else factor] * 2)
        found = [None if each is None else each.mul_(scale) for each, scale in zip(ahead, scales, strict=True)]
        return *found, None, None, None


def _gradients(
    inputs: Sequence[Tensor | None],
    needed: Sequence[bool],
    targets: Tensor,
    counts: Tensor,
    chunk_rows: int,
    ce: Tensor | None = None,
) -> list[Tensor | None]:
    """Return gradients of rows, as if each counted 1, and of weight and bias, where each row counts what it does.

    Args:
        inputs: Rows, weight and bias.
        needed: Of which of them gradients are wanted.
        targets: The right token of each row.
        counts: What each row counts.
        chunk_rows: For so many rows at a time logits exist.
        ce: Gets the cross-entropy of each row.
    """
    rows, weight, bias = inputs
    assert rows is not None
    assert weight is not None
    of_rows, of_weight, of_bias = found = [
        torch.zeros_like(each) if each is not None and wanted else None
        for each, wanted in zip(inputs, needed[:3], strict=True)
    ]
    memory = rows.new_empty(min(chunk_rows, len(rows)), len(weight))
    for start in range(0, len(rows), chunk_rows):
        part = slice(start, start + chunk_rows)
        errors = _errors(
            rows[part], weight, bias, targets[part], memory[: len(rows) - start], None if ce is None else ce[part]
        )
        if of_rows is not None:
            torch.mm(errors, weight, out=of_rows[part])
        if of_weight is not None:
            of_weight.addmm_(errors.T, rows[part] * counts[part, None])
        if of_bias is not None:
            of_bias.addmv_(errors.T, counts[part])
    return found


def _errors(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, memory: Tensor, ce: Tensor | None
) -> Tensor:
    """Return probabilities less what is right, `[n, vocab]`, in the memory that is given; writes cross-entropy."""
    logits, right = torch.mm(rows, weight.T, out=memory), targets[:, None]
    if bias is not None:
        logits.add_(bias)
    logits.sub_(logits.amax(dim=1, keepdim=True))
    of_right = logits.gather(1, right)
    total = logits.exp_().sum(dim=1, keepdim=True)
    if ce is not None:
        ce.copy_((total.log() - of_right).squeeze(1))
    return logits.div_(total).scatter_add_(1, right, torch.full_like(of_right, -1.0))


def _factor(gradient: Tensor, shares: Tensor) -> Tensor | None:
    """Return what shares are to be multiplied with to be the gradient; None where nothing makes them that."""
    if not len(shares):
        return shares.new_ones(())
    largest = shares.argmax()
    factor = gradient[largest] / shares[largest]
    expected = factor * shares
    return factor if ((gradient - expected).abs() <= _ROUNDING * expected.abs()).all() else None
