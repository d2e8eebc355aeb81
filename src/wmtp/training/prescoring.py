"""The scores of a recipe's training data, computed before a run needs them: by one process, or by several together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from wmtp.algorithms.base import Algorithm
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.comparison.references import ReferenceLosses
from wmtp.data.corpus import read_corpus
from wmtp.devices import training_device
from wmtp.factory import ComponentFactory, resolve_models
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.run_plan.launch import read_launch
from wmtp.run_plan.needs import require_scoring_needs
from wmtp.scoring.ranks import Ranks
from wmtp.scoring.references import compare_references
from wmtp.scoring.scores import ScoredColumn, ScoringModels, score_columns
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.rendezvous import join_processes, part_after


@dataclass(frozen=True)
class RecipeScores:
    """What the data of a recipe was given.

    Attributes:
        columns: Each score that the algorithm reads before training.
        references: How good each reference is; known to the first process alone.
    """

    columns: list[ScoredColumn]
    references: list[ReferenceLosses]

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON values, without the figures."""
        references = [losses.to_dict() for losses in self.references]
        return {"scores": [column.to_dict() for column in self.columns], "references": references}


def score_recipe(config: Config, recipe: Recipe, *, allow_code: Mapping[str, str] | None = None) -> RecipeScores:
    """Compute the reference losses and rewards that a recipe's algorithm reads, and keep them for its runs.

    Processes that torchrun has started share the work, as those of a run do.

    Args:
        config: Where models are, and what to compute on.
        recipe: What is to be trained.
        allow_code: Consent to run a checkpoint's code, besides that in `config.trust`.

    Raises:
        TrainingError: If the machine lacks what scoring needs, or another process has failed.
        DataError: If the data cannot be used, or a figure is not finite.
        IncompatibleModelError: If no model fits the recipe, or one cannot give its score.
    """
    require_scoring_needs(config, recipe)
    algorithm = ComponentFactory.create_algorithm(recipe)
    if not algorithm.scores:
        return RecipeScores([], [])
    with _joined(config) as is_first:
        columns, compare = _scored(config.with_consent(allow_code or {}), recipe, algorithm)
    # Only now: the others would wait for it, and a process group does not wait for long.
    return RecipeScores(columns, list(compare()) if is_first else [])


@contextmanager
def _joined(config: Config) -> Iterator[bool]:
    """Be one of the processes that torchrun has started, if it has; yields whether this is the first of them."""
    launch, device = read_launch(os.environ), training_device(config.devices)
    if launch is None or torch.distributed.is_initialized():  # which is the caller's own
        yield Ranks().is_first
        return
    if device == "cuda":
        torch.cuda.set_device(launch.local_rank)
    try:
        join_processes(launch, device)
        yield launch.rank == 0
        Ranks().total(torch.zeros(1, dtype=torch.int32))  # once everybody is done
        torch.distributed.destroy_process_group()
    except BaseException as error:
        part_after(error)
        raise


def _scored(
    config: Config, recipe: Recipe, algorithm: Algorithm
) -> tuple[list[ScoredColumn], Callable[[], Iterator[ReferenceLosses]]]:
    resolution, cache_dir = resolve_models(config, recipe), config.paths.cache_dir
    base = open_checkpoint(resolution.chosen["base"].uri, cache_dir=cache_dir)
    tokenizer = load_tokenizer(base)
    columns = {score.name: score.column for score in algorithm.scores if score.column is not None}
    rows, held_out = read_corpus(recipe, tokenizer, base.where, columns, cache_dir=cache_dir)
    models = ScoringModels.of(config, resolution, base, tokenizer)
    scored = score_columns(rows, algorithm.scores, models, name="data.train")
    return scored, partial(compare_references, rows, held_out, algorithm.scores, models, recipe.data)
