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
from wmtp.scoring.ranks import Ranks
from wmtp.scoring.store import ScoreStore
from wmtp.trust.guards import scoring_errors

logger = logging.getLogger("wmtp")

# Tokens of a batch, padding counted: enough to keep a device busy. The logits of a model that returns them whole are
# 1 GB for so many, at 128k tokens of vocabulary and bf16.
BATCH_TOKENS = 4096
PART_SECONDS = 20.0
# After which processes exchange what they have: the slower one is waited for, and a failure of one is heard.
_ROUND_SECONDS = 5.0
_REPORT_SECONDS = 15.0
_SHOWN_DOCUMENTS = 8


def compute(
    texts: Sequence[Int[Tensor, "tokens"]], answer: Answer, kind: Kind, store: ScoreStore, ranks: Ranks
) -> Tensor:
    """Return the figures of all texts, joined in their order; parts are kept on the way, and found again.

    Of several processes each answers whole batches of what one would answer, so that figures are the same to the bit.

    Args:
        texts: What the model reads of each document.
        answer: The model.
        kind: What it gives.
        store: Keeps the parts.
        ranks: The processes that share the work.

    Raises:
        DataError: If a figure is not finite.
        IncompatibleModelError: If the model raises anything.
        TrainingError: If another process has failed.
    """
    # The longest first: what does not fit into memory shows at once, and neighbours are of about one length.
    lengths = [len(text) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: (-lengths[index], index))
    sizes = [lengths[index] if kind.per_token else 1 for index in order]
    parts = _Parts(store, sizes, ranks)
    progress = _Progress(kind, [lengths[index] for index in order], parts.num_texts, ranks)
    before, left = (list(batches(some, texts)) for some in (order[: parts.num_texts], order[parts.num_texts :]))
    asked = _Asked(answer, texts, before + left, kind)
    try:
        for places in _rounds(range(len(before), len(asked.batches)), ranks):
            parts.add(_shared(asked, places, ranks))
            progress.add(sum(len(asked.batches[place]) for place in places))
    finally:
        parts.keep()
    placed = dict(zip(order, torch.cat(parts.parts).split(sizes), strict=True))
    return torch.cat([placed[index] for index in range(len(texts))])


def _rounds(places: Sequence[int], ranks: Ranks) -> Iterator[Sequence[int]]:
    """Yield batches, by their places, after which the processes meet: one alone, or some seconds' work of several."""
    done, each = 0, 1
    while done < len(places):
        started = time.monotonic()
        yield places[done : done + each * ranks.count]
        done += each * ranks.count
        if ranks.count > 1:
            wanted = int(each * _ROUND_SECONDS / max(time.monotonic() - started, 1e-3))
            wanted = max(1, min(wanted, 2 * each))
            each = int(ranks.total(torch.tensor(wanted if ranks.is_first else 0)))


def _shared(asked: _Asked, places: Sequence[int], ranks: Ranks) -> Float[Tensor, "figures"]:
    """Return the figures of some batches, each of which one process answers."""
    own = range(ranks.rank, len(places), ranks.count)
    found = ranks.each(lambda: {each: asked(places[each]) for each in own})
    sizes = [asked.num_figures(place) for place in places]
    given = [found[each] if each in found else torch.zeros(size) for each, size in enumerate(sizes)]
    return ranks.put_together(torch.cat(given)) if ranks.count > 1 else torch.cat(given)


class _Asked:
    """A model that is asked batch by batch, and whose answers depend on no batch that another process is asked.

    Attributes:
        batches: Indices of texts, by the place of their batch.
    """

    def __init__(self, answer: Answer, texts: Sequence[Tensor], parts: list[list[int]], kind: Kind) -> None:
        self.batches = parts
        self._answer, self._texts, self._kind = answer, texts, kind
        uneven = (place for place, batch in enumerate(parts) if len({len(texts[index]) for index in batch}) > 1)
        self._decisive = next(uneven, None) if kind.learns_of_padding else None

    def __call__(self, place: int) -> Float[Tensor, "figures"]:
        if self._decisive is not None and self._decisive <= place:
            decisive, self._decisive = self._decisive, None
            if decisive < place:  # somebody else's, or of an earlier run: what it shows is needed here as well
                self(decisive)
        batch = self.batches[place]
        figures = _answered(self._answer, self._texts, batch, self._kind)
        for index, found in zip(batch, figures, strict=True):
            _require_finite(found, index, self._kind)
        return torch.cat([torch.atleast_1d(found) for found in figures])

    def num_figures(self, place: int) -> int:
        """Return how many figures a batch has."""
        batch = self.batches[place]
        return sum(len(self._texts[index]) for index in batch) if self._kind.per_token else len(batch)


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
    """What is done so far, in the order of the work; on disk, by the first process, up to the last few seconds."""

    def __init__(self, store: ScoreStore, sizes: list[int], ranks: Ranks) -> None:
        found = ranks.of_first(lambda: torch.cat([torch.zeros(0), *store.resumed()]))
        assert found is not None
        self._store, self._ranks, self._waiting, self._since = store, ranks, list[Tensor](), time.monotonic()
        ends = [0, *accumulate(sizes)]
        # Parts of some other order are of no use.
        self.parts, self._done = ([found], len(found)) if len(found) in ends else ([], 0)
        self.num_texts = ends.index(self._done)

    def add(self, figures: Tensor) -> None:
        self._waiting.append(figures)
        if int(self._ranks.total(torch.tensor(int(self._is_due)))):
            self._ranks.each(self.keep)

    def keep(self) -> None:
        if self._waiting:
            part = torch.cat(self._waiting)
            if self._ranks.is_first:
                self._store.add(self._done, part)
            self.parts.append(part)
            self._done += len(part)
        self._waiting, self._since = [], time.monotonic()

    @property
    def _is_due(self) -> bool:
        return self._ranks.is_first and time.monotonic() - self._since > PART_SECONDS


class _Progress:
    """Log lines, every so often."""

    def __init__(self, kind: Kind, lengths: list[int], num_done: int, ranks: Ranks) -> None:
        self._label = f"{kind.scored.score.what} by {kind.scored.checkpoint.where}"
        self._ends = [0, *accumulate(lengths)]
        self._first, self._num_done = self._ends[num_done], num_done
        self._started = self._reported = time.monotonic()
        resumed = f", resumed after {self._first:,}" if num_done else ""
        self._level = logging.INFO if ranks.is_first else logging.DEBUG
        shared = f", shared by {ranks.count} processes" if ranks.count > 1 else ""
        facts = (f"{self._ends[-1]:,}", resumed, shared)
        logger.log(self._level, "%s: %d documents, %s tokens%s%s", self._label, len(lengths), *facts)

    def add(self, num_texts: int) -> None:
        self._num_done += num_texts
        now = time.monotonic()
        if now - self._reported > _REPORT_SECONDS:
            self._reported, done, total = now, self._ends[self._num_done], self._ends[-1]
            rate = (done - self._first) / (now - self._started)
            facts = (f"{done:,}", f"{total:,}", f"{rate:,.0f}")
            logger.log(self._level, "%s: %s of %s tokens, %s a second", self._label, *facts)


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
    token = f", token {place + 1}," if kind.per_token else ""
    raise DataError(
        f"{kind.scored.checkpoint.where}: the {kind.scored.score.what} that it gives to document {index + 1} of"
        f" {kind.scored.name}{token} is {float(flat[place])}",
        hint="check its weights with 'wmtp validate --deep', or let it compute in float32: devices.dtype",
    )
