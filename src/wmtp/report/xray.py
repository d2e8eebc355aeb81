"""The token X-ray: documents with each token's weight, by head and over the saved steps of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from wmtp.algorithms.base import Algorithm
from wmtp.data.folds import FOLD
from wmtp.devices import training_device, training_dtype
from wmtp.factory import ComponentFactory
from wmtp.report.held_out import ShownRows, shown_rows
from wmtp.report.ranking import mean_weights, ranked
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import token_texts, visible
from wmtp.report.weighed import Place, SavedModel, WeighedStep, places, weigh_rows
from wmtp.settings.config import Config, Trust
from wmtp.settings.recipe import Recipe, recipe_of
from wmtp.settings.yaml_file import Document
from wmtp.training.run_file import RUN_FILE

MOST_STEPS = 8
MOST_TOKENS = 600  # of a document; a page of several longer ones in many steps would be larger than a browser likes


@dataclass(frozen=True)
class XRayOptions:
    """What of a run is looked at.

    Attributes:
        steps: Which saved steps; none: all of them, at most 8 spread over the run.
        documents: How many documents.
        allow_code: Consent to run the checkpoint's code, by file. What the run's own files say of it does not count,
            as they may be a stranger's.
    """

    steps: tuple[int, ...] = ()
    documents: int = 6
    allow_code: Mapping[str, str] = field(default_factory=dict)


def xray(run: SavedRun, options: XRayOptions) -> dict[str, Any]:
    """Return documents and their weights as plain JSON values, as the page shows them; nothing is kept on disk.

    Loads the model of each step in turn, and whatever scores the documents.

    Raises:
        WmtpError: If a checkpoint, the data or a model that scores cannot be read any more.
    """
    chosen = run.chosen(options.steps, MOST_STEPS)
    newest = chosen[max(chosen)]
    config, recipe = _settings(run, str(newest), options)
    batch_size = recipe.train.per_device_train_batch_size
    shown = shown_rows(config, recipe, newest, max(batch_size, options.documents))
    weighed = {
        step: weigh_rows(SavedModel.load(path, step, config, recipe), shown.rows, batch_size)
        for step, path in chosen.items()
    }
    losses = {score.name for score in ComponentFactory.create_algorithm(recipe).scores if score.what == "nll"}
    found = [place for place in places(shown.rows, batch_size) if place.example.num_targets]
    return {
        "source": shown.source,
        "rows": len(shown.rows),
        "total": shown.total,
        "texts": len(found),
        "batch": min(batch_size, len(shown.rows)),
        "steps": list(weighed),
        "labels": _labels(ComponentFactory.create_algorithm(recipe)),
        "statistics": [[_rounded_all(head) for head in step.statistics] for step in weighed.values()],
        "documents": [_document(place, shown, weighed, losses) for place in _spread(found, options.documents)],
        **ranked(mean_weights(found, weighed[max(weighed)]), shown.tokenizer),
    }


def _settings(run: SavedRun, base: str, options: XRayOptions) -> tuple[Config, Recipe]:
    where = run.directory / RUN_FILE
    config = Document(where, dict(run.file.config)).validate(Config)
    recipe = recipe_of(run.file.recipe, where=where)
    models = config.paths.models.model_copy(update={"base": [base]})
    devices = config.devices.model_copy(
        update={"device": training_device(config.devices), "dtype": training_dtype(config.devices)}
    )
    paths, trust = config.paths.model_copy(update={"models": models}), Trust(allow_code=dict(options.allow_code))
    return config.model_copy(update={"paths": paths, "devices": devices, "trust": trust}), recipe


def _labels(algorithm: Algorithm) -> dict[str, str]:
    """Return in words what each score beside the tokens is."""
    models = {role.name: role.wmtp_type.replace("_", " ") for role in algorithm.roles}
    kinds = {
        "nll": "loss of the {} (nats)",
        "reward": "reward of the text, by the {}",
        "column": "{} of the text, as in the data",
    }
    return {
        score.name: kinds[score.what].format(models[score.role] if score.role else visible(score.column or ""))
        for score in algorithm.scores
    } | {FOLD: "part of the data that the text is in (fold)"}


def _document(place: Place, shown: ShownRows, weighed: Mapping[int, WeighedStep], losses: Set[str]) -> dict[str, Any]:
    example = place.example
    length = min(len(example), MOST_TOKENS)
    scores = {name: values[:length] if values.dim() else values for name, values in example.scores.items()}
    for name in losses & scores.keys():
        scores[name] = _but_first(scores[name])
    return {
        "where": example.where,
        "tokens": len(example),
        "text": token_texts(shown.tokenizer, example.input_ids[:length].tolist()),
        "scores": {name: _numbers(values) for name, values in scores.items()},
        "steps": [_at_step(place, step, length) for step in weighed.values()],
    }


def _but_first(losses: Tensor) -> Tensor:
    """Return losses without that of the first token, before which there is nothing to predict it from."""
    first = torch.arange(len(losses)) == 0
    return losses.masked_fill(first, torch.nan)


def _at_step(place: Place, step: WeighedStep, length: int) -> dict[str, Any]:
    batch = step.batches[place.batch]
    figures = {name: _numbers(place.of(values, length)) for name, values in batch.figures.items()}
    return {
        "weights": _numbers(place.of(batch.weights, length)),
        "ce": _numbers(place.of(batch.ce, length)),
        "figures": figures,
    }


def _spread(found: Sequence[Place], wanted: int) -> Iterator[Place]:
    number = min(wanted, len(found))
    for place in range(number):
        yield found[round(place * (len(found) - 1) / max(number - 1, 1))]


def _numbers(values: Tensor) -> Any:
    if values.dim() == 0:
        return _rounded(float(values))
    return [_numbers(each) for each in values] if values.dim() > 1 else [_rounded(each) for each in values.tolist()]


def _rounded_all(figures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in figures.items()}


def _rounded(value: float) -> float | None:
    """Return three digits of a number; None, which JSON has, for what is not finite."""
    return float(f"{value:.3g}") if math.isfinite(value) else None
