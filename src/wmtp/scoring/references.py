"""Whether a reference is better than the model to train, measured before a run on a little held-out data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wmtp.algorithms.base import Score
from wmtp.comparison.references import ReferenceLosses, keep_losses, losses_file, read_losses
from wmtp.data.rows import RowDataset
from wmtp.errors import DataError, WmtpError
from wmtp.models.targets import IGNORE
from wmtp.scoring.scores import ScoringModels, checked_kind
from wmtp.scoring.work import batches
from wmtp.settings.recipe import Data
from wmtp.trust.guards import scoring_errors
from wmtp.untrusted import plain

logger = logging.getLogger("wmtp")

# Enough for the second digit of a mean loss, and seconds of work for a small model.
_SAMPLE_TOKENS = 32_768


def compare_references(
    rows: RowDataset, held_out: RowDataset | None, scores: Sequence[Score], models: ScoringModels, data: Data
) -> Iterator[ReferenceLosses]:
    """Yield the losses of each reference beside those of the base model, measured once and kept.

    Validation data where there is some, else documents from all over the training data; of either about 32,768
    tokens. A model that cannot be asked is logged: whether a reference is any good is never what stops a run.

    Args:
        rows: The training data.
        held_out: The validation data.
        scores: What the algorithm reads.
        models: What scores, and the model to train.
        data: The recipe's section, which they are from.
    """
    for score in scores:
        if score.what == "nll" and score.role is not None:
            name = "data.train" if held_out is None else "data.validation"
            try:
                yield _kept_or_measured(held_out or rows, score, models, data, name)
            except WmtpError as error:
                logger.warning("%s: not compared with the base model: %s", score.name, plain(error.problem))


def _kept_or_measured(rows: RowDataset, score: Score, models: ScoringModels, data: Data, name: str) -> ReferenceLosses:
    path = losses_file(models.directory, models.base, models.open(score), data, bits=models.bits(score))
    if (kept := read_losses(path)) is not None:
        return kept
    sample = _sample(rows)
    losses = ReferenceLosses(
        score=score.name,
        reference=models.open(score).where,
        base=models.base.where,
        data=name,
        documents=len(sample),
        tokens=sample.num_targets,
        reference_loss=_mean_loss(sample, score, models, name),
        base_loss=_mean_loss(sample, replace(score, role="base"), models, name),
    )
    keep_losses(path, losses)
    return losses


def _sample(rows: RowDataset) -> RowDataset:
    """Return documents at equal distances, a row each, the longest first."""
    step = math.ceil(rows.num_tokens / _SAMPLE_TOKENS)
    places = range(0, len(rows.lengths), step)
    examples = [replace(rows.table.example(place), scores={}, document="") for place in places]
    return RowDataset([(each,) for each in sorted(examples, key=len, reverse=True)])


def _mean_loss(sample: RowDataset, score: Score, models: ScoringModels, name: str) -> float:
    """Return the mean loss of the tokens to learn, in nats; nothing of the model is left in memory."""
    kind = checked_kind(sample, score, models, name)
    answer = kind.load(lambda: models.load(score, models.device).model, sample, models.device)
    examples, texts, total = list(sample.examples), kind.texts(sample), 0.0
    for batch in batches(range(len(texts)), texts):
        with scoring_errors(kind.scored.checkpoint.where, f"a sample of {name}"):
            found = answer([texts[index] for index in batch])
        for index, figures in zip(batch, found, strict=True):
            is_learned = examples[index].labels[1:] != IGNORE
            total += float(figures[1:][is_learned].double().sum())
    if not math.isfinite(total):
        raise DataError(
            f"{kind.scored.checkpoint.where}: its loss on a sample of {name} is {total}",
            hint="check its weights with 'wmtp validate --deep'",
        )
    return total / sample.num_targets
