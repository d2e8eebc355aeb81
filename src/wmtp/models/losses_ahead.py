"""Cross-entropy whose gradients are computed along with it, for rows whose weights are known beforehand.

What each row's cross-entropy counts is known after all of them are computed, so that logits are made once more in the
backward pass: a quarter of all multiplications. Where that is known beforehand but for one factor, as when every token
of a head counts the same, nothing is made twice. Source of the idea, for the mean over rows: Liger Kernel, Hsu et al.
2024 (arXiv 2410.10989), section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from typing_extensions import override

# How far, of the largest, a row's gradient may be off the one that was expected of it: rounding.
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
        of_rows, of_weight, of_bias = (
            torch.zeros_like(each) if each is not None and needed else None
            for each, needed in zip((rows, weight, bias), ctx.needs_input_grad[:3], strict=True)
        )
        ce = torch.empty(len(rows), dtype=torch.float32, device=rows.device)
        for part, errors in _chunks(rows, weight, bias, targets, chunk_rows, ce):
            if of_rows is not None:
                torch.mm(errors, weight, out=of_rows[part])
            _add(of_weight, of_bias, errors, rows[part], shares[part])
        ctx.save_for_backward(rows, weight, bias, targets, shares, of_rows)
        ctx.chunk_rows, ctx.ahead = chunk_rows, (of_weight, of_bias)
        return ce

    @staticmethod
    @override
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, (rows, weight, bias, targets, shares, of_rows) = gradients[0], ctx.saved_tensors
        of_weight, of_bias = ctx.ahead or _like(weight, bias, ctx.needs_input_grad)
        if of_weight is not None or of_bias is not None:
            factor = _factor(gradient, shares) if ctx.ahead else None
            ctx.ahead = None  # what autograd was given is its own: asked once more, everything is computed again
            if factor is None:
                of_weight, of_bias = _like(weight, bias, ctx.needs_input_grad)
                for part, errors in _chunks(rows, weight, bias, targets, ctx.chunk_rows):
                    _add(of_weight, of_bias, errors, rows[part], gradient[part])
            else:
                for each in (of_weight, of_bias):
                    if each is not None:
                        each.mul_(factor)
        return None if of_rows is None else of_rows * gradient[:, None], of_weight, of_bias, None, None, None


def _like(weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]) -> tuple[Tensor | None, Tensor | None]:
    of_bias = torch.zeros_like(bias) if bias is not None and needed[2] else None
    return torch.zeros_like(weight) if needed[1] else None, of_bias


def _chunks(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, chunk_rows: int, ce: Tensor | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield probabilities less what is right, `[n, vocab]`, of some rows at a time; writes their cross-entropy."""
    memory = rows.new_empty(min(chunk_rows, len(rows)), len(weight))
    for start in range(0, len(rows), chunk_rows):
        part = slice(start, start + chunk_rows)
        right, logits = targets[part, None], memory[: len(rows) - start]
        torch.mm(rows[part], weight.T, out=logits)
        if bias is not None:
            logits.add_(bias)
        logits.sub_(logits.amax(dim=1, keepdim=True))
        of_right = logits.gather(1, right)
        total = logits.exp_().sum(dim=1, keepdim=True)
        if ce is not None:
            ce[part] = (total.log() - of_right).squeeze(1)
        yield part, logits.div_(total).scatter_add_(1, right, torch.full_like(of_right, -1.0))


def _add(of_weight: Tensor | None, of_bias: Tensor | None, errors: Tensor, rows: Tensor, counts: Tensor) -> None:
    if of_weight is not None:
        of_weight.addmm_(errors.T, rows * counts[:, None])
    if of_bias is not None:
        of_bias.addmv_(errors.T, counts)


def _factor(gradient: Tensor, shares: Tensor) -> Tensor | None:
    """Return what shares are to be multiplied with to be the gradient; None where nothing makes them that."""
    if not len(shares):
        return shares.new_ones(())
    largest = shares.argmax()
    factor = gradient[largest] / shares[largest]
    off = (gradient - factor * shares).abs().max()
    return factor if off <= _ROUNDING * gradient.abs().max() else None
