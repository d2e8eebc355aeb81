"""A run that has everything it needs, and what it does with that: the stage of value heads, and training itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.data.rows import RowDataset
from wmtp.errors import TrainingError
from wmtp.loaders.base import LoadResult
from wmtp.models.value_heads import WithValueHead, without_value_head
from wmtp.training.checkpoints import CheckpointWriter
from wmtp.training.disk import going_on_after_errors
from wmtp.training.gathering import PlainCopy
from wmtp.training.processes import together
from wmtp.training.restoring import TrainedModel
from wmtp.training.resumable import Loop, Save
from wmtp.training.saved_steps import SavedStep
from wmtp.training.stopping import StopRequest
from wmtp.training.trainable import HeadsFirst
from wmtp.training.trainer import OnlineScore, WMTPTrainer
from wmtp.training.value_stage import fit_values


@dataclass(frozen=True)
class PreparedRun:
    """A run that can begin, or go on.

    Attributes:
        base: The model to train, as it was loaded; with the weights of `saved` where there is one.
        model: The same behind the one interface of training, on its device, with value heads where they are needed.
        algorithm: What weighs tokens.
        head_prior: One factor for each head that is trained.
        rows: What is learned, with the scores that the algorithm reads.
        online: Scores that are computed while training, by name.
        held_out: What is measured on; None: nothing.
        writer: Publishes its checkpoints.
        arguments: What `transformers.Trainer` is told.
        saved: The checkpoint to go on from; None: the run begins.
        plain: What checkpoints are written from where the model is in shards; None: the model itself.
    """

    base: LoadResult
    model: TrainedModel
    algorithm: Algorithm
    head_prior: Float[Tensor, " future"]
    rows: RowDataset
    online: Mapping[str, OnlineScore]
    held_out: RowDataset | None
    writer: CheckpointWriter
    arguments: TrainingArguments
    saved: SavedStep | None
    plain: PlainCopy | None = None

    def build_trainer(self, callbacks: list[TrainerCallback], stop: StopRequest) -> WMTPTrainer:
        """Return the trainer of this run; it stops where `stop` asks for it."""
        if self.writer.recipe.train.heads_warmup_steps:
            callbacks = [HeadsFirst(without_value_head(self.model), self.writer.recipe), *callbacks]
        return self._trainer(
            self.arguments,
            self.rows,
            save=self._saving(self.writer.save_step),
            resumed=self._loop("model"),
            stop=stop,
            eval_dataset=self.held_out,
            callbacks=callbacks,
        )

    def fit_values(self, stop: StopRequest) -> list[float] | None:
        """Fit value heads where the algorithm has them and that is not done yet; returns what they explain.

        Raises:
            TrainingError: If they learn nothing; what the stage has saved is removed then.
        """
        algorithm, record = self.algorithm, self.writer.record
        assert record is not None
        if not isinstance(algorithm, ValueAlgorithm) or algorithm.fit_steps == 0 or record.explained is not None:
            return record.explained
        assert isinstance(self.model, WithValueHead)
        save = self._saving(self.writer.save_values)
        build = partial(self._trainer, values_only=True, save=save, resumed=self._loop("values"), stop=stop)
        explained = fit_values(algorithm, self.model, self.rows, self.arguments, build)
        try:
            algorithm.require_fit(explained)
        except TrainingError:
            together(self.writer.remove_values, self.arguments.device)
            raise
        record.explained = explained
        self.gather()
        together(partial(save, algorithm.fit_steps, None, None), self.arguments.device)
        return explained

    def gather(self) -> None:
        """Bring together what a checkpoint is written from; every process has a part in it."""
        if self.plain is not None:
            self.writer.directory.mkdir(parents=True, exist_ok=True)
            self.plain.update(self.model, self.writer.directory)

    def _loop(self, stage: str) -> Loop | None:
        return self.saved.loop() if self.saved is not None and self.saved.run.stage == stage else None

    def _saving(self, save: Save) -> Save:
        continues = self.writer.recipe.train.on_save_error == "continue"
        return going_on_after_errors(save) if continues else save

    def _trainer(self, arguments: TrainingArguments, rows: RowDataset, **more: Any) -> WMTPTrainer:
        rounds = self.plain is not None and self.plain.dtype != torch.float32
        return WMTPTrainer(
            model=self.model,
            args=arguments,
            train_dataset=rows,
            data_collator=rows.collate,
            algorithm=self.algorithm,
            head_prior=self.head_prior,
            online=self.online,
            before_saving=self.gather,
            saves_unrounded=rounds and not more.get("values_only"),  # until then the trunk is what the base model is
            **more,
        )
