"""Which documents a report shows, with the scores that the run's algorithm reads beside them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.data.corpus import read_corpus
from wmtp.data.folds import FOLD, folds_of
from wmtp.data.rows import RowDataset
from wmtp.factory import ComponentFactory, resolve_models
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.scoring.scores import ScoringModels, score_rows
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe


@dataclass(frozen=True)
class ShownRows:
    """Rows that are weighed.

    Attributes:
        rows: Some of those that a run measures on, or of those that it learns.
        source: Where they are from, in words.
        total: How many rows there are of which these are some.
        tokenizer: That of the trained model.
    """

    rows: RowDataset
    source: str
    total: int
    tokenizer: object


def shown_rows(config: Config, recipe: Recipe, checkpoint: Path, wanted: int) -> ShownRows:
    """Return rows spread over the held-out ones, scored as training scores its own; nothing of that is kept.

    Args:
        config: Its base model is the checkpoint.
        recipe: Of the run.
        checkpoint: Of the run: its tokenizer makes the tokens.
        wanted: How many rows.

    Raises:
        DataError: If the data of the run cannot be read any more.
        IncompatibleModelError: If a model that scores is not there any more.
    """
    algorithm = ComponentFactory.create_algorithm(recipe)
    base = open_checkpoint(str(checkpoint), cache_dir=config.paths.cache_dir)
    tokenizer = load_tokenizer(base)
    columns = {score.name: score.column for score in algorithm.scores if score.column is not None}
    learned, held_out = read_corpus(recipe, tokenizer, base.where, columns, cache_dir=config.paths.cache_dir)
    fraction = recipe.data.validation.fraction if recipe.data.validation is not None else None
    rows, source = _preferred(learned, held_out, set(columns), fraction)
    places = np.unique(np.linspace(0, len(rows) - 1, min(wanted, len(rows))).round().astype(np.int64))
    scored = _scored(_in_folds(rows.take(places), algorithm), algorithm, config, recipe, (base, tokenizer))
    return ShownRows(scored, source, len(rows), tokenizer)


def _preferred(
    learned: RowDataset, held_out: RowDataset | None, columns: set[str], fraction: float | None
) -> tuple[RowDataset, str]:
    if held_out is None:
        return learned, "training documents, as the run holds none out: it has learned these"
    if missing := columns - set(held_out.document_scores()):
        return learned, f"training documents, which the run has learned: those held out have no {sorted(missing)[0]}"
    if fraction is None:
        return held_out, "held-out documents (those of data.validation.files), which the run has not learned"
    return held_out, (
        f"held-out documents, which the run has not learned: {fraction:.2g} of the texts in the files of data.train"
        " were kept out of training (data.validation.fraction), so the recipe's data.train names these files as well"
    )


def _in_folds(rows: RowDataset, algorithm: Algorithm) -> RowDataset:
    if not isinstance(algorithm, ValueAlgorithm) or algorithm.folds == 1:
        return rows
    return rows.with_figures(FOLD, folds_of(rows, algorithm.folds), per_token=False)


def _scored(
    rows: RowDataset, algorithm: Algorithm, config: Config, recipe: Recipe, base: tuple[Checkpoint, object]
) -> RowDataset:
    # What a run scores while training is scored here beforehand: the figures are the same.
    scores = [replace(score, online=False) for score in algorithm.scores if score.what != "column"]
    if not scores:
        return rows
    with TemporaryDirectory() as directory:
        models = ScoringModels.of(config, resolve_models(config, recipe), *base)
        return score_rows(rows, scores, replace(models, directory=Path(directory)), name="data.validation")
