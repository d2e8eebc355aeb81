"""Everything that a run needs before its first step, and every reason not to begin; nothing is written here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.algorithms.weighting import head_prior
from wmtp.data.corpus import check_positions, check_vocabulary, read_corpus
from wmtp.data.folds import with_folds
from wmtp.data.mixing import mixed
from wmtp.data.rows import RowDataset
from wmtp.devices import training_device, training_dtype
from wmtp.errors import TrainingError
from wmtp.factory import ComponentFactory, create_model_loader, resolve_models
from wmtp.loaders.base import LoadResult
from wmtp.models.adapter import ForeignModel, check_packing, trainable
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.value_heads import WithValueHead
from wmtp.publishing.write import stored_once
from wmtp.run_plan.launch import read_launch
from wmtp.run_plan.models import open_models, require_apart
from wmtp.run_plan.needs import require_needs
from wmtp.scoring.fingerprint import scores_fingerprints
from wmtp.scoring.scores import SCORES_DIRECTORY, ScoringModels, online_scorers, score_rows
from wmtp.settings.config import Config, Devices, Trust
from wmtp.settings.recipe import Recipe
from wmtp.training.arguments import training_arguments
from wmtp.training.checkpoints import CheckpointWriter, carried_files, published_checkpoints
from wmtp.training.rendezvous import join_processes
from wmtp.training.restoring import TrainedModel, kept_state, restore_algorithm
from wmtp.training.trainer import OnlineScore, WMTPTrainer
from wmtp.training.trunk import set_trunk
from wmtp.training.value_stage import fit_values


@dataclass(frozen=True)
class PreparedRun:
    """A run that can begin.

    Attributes:
        directory: The run's directory; it holds no checkpoint yet.
        base: The model to train, as it was loaded.
        model: The same behind the one interface of training, on its device, with value heads where they are needed.
        algorithm: What weighs tokens.
        head_prior: One factor for each head that is trained.
        rows: What is learned, with the scores that the algorithm reads.
        online: Scores that are computed while training, by name.
        held_out: What is measured on; None: nothing.
        writer: Publishes its checkpoints.
        arguments: What `transformers.Trainer` is told.
    """

    directory: Path
    base: LoadResult
    model: TrainedModel
    algorithm: Algorithm
    head_prior: Float[Tensor, " future"]
    rows: RowDataset
    online: Mapping[str, OnlineScore]
    held_out: RowDataset | None
    writer: CheckpointWriter
    arguments: TrainingArguments

    def build_trainer(self, callbacks: list[TrainerCallback]) -> WMTPTrainer:
        """Return the trainer of this run."""
        return self._trainer(self.arguments, self.rows, eval_dataset=self.held_out, callbacks=callbacks)

    def fit_values(self) -> list[float] | None:
        """Fit value heads where the algorithm has them; returns the explained variance by relative position.

        Raises:
            TrainingError: If they learn nothing.
        """
        if not isinstance(self.algorithm, ValueAlgorithm) or self.algorithm.fit_steps == 0:
            return None
        build = partial(self._trainer, values_only=True)
        assert isinstance(self.model, WithValueHead)
        return fit_values(self.algorithm, self.model, self.rows, self.arguments, build)

    def _trainer(self, arguments: TrainingArguments, rows: RowDataset, **more: Any) -> WMTPTrainer:
        return WMTPTrainer(
            model=self.model,
            args=arguments,
            train_dataset=rows,
            data_collator=rows.collate,
            algorithm=self.algorithm,
            head_prior=self.head_prior,
            online=self.online,
            save=self.writer.save_step,
            **more,
        )


def prepare(config: Config, recipe: Recipe, allow_code: Mapping[str, str]) -> PreparedRun:
    """Resolve, load, score and check everything that a run needs; takes and raises what `train` does."""
    require_needs(config, recipe, trains_here=True)
    algorithm = ComponentFactory.create_algorithm(recipe)
    directory = _unused_directory(config, recipe)
    if launch := read_launch(os.environ):
        join_processes(launch, training_device(config.devices))
    config = _with_consent(config, allow_code)
    resolution = resolve_models(config, recipe)
    require_apart(recipe, algorithm, open_models(config, resolution))
    base = create_model_loader(_on_cpu(config)).load(resolution.chosen["base"].uri)
    _refuse_float16(base)
    stored_once(base.model.state_dict())  # what no checkpoint can hold is refused now, rather than after training
    arguments = training_arguments(config, recipe, directory, validates=recipe.data.validation is not None)
    model = trainable(base.model, backend=recipe.loss.backend)
    heads, vocab_size, width = _probe(model)
    prior = head_prior(recipe.loss.head_prior, _horizon(model, heads, recipe))
    set_trunk(model, recipe.mtp.trunk, len(prior))
    _require_heads(algorithm, len(prior))
    rows, held_out = _read_rows(config, recipe, base, algorithm, vocab_size)
    fingerprints = {name: part.fingerprint() for name, part in (("train", rows), ("validation", held_out)) if part}
    trained = restore_algorithm(algorithm, model, base, width, recipe.run.seed)
    models = ScoringModels.of(config, resolution, base.checkpoint, base.tokenizer)
    rows = score_rows(rows, algorithm.scores, models, name="data.train")
    # Only now: a row that is drawn several times is scored once.
    rows = mixed(rows, [source.weight for source in recipe.data.train.sources], recipe.run.seed)
    algorithm.begin(rows.document_scores())
    # Only now: while a model scores, the one to train is not beside it on the device.
    trained, online = trained.to(arguments.device), online_scorers(algorithm.scores, models, str(arguments.device))
    state, scores = partial(kept_state, algorithm, trained), scores_fingerprints(rows)
    writer = CheckpointWriter(
        directory, base, algorithm, recipe, fingerprints, carried_files(base), state, scores=scores
    )
    return PreparedRun(directory, base, trained, algorithm, prior, rows, online, held_out, writer, arguments)


def _unused_directory(config: Config, recipe: Recipe) -> Path:
    directory = Path(config.paths.output_dir) / recipe.run.name
    if recipe.run.name == SCORES_DIRECTORY:
        raise TrainingError(
            f"run.name is {recipe.run.name!r}, and {directory} is where scores are kept, which runs share",
            hint="choose another run.name",
        )
    if found := [path.name for path in published_checkpoints(directory)]:
        raise TrainingError(
            f"{directory}: already holds checkpoints of a run: {', '.join(found)}",
            hint="choose another run.name, or move that directory away",
        )
    return directory


def _with_consent(config: Config, allow_code: Mapping[str, str]) -> Config:
    return config.model_copy(update={"trust": Trust(allow_code={**config.trust.allow_code, **allow_code})})


def _on_cpu(config: Config) -> Config:
    # The training arguments know which device belongs to this process.
    training_device(config.devices)
    return config.model_copy(update={"devices": Devices(device="cpu", dtype=training_dtype(config.devices))})


def _refuse_float16(base: LoadResult) -> None:
    if any(parameter.dtype == torch.float16 for parameter in base.model.parameters()):
        raise TrainingError(
            f"{base.checkpoint.where}: stored in float16, whose gradients underflow to zero",
            hint="set devices.dtype to bfloat16 or float32; weights are cast while they are loaded",
        )


@torch.no_grad()
def _probe(model: MTPForCausalLM | ForeignModel) -> tuple[int, int, int | None]:
    """Return heads, vocabulary size and width of the hidden state as the model itself has them."""
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
    if recipe.data.packs:
        check_packing(model)
    return horizon


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
