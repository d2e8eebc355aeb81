"""Everything that a run needs before its first step, and every reason not to begin; nothing is written here."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.algorithms.weighting import head_prior
from wmtp.data.corpus import check_positions, check_vocabulary, read_corpus
from wmtp.data.folds import with_folds
from wmtp.data.mixing import mixed
from wmtp.data.rows import RowDataset
from wmtp.devices import training_device, training_dtype
from wmtp.errors import TrainingError
from wmtp.factory import ComponentFactory, Resolution, resolve_models
from wmtp.load_plan.share import Share
from wmtp.loaders.base import LoadResult
from wmtp.models.adapter import check_packing, trainable, unwrapped
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.value_heads import without_value_head
from wmtp.publishing.cards.origin import origin_of
from wmtp.publishing.write import stored_once
from wmtp.run_plan.launch import read_launch
from wmtp.run_plan.models import open_models, require_apart
from wmtp.run_plan.needs import require_needs
from wmtp.run_plan.trained import trained_parameters
from wmtp.scoring.fingerprint import scores_fingerprints
from wmtp.scoring.scores import SCORES_DIRECTORY, ScoringModels, online_scorers, score_rows
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.arguments import training_arguments
from wmtp.training.checkpoints import CheckpointWriter, carried_files
from wmtp.training.gathering import PlainCopy
from wmtp.training.identity import RunRecord
from wmtp.training.loading import ModelReader, shares_of_all
from wmtp.training.prepared import PreparedRun
from wmtp.training.rendezvous import join_processes
from wmtp.training.restoring import TrainedModel, kept_state, restore_algorithm
from wmtp.training.resuming import Continuation
from wmtp.training.saved_steps import refuse_used, require_unfinished
from wmtp.training.sharding import shard_model
from wmtp.training.trainable import set_trainable

logger = logging.getLogger("wmtp")


def prepare(
    config: Config, recipe: Recipe, allow_code: Mapping[str, str], going_on: Sequence[str] | None = None
) -> PreparedRun:
    """Resolve, load, score and check everything that a run needs; takes and raises what `train` does.

    Args:
        config: As of `train`.
        recipe: The same.
        allow_code: The same.
        going_on: Keys that may differ when a run goes on; None: it begins.
    """
    require_needs(config, recipe, trains_here=True)
    algorithm = ComponentFactory.create_algorithm(recipe)
    directory = _directory(config, recipe)
    (refuse_used if going_on is None else require_unfinished)(directory)
    if launch := read_launch(os.environ):
        join_processes(launch, training_device(config.devices))
    config = config.with_consent(allow_code)
    resolution = _resolved(config, recipe, algorithm)
    arguments = training_arguments(config, recipe, directory, validates=recipe.data.validation is not None)
    old = None if going_on is None else Continuation.find(directory, arguments.device, going_on)
    reader = _reader(config, recipe)
    base = _loaded(reader, resolution)
    model = trainable(base.model, backend=recipe.loss.backend)
    heads, vocab_size, width = probe(model)
    prior = head_prior(recipe.loss.head_prior, _horizon(model, heads, recipe))
    set_trainable(model, recipe, len(prior))
    _require_heads(algorithm, len(prior))
    rows, held_out = _read_rows(config, recipe, base, algorithm, vocab_size)
    fingerprints = {name: part.fingerprint() for name, part in (("train", rows), ("validation", held_out)) if part}
    record = RunRecord(recipe, base, _facts(config, arguments, fingerprints))
    trained = restore_algorithm(algorithm, model, base, width, recipe.run.seed)
    if old:
        old.take_over(record, algorithm, trained, reader)
    models = ScoringModels.of(config, resolution, base.checkpoint, base.tokenizer)
    rows = score_rows(rows, algorithm.scores, models, name="data.train")
    # Only now: a row that is drawn several times is scored once.
    rows = mixed(rows, [source.weight for source in recipe.data.train.sources], recipe.run.seed)
    algorithm.begin(rows.document_scores())
    record.scores = scores_fingerprints(rows)
    if old:
        old.check(record)
    # Only now: while a model scores, the one to train is not beside it on the device.
    base, trained, plain = _placed(base, trained, arguments, config, recipe, reader)
    online = online_scorers(algorithm.scores, models, str(arguments.device))
    state, carried = partial(kept_state, algorithm, plain.model if plain else trained), carried_files(base)
    writer = CheckpointWriter(
        directory, base, algorithm, recipe, fingerprints, carried, state, record.scores, record, origin_of(base)
    )
    saved = old.saved if old else None
    return PreparedRun(base, trained, algorithm, prior, rows, online, held_out, writer, arguments, saved, plain)


def _resolved(config: Config, recipe: Recipe, algorithm: Algorithm) -> Resolution:
    resolution = resolve_models(config, recipe)
    chosen = open_models(config, resolution)
    require_apart(recipe, algorithm, chosen)
    trained_parameters(recipe, chosen["base"])  # for what it refuses
    return resolution


def _loaded(reader: ModelReader, resolution: Resolution) -> LoadResult:
    base = reader.load(resolution.chosen["base"].uri)
    _refuse_float16(base)
    stored_once(base.model.state_dict())  # what no checkpoint can hold is refused now, rather than after training
    return base


def _directory(config: Config, recipe: Recipe) -> Path:
    directory = Path(config.paths.output_dir) / recipe.run.name
    if recipe.run.name == SCORES_DIRECTORY:
        raise TrainingError(
            f"run.name is {recipe.run.name!r}, and {directory} is where scores are kept, which runs share",
            hint="choose another run.name",
        )
    return directory


def _facts(config: Config, arguments: TrainingArguments, data: Mapping[str, str]) -> dict[str, Any]:
    """Return what a run is made of beside its recipe and its model."""
    devices = {"device": training_device(config.devices), "dtype": training_dtype(config.devices)}
    rows = {f"data.{name}": fingerprint for name, fingerprint in data.items()}
    return {**rows, "devices": devices, "world_size": arguments.world_size}


def _reader(config: Config, recipe: Recipe) -> ModelReader:
    share = None
    if recipe.train.sharding == "fsdp":
        share = Share(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return ModelReader(config, training_dtype(config.devices), share)


def _compute_dtype(model: TrainedModel, config: Config) -> torch.dtype:
    asked = training_dtype(config.devices)
    return next(model.parameters()).dtype if asked == "auto" else getattr(torch, asked)


def _placed(
    base: LoadResult,
    model: TrainedModel,
    arguments: TrainingArguments,
    config: Config,
    recipe: Recipe,
    reader: ModelReader,
) -> tuple[LoadResult, TrainedModel, PlainCopy | None]:
    """Put a model on its device, in shards where that is asked; checkpoints are then written from a plain copy."""
    if not reader.is_sharded:
        return base, model.to(arguments.device), None
    compute = _compute_dtype(model, config)
    plain, read_bytes = PlainCopy(model, compute), reader.read_by_now(base)
    kept = shard_model(model, arguments.device, compute)
    if recipe.data.packs and _is_asked_in_shards(base.model, recipe):
        check_packing(model)
    logger.info("%s; it has read %s bytes of its files", kept, f"{read_bytes:,}")
    shares = shares_of_all(kept, read_bytes, arguments.device)
    receipt = replace(base.receipt, notes=(*base.receipt.notes, str(kept)), shares=shares)
    return replace(base, model=unwrapped(without_value_head(plain.model)), receipt=receipt), model, plain


def _refuse_float16(base: LoadResult) -> None:
    if any(parameter.dtype == torch.float16 for parameter in base.model.parameters()):
        raise TrainingError(
            f"{base.checkpoint.where}: stored in float16, whose gradients underflow to zero",
            hint="set devices.dtype to bfloat16 or float32; weights are cast while they are loaded",
        )


@torch.no_grad()
def probe(model: MTPForCausalLM | ForeignModel) -> tuple[int, int, int | None]:
    """Return heads, vocabulary size and width of the hidden state as the model itself has them."""
    if isinstance(model, MTPForCausalLM):  # which can be asked, so that no weight is read for it
        vocab_size, width = model.unembedding(1)[0].shape
        return model.num_heads, vocab_size, width
    device = next(model.parameters()).device
    output = model(torch.zeros(1, 1, dtype=torch.long, device=device))
    _, _, heads, vocab_size = output.logits.shape
    return heads, vocab_size, None if output.hidden_states is None else output.hidden_states.shape[-1]


def _horizon(model: MTPForCausalLM | ForeignModel, heads: int, recipe: Recipe) -> int:
    """Return how many heads to train, once it is sure that the model can do what the recipe asks."""
    horizon = recipe.mtp.horizon or heads
    if horizon > heads:
        raise TrainingError(
            f"mtp.horizon is {horizon}, and the base model has {heads} prediction head(s)",
            hint=f"set mtp.horizon: {heads}, or make a model with more heads: 'wmtp grow'",
        )
    if recipe.run.export_next_token and not isinstance(model, MTPForCausalLM):
        raise TrainingError(
            "run.export_next_token is true, and the base model's own class has no trunk that can stand alone",
            hint="set run.export_next_token: false; only models of the class MTPForCausalLM are exported",
        )
    if recipe.data.packs and not _is_asked_in_shards(unwrapped(model), recipe):
        check_packing(model)
    return horizon


def _is_asked_in_shards(model: nn.Module, recipe: Recipe) -> bool:
    # To ask one of ours before it is cut, every process would read it whole.
    return recipe.train.sharding == "fsdp" and isinstance(model, MTPForCausalLM)


def _require_heads(algorithm: Algorithm, horizon: int) -> None:
    if horizon < algorithm.least_heads:
        raise TrainingError(
            f"{algorithm.name} shares weight between the heads of a position here, and {horizon} is trained:"
            " it would be equal weights",
            hint="train more heads ('wmtp grow' makes them), or choose a mode that weighs tokens",
        )


def _read_rows(
    config: Config, recipe: Recipe, base: LoadResult, algorithm: Algorithm, vocab_size: int
) -> tuple[RowDataset, RowDataset | None]:
    where = base.checkpoint.where
    columns = {score.name: score.column for score in algorithm.scores if score.column is not None}
    rows, held_out = read_corpus(recipe, base.tokenizer, where, columns, cache_dir=config.paths.cache_dir)
    for name, part in (("data.train", rows), ("data.validation", held_out)):
        if part is not None:
            check_vocabulary(part, where, vocab_size)
            check_positions(part, where, base.checkpoint.config, name=name)
    if isinstance(algorithm, ValueAlgorithm) and algorithm.folds > 1:
        rows = with_folds(rows, algorithm.folds)
    return rows, held_out
