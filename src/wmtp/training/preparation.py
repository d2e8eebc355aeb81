"""Everything that a run needs before its first step, and every reason not to begin; nothing is written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from wmtp.algorithms.base import Algorithm
from wmtp.algorithms.weighting import head_prior
from wmtp.errors import DataError, TrainingError
from wmtp.factory import ComponentFactory, create_model_loader
from wmtp.loaders.base import LoadResult
from wmtp.models.adapter import ForeignModel, check_packing, trainable
from wmtp.models.mtp import MTPForCausalLM
from wmtp.settings.config import Config, Devices, Trust
from wmtp.settings.recipe import Recipe
from wmtp.training.arguments import check_trackers, training_arguments, training_device, training_dtype
from wmtp.training.checkpoints import CheckpointWriter, carried_files, published_checkpoints
from wmtp.training.data import Document, hold_out, read_documents
from wmtp.training.rows import RowDataset, build_rows
from wmtp.training.trainer import WMTPTrainer


@dataclass(frozen=True)
class PreparedRun:
    """A run that can begin.

    Attributes:
        directory: The run's directory; it holds no checkpoint yet.
        base: The model to train, as it was loaded.
        model: The same behind the one interface of training, on its device.
        algorithm: What weighs tokens.
        head_prior: One factor for each head that is trained.
        rows: What is learned.
        held_out: What is measured on; None: nothing.
        writer: Publishes its checkpoints.
        arguments: What `transformers.Trainer` is told.
    """

    directory: Path
    base: LoadResult
    model: MTPForCausalLM | ForeignModel
    algorithm: Algorithm
    head_prior: Float[Tensor, " future"]
    rows: RowDataset
    held_out: RowDataset | None
    writer: CheckpointWriter
    arguments: TrainingArguments

    def build_trainer(self, callbacks: list[TrainerCallback]) -> WMTPTrainer:
        """Return the trainer of this run."""
        return WMTPTrainer(
            model=self.model,
            args=self.arguments,
            train_dataset=self.rows,
            eval_dataset=self.held_out,
            data_collator=self.rows.collate,
            callbacks=callbacks,
            algorithm=self.algorithm,
            head_prior=self.head_prior,
            save=self.writer.save_step,
        )


def prepare(config: Config, recipe: Recipe, allow_code: Mapping[str, str]) -> PreparedRun:
    """Resolve, load and check everything that a run needs; takes and raises what `train` does."""
    algorithm = _trainable_algorithm(recipe)
    check_trackers(config)
    directory = _unused_directory(config, recipe)
    base = create_model_loader(_for_training(config, allow_code), recipe).load()
    _refuse_float16(base)
    arguments = training_arguments(config, recipe, directory, validates=recipe.data.validation is not None)
    model = trainable(base.model, backend=recipe.loss.backend).to(arguments.device)
    heads, vocab_size = _probe(model)
    prior = head_prior(recipe.loss.head_prior, _horizon(model, heads, recipe))
    rows, held_out = _read_rows(recipe, base, vocab_size)
    writer = _writer(directory, base, algorithm, recipe, {"train": rows, "validation": held_out})
    return PreparedRun(directory, base, model, algorithm, prior, rows, held_out, writer, arguments)


def _trainable_algorithm(recipe: Recipe) -> Algorithm:
    algorithm = ComponentFactory.create_algorithm(recipe)
    if algorithm.trainable is not None:
        raise TrainingError(algorithm.trainable, hint="'wmtp plan' shows what it would use; train.algo: baseline-mtp")
    return algorithm


def _unused_directory(config: Config, recipe: Recipe) -> Path:
    directory = Path(config.paths.output_dir) / recipe.run.name
    if found := [path.name for path in published_checkpoints(directory)]:
        raise TrainingError(
            f"{directory}: already holds checkpoints of a run: {', '.join(found)}",
            hint="choose another run.name, or move that directory away",
        )
    return directory


def _for_training(config: Config, allow_code: Mapping[str, str]) -> Config:
    # Loaded on the CPU, as the training arguments know which device belongs to this process.
    training_device(config.devices)
    devices = Devices(device="cpu", dtype=training_dtype(config.devices))
    trust = Trust(allow_code={**config.trust.allow_code, **allow_code})
    return config.model_copy(update={"devices": devices, "trust": trust})


def _refuse_float16(base: LoadResult) -> None:
    if any(parameter.dtype == torch.float16 for parameter in base.model.parameters()):
        raise TrainingError(
            f"{base.checkpoint.where}: stored in float16, whose gradients underflow to zero",
            hint="set devices.dtype to bfloat16 or float32; weights are cast while they are loaded",
        )


@torch.no_grad()
def _probe(model: MTPForCausalLM | ForeignModel) -> tuple[int, int]:
    """Return heads and vocabulary size as the model itself has them; not every metadata.json says."""
    device = next(model.parameters()).device
    _, _, heads, vocab_size = model(torch.zeros(1, 1, dtype=torch.long, device=device)).logits.shape
    return heads, vocab_size


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
    if recipe.data.train.packing:
        check_packing(model)
    return horizon


def _read_rows(recipe: Recipe, base: LoadResult, vocab_size: int) -> tuple[RowDataset, RowDataset | None]:
    if base.tokenizer is None:
        raise DataError(
            f"{base.checkpoint.where}: the base model has no tokenizer",
            hint="put its tokenizer.json and tokenizer_config.json beside its weights",
        )
    source, validation = recipe.data.train, recipe.data.validation
    documents, held_out = read_documents(source, field="data.train"), list[Document]()
    if validation is not None and validation.fraction is not None:
        documents, held_out = hold_out(documents, validation.fraction)
    elif validation is not None:
        held_out = read_documents(validation, field="data.validation")
    rows = build_rows(documents, base.tokenizer, source, name="data.train")
    if (largest := rows.largest_token()) >= vocab_size:
        raise DataError(
            f"{base.checkpoint.where}: its tokenizer makes token {largest}, and the model knows {vocab_size} tokens",
            hint="put the tokenizer beside the weights that they were trained with",
        )
    _check_positions(rows, base)
    return rows, build_rows(held_out, base.tokenizer, validation, name="data.validation") if validation else None


def _check_positions(rows: RowDataset, base: LoadResult) -> None:
    limit = base.checkpoint.config.get("max_position_embeddings") or base.checkpoint.config.get("n_positions")
    longest = max(len(example) for row in rows.rows for example in row)
    if isinstance(limit, int) and longest > limit:
        raise DataError(
            f"{base.checkpoint.where}: it knows {limit} positions, and the longest document has {longest} tokens",
            hint=f"set data.train.max_length: {limit}, or less",
        )


def _writer(
    directory: Path, base: LoadResult, algorithm: Algorithm, recipe: Recipe, data: Mapping[str, RowDataset | None]
) -> CheckpointWriter:
    fingerprints = {name: rows.fingerprint() for name, rows in data.items() if rows is not None}
    return CheckpointWriter(directory, base, algorithm, recipe, fingerprints, carried_files(base))
