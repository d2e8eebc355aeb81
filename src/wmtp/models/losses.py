"""Cross-entropy of every head at every position, in fp32, without the logits of a whole batch in memory.

Logits exist for `CHUNK_ROWS` positions of one head at a time, and are computed again in the backward pass, but for what
`losses_ahead` can do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import LinearCrossEntropyOptions
from torch.utils.checkpoint import checkpoint

from wmtp.models.logits import UNCHANGED, LogitChange
from wmtp.models.losses_ahead import cross_entropy_ahead
from wmtp.models.targets import IGNORE

logger = logging.getLogger(__name__)

# Measured on 2 CPU cores: 128 to 1024 rows take the same time to 20 %, 512 least; at 128k tokens and fp32 it is 256 MB.
CHUNK_ROWS = 512
_CHUNKED = LinearCrossEntropyOptions(batch_chunk_size=CHUNK_ROWS, chunking_method=None)

Backend = Literal["auto", "torch", "eager"]
Unembedding = Callable[[int], tuple[Tensor, Tensor | None]]


def per_head_cross_entropy(
    head_hidden: Sequence[Float[Tensor, "batch seq dim"]],
    unembedding: Unembedding,
    targets: Int[Tensor, "batch seq future"],
    backend: Backend = "auto",
    change: LogitChange = UNCHANGED,
    shares: Sequence[float] | None = None,
) -> Float[Tensor, "batch seq future"]:
    """Return -log P_k(target) in nats, fp32; 0 where the target is -100.

    Args:
        head_hidden: What each head's unembedding is applied to, H of them.
        unembedding: Weight `[vocab, dim]` and bias of head `k`, counted from 1.
        targets: From `head_targets`.
        backend: `torch` is `torch.nn.functional.linear_cross_entropy`, which answers in the dtype of its input and so
            gets fp32; `eager` is the same in plain PyTorch and in the dtype of the model. `auto` takes `torch` where
            everything is fp32 and it agrees with `eager` on eight tokens, else `eager`.
        change: What the model does to its logits. A factor is applied to what goes into `linear_cross_entropy`; that
            has no soft cap, so with one `torch` is `eager` in fp32.
        shares: How much the loss of each head will count, where all its tokens count the same: `auto` then computes
            gradients along with it wherever it would take `torch`. They are right whatever is made of the answer.
    """
    runs = _runs_of_one_unembedding([unembedding(k) for k in range(1, len(head_hidden) + 1)])
    if len(runs) > 1 and any(weight.grad is not None for _, (weight, _) in runs):
        shares = None  # gradients of several unembeddings would all stand beside those of earlier micro-batches
    return torch.cat(
        [
            _cross_entropy(head_hidden[run], shared, targets[..., run], backend, change, shares and shares[run])
            for run, shared in runs
        ],
        dim=2,
    )


@torch.no_grad()
def per_head_top1(
    head_hidden: Sequence[Float[Tensor, "batch seq dim"]],
    unembedding: Unembedding,
    targets: Int[Tensor, "batch seq future"],
    change: LogitChange = UNCHANGED,
) -> Bool[Tensor, "batch seq future"]:
    """Say where each head's most probable token is the target; False where the target is -100."""
    return torch.stack(
        [_top1(hidden, unembedding(k), targets[..., k - 1], change) for k, hidden in enumerate(head_hidden, 1)], dim=2
    )


def _runs_of_one_unembedding(
    unembeddings: Sequence[tuple[Tensor, Tensor | None]],
) -> list[tuple[slice, tuple[Tensor, Tensor | None]]]:
    """Return the heads that follow each other with the very same weight and bias.

    They are computed together: the gradient of a shared weight is as large as the weight, and otherwise there would be
    a second one while the heads are added up.
    """
    runs: list[tuple[slice, tuple[Tensor, Tensor | None]]] = []
    for k, found in enumerate(unembeddings):
        if runs and found[0] is runs[-1][1][0] and found[1] is runs[-1][1][1]:
            runs[-1] = (slice(runs[-1][0].start, k + 1), found)
        else:
            runs.append((slice(k, k + 1), found))
    return runs


def _cross_entropy(
    head_hidden: Sequence[Tensor],
    unembedding: tuple[Tensor, Tensor | None],
    targets: Tensor,
    backend: Backend,
    change: LogitChange,
    shares: Sequence[float] | None,
) -> Tensor:
    weight, bias = unembedding
    per_head = targets.movedim(2, 0).flatten(1)  # future, batch * seq
    valid = per_head != IGNORE
    compute = _BACKENDS[fitting_backend(weight) if backend == "auto" else backend]
    if shares and backend == "auto" and compute is _torch_rows and torch.is_grad_enabled():
        of_rows = per_head.new_tensor(shares, dtype=torch.float32).repeat_interleave(valid.sum(1))
        compute = partial(_ahead_rows, shares=of_rows)
    ce = compute(_valid_rows(head_hidden, valid), weight, bias, per_head[valid], change)  # n
    empty = torch.zeros(targets.numel(), dtype=torch.float32, device=weight.device)
    filled = empty.index_copy(0, valid.flatten().nonzero().squeeze(1), ce.float())
    return filled.view(targets.shape[2], *targets.shape[:2]).movedim(0, 2)


