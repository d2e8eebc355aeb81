"""Going through texts in batches, keeping what is done, and refusing figures that are none."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wmtp.errors import DataError, IncompatibleModelError
from wmtp.scoring.kinds import Answer, Kind
from wmtp.scoring.store import ScoreStore
from wmtp.trust.guards import scoring_errors

logger = logging.getLogger("wmtp")

# Tokens of a batch, padding counted: enough to keep a device busy. The logits of a model that returns them whole are
# 1 GB for so many, at 128k tokens of vocabulary and bf16.
BATCH_TOKENS = 4096
PART_SECONDS = 20.0
_REPORT_SECONDS = 15.0
_SHOWN_DOCUMENTS = 8


def compute(texts: Sequence[Int[Tensor, "tokens"]], answer: Answer, kind: Kind, store: ScoreStore) -> Tensor:
    """Return the figures of all texts, joined in their order; parts are kept on the way, and found again.

    Args:
        texts: What the model reads of each document.
        answer: The model.
        kind: What it gives.
        store: Keeps the parts.

    Raises:
        DataError: If a figure is not finite.
        IncompatibleModelError: If the model raises anything.
    """
    # The longest first: what does not fit into memory shows at once, and neighbours are of about one length.
    lengths = [len(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: (-lengths[index], index))
    sizes = [lengths[index] if kind.per_token else 1 for index in order]
    parts = _Parts(store, sizes)
    progress = _Progress(kind, [lengths[index] for index in order], parts.num_texts)
    try:
        for batch in batches(order[parts.num_texts :], texts):
            figures = _answered(answer, texts, batch, kind)
            for index, found in zip(batch, figures, strict=True):
                _require_finite(found, index, kind)
            parts.add(figures)
            progress.add(len(batch))
    finally:
        parts.keep()
    placed = dict(zip(order, torch.cat(parts.parts).split(sizes), strict=True))
    return torch.cat([placed[index] for index in range(len(texts))])


def _answered(answer: Answer, texts: Sequence[Tensor], batch: list[int], kind: Kind) -> list[Tensor]:
    """Return the figures of a batch; a document that the model cannot take is named."""
    where = kind.scored.checkpoint.where
    try:
        with scoring_errors(where, _documents(batch, texts, kind)):
            return answer([texts[index] for index in batch])
    except IncompatibleModelError as error:
        # After an error of its own a GPU answers nothing more, so nothing can be found out there.
        if len(batch) == 1 or error.__cause__ is None or isinstance(error.__cause__, torch.AcceleratorError):
            raise
        for index in batch:
            with scoring_errors(where, _documents([index], texts, kind)):
                answer([texts[index]])
        raise


def _documents(batch: Sequence[int], texts: Sequence[Tensor], kind: Kind) -> str:
    longest = max(len(texts[index]) for index in batch)
    if len(batch) == 1:
        return f"document {batch[0] + 1} of {kind.scored.name} ({longest} tokens)"
    numbers = ", ".join(str(index + 1) for index in sorted(batch)[:_SHOWN_DOCUMENTS])
    more = ", ..." if len(batch) > _SHOWN_DOCUMENTS else ""
    return f"documents {numbers}{more} of {kind.scored.name} (up to {longest} tokens), which it got at once"


class _Parts:
    """What is done so far, in the order of the work; on disk up to the last few seconds."""

    def __init__(self, store: ScoreStore, sizes: list[int]) -> None:
        self.parts = store.resumed()
        self._store, self._waiting, self._since = store, list[Tensor](), time.monotonic()
        self._done = sum(map(len, self.parts))
        ends = [0, *accumulate(sizes)]
        if self._done not in ends:  # parts of some other order
            self.parts, self._done = [], 0
        self.num_texts = ends.index(self._done)

    def add(self, figures: Sequence[Tensor]) -> None:
        self._waiting += [torch.atleast_1d(found) for found in figures]
        if time.monotonic() - self._since > PART_SECONDS:
            self.keep()

    def keep(self) -> None:
        if self._waiting:
            part = torch.cat(self._waiting)
            self._store.add(self._done, part)
            self.parts.append(part)
            self._done += len(part)
        self._waiting, self._since = [], time.monotonic()


class _Progress:
    """Log lines, every so often."""

    def __init__(self, kind: Kind, lengths: list[int], num_done: int) -> None:
        self._label = f"{kind.scored.score.what} by {kind.scored.checkpoint.where}"
        self._ends = [0, *accumulate(lengths)]
        self._first, self._num_done = self._ends[num_done], num_done
        self._started = self._reported = time.monotonic()
        resumed = f", resumed after {self._first:,}" if num_done else ""
        logger.info("%s: %d documents, %s tokens%s", self._label, len(lengths), f"{self._ends[-1]:,}", resumed)

    def add(self, num_texts: int) -> None:
        self._num_done += num_texts
        now = time.monotonic()
        if now - self._reported > _REPORT_SECONDS:
            self._reported, done, total = now, self._ends[self._num_done], self._ends[-1]
            rate = (done - self._first) / (now - self._started)
            logger.info("%s: %s of %s tokens, %s a second", self._label, f"{done:,}", f"{total:,}", f"{rate:,.0f}")


def batches(order: Sequence[int], texts: Sequence[Tensor]) -> Iterator[list[int]]:
    """Yield places of texts that a model reads at once; `order` begins with the longest."""
    batch: list[int] = []
    for index in order:
        # The first is the longest of a batch.
        if batch and (len(batch) + 1) * len(texts[batch[0]]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _require_finite(figures: Float[Tensor, "..."], index: int, kind: Kind) -> None:
    if figures.isfinite().all():
        return
    flat = figures.flatten()
    place = int((~flat.isfinite()).nonzero()[0])
    token = f", token {place + 1}" if kind.per_token else ""
    raise DataError(
        f"{kind.scored.checkpoint.where}: the {kind.scored.score.what} that it gives to document {index + 1} of"
        f" {kind.scored.name}{token}, is {float(flat[place])}",
        hint="check its weights with 'wmtp validate --deep', or let it compute in float32: devices.dtype",
    )
