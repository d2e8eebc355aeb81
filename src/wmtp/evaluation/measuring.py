"""A model over all windows: its figures, added up by document."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor

from wmtp.data.example import Batch
from wmtp.errors import DataError
from wmtp.evaluation.metrics import HeadFigures, head_figures
from wmtp.evaluation.sums import Sums
from wmtp.evaluation.windows import Windows
from wmtp.models.causal import CausalModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.targets import IGNORE, Rows
from wmtp.trust.guards import scoring_errors

logger = logging.getLogger("wmtp")

_REPORT_SECONDS = 15.0
_BOUNDS = ("attention_mask", "position_ids", "document_ids")


def measure(model: CausalModel, windows: Windows, batch_size: int | None, where: str) -> Sums:
    """Return the sums of a model's figures over all windows.

    Args:
        model: From `causal_model`.
        windows: What it reads.
        batch_size: Rows at once; None: as many as hold 4,096 tokens.
        where: Its address, for messages.

    Raises:
        DataError: If a loss is not finite.
        IncompatibleModelError: If the model raises anything.
    """
    sums: Sums | None = None
    done, started, reported, total = 0, time.monotonic(), time.monotonic(), windows.measured.tokens
    logger.info("%s: %s tokens in %d windows", where, f"{total:,}", windows.measured.windows)
    for batch, places in windows.batches(batch_size):
        with scoring_errors(where, f"windows of up to {batch['input_ids'].shape[1]} tokens"):
            figures, targets = _answered(model, batch)
        _require_finite(figures, places, windows, where)
        sums = sums or Sums.empty(windows.num_units, len(figures))
        sums.add(figures, targets != IGNORE, torch.from_numpy(windows.units)[places])
        done, now = done + _num_tokens(batch), time.monotonic()
        if now - reported > _REPORT_SECONDS:
            reported, rate = now, done / (now - started)
            logger.info("%s: %s of %s tokens, %s a second", where, f"{done:,}", f"{total:,}", f"{rate:,.0f}")
    assert sums is not None  # no windows are refused where they are read
    return sums


@torch.no_grad()
def _answered(model: CausalModel, batch: Batch) -> tuple[list[HeadFigures], Int[Tensor, "batch seq future"]]:
    """Return what each head says of a batch, and its targets, on the CPU."""
    device = next(model.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name in ("input_ids", *_BOUNDS)}
    rows, logits_of = _heads(model, inputs)
    bounds = Rows.of(*(inputs.get(name) for name in _BOUNDS))
    targets = bounds.targets(batch["labels"].to(device), len(rows))
    figures = []
    for k, hidden in enumerate(rows, 1):
        found = head_figures(partial(logits_of, k), hidden, targets[..., k - 1])
        figures.append(HeadFigures(*(each.cpu() for each in found)))
    return figures, targets.cpu()


def _heads(model: CausalModel, inputs: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Callable[[int, Tensor], Tensor]]:
    """Return for each head what its logits are made of, and what makes them; a foreign model's are made already."""
    if isinstance(model, MTPForCausalLM):
        own = {name: tensor for name, tensor in inputs.items() if name != "document_ids"}  # positions say the same
        return model.forward_heads(**own)[1].unbind(dim=2), model.logits
    logits = cast("Tensor", model(**inputs).logits)
    return logits.unbind(dim=2), lambda _, rows: rows


def _num_tokens(batch: Batch) -> int:
    return int(batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum())


def _require_finite(figures: list[HeadFigures], places: Tensor, windows: Windows, where: str) -> None:
    for k, found in enumerate(figures, 1):
        if not found.ce.isfinite().all():
            broken = (~found.ce.isfinite()).nonzero()[0].tolist()
            loss = float(found.ce[*broken])
            raise DataError(
                f"{where}: the loss of head {k} is {loss} on {windows.where(int(places[*broken]))}, at token"
                f" {broken[1] + 1} of its row",
                hint="check its weights with 'wmtp validate --deep', or let it compute in float32: dtype",
            )