def _valid_rows(head_hidden: Sequence[Tensor], valid: Bool[Tensor, "future rows"]) -> Float[Tensor, "n dim"]:
    """Return the rows that meet the vocabulary: with the loss on completions that is often a small share of them."""
    rows = [
        hidden.flatten(0, 1).index_select(0, head.nonzero().squeeze(1))
        for hidden, head in zip(head_hidden, valid, strict=True)
    ]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _top1(hidden: Tensor, unembedding: tuple[Tensor, Tensor | None], targets: Tensor, change: LogitChange) -> Tensor:
    chunks = zip(hidden.flatten(0, 1).split(CHUNK_ROWS), targets.flatten().split(CHUNK_ROWS), strict=True)
    # Changed too: a cap makes equals of large logits, and a factor below 0 turns them round.
    right = [change(F.linear(rows, *unembedding)).argmax(-1) == target for rows, target in chunks]
    return torch.cat(right).view_as(targets)


def _torch_rows(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, change: LogitChange = UNCHANGED
) -> Tensor:
    # In bf16 the kernel would round the loss itself to 8 bits: 10.3 nats to the nearest 0.06.
    rows, weight, bias = rows.float(), weight.float(), None if bias is None else bias.float()
    if change.cap is not None:
        return _eager_rows(rows, weight, bias, targets, change)
    bias = None if bias is None else change.scaled(bias)
    return F.linear_cross_entropy(
        change.scaled(rows), weight, targets, linear_bias=bias, reduction="none", options=_CHUNKED
    )


def _ahead_rows(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, change: LogitChange, *, shares: Tensor
) -> Tensor:
    # As above; where everything is fp32 already this costs nothing.
    rows, weight, bias = rows.float(), weight.float(), None if bias is None else bias.float()
    if change.cap is not None:
        return _eager_rows(rows, weight, bias, targets, change)
    bias = None if bias is None else change.scaled(bias)
    return cross_entropy_ahead(change.scaled(rows), weight, bias, targets, shares, CHUNK_ROWS)


def _eager_rows(
    rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, change: LogitChange = UNCHANGED
) -> Tensor:
    # No rows give one empty chunk, not none: each rank must reach every parameter, or the gradient exchange hangs.
    chunks = zip(rows.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True)
    return torch.cat(
        [
            checkpoint(_chunk, row, weight, bias, target, change, use_reentrant=False, preserve_rng_state=False)
            for row, target in chunks
        ]
    )


def _chunk(rows: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, change: LogitChange) -> Tensor:
    return F.cross_entropy(change(F.linear(rows, weight, bias)).float(), targets, reduction="none")


_BACKENDS = {"torch": _torch_rows, "eager": _eager_rows}


def fitting_backend(weight: Tensor) -> Literal["torch", "eager"]:
    """Return what `auto` takes for an unembedding; see `per_head_cross_entropy`."""
    if weight.dtype != torch.float32 or torch.is_autocast_enabled(weight.device.type):
        return "eager"
    return "torch" if _torch_agrees_with_eager(weight.device) else "eager"


@lru_cache
def _torch_agrees_with_eager(device: torch.device) -> bool:
    """Compare values and gradients of the two on eight tokens; once per process and device."""
    try:
        # The first call may come from an evaluation, which has gradients switched off.
        with torch.inference_mode(mode=False), torch.enable_grad():
            found, expected = (_values_and_gradients(compute, device) for compute in (_torch_rows, _eager_rows))
    except RuntimeError as error:
        logger.warning("linear_cross_entropy does not run on %s, loss.backend is eager: %s", device, error)
        return False
    agrees = all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(found, expected, strict=True))
    if not agrees:
        logger.warning("linear_cross_entropy differs from plain PyTorch on %s, loss.backend is eager", device)
    return agrees


def _values_and_gradients(compute: Callable[..., Tensor], device: torch.device) -> list[Tensor]:
    # A generator of its own: the run's random numbers must not depend on the backend.
    generator = torch.Generator().manual_seed(0)
    shapes = ((8, 16), (32, 16), (32,))
    inputs = [torch.randn(shape, generator=generator).to(device).requires_grad_() for shape in shapes]
    targets = torch.arange(8, device=device) * 3
    ce = compute(*inputs, targets)
    return [ce, *torch.autograd.grad((ce * torch.arange(8, device=device)).sum(), inputs)]
