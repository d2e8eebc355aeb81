"""What a published training checkpoint is: a model directory that loads as its base model did.

Tensors stand in the layout in which the base model's were read, by the same mapping in metadata.json; of a model with
native heads configuration and copies too, as servers look for these. Code and tokenizer come along byte for byte:
consent to a base model's modeling.py is consent to the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import wmtp
from wmtp.algorithms.base import Algorithm
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import processor_files, small_files
from wmtp.checkpoint.index import INDEX_FILE
from wmtp.loaders.base import LoadResult
from wmtp.metadata.file import METADATA_FILE
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing.algorithm_state import ALGORITHM_STATE_FILE
from wmtp.publishing.cards.card import Source, write_card
from wmtp.publishing.cards.origin import Origin
from wmtp.publishing.exports.next_token import prepare_module
from wmtp.publishing.native import keeps_source_layout, write_native_directory
from wmtp.publishing.parent import parent_record
from wmtp.publishing.publish import publish_directory, remove_published, verify_published
from wmtp.publishing.training_state import TrainingState
from wmtp.publishing.write import RECEIPT_FILE, stored_once, write_model_directory, write_receipt
from wmtp.run_plan.trained import trained_record
from wmtp.settings.recipe import Recipe
from wmtp.training.disk import writing
from wmtp.training.identity import RunRecord, versions
from wmtp.training.lora import write_adapter
from wmtp.training.resumable import Loop
from wmtp.training.saved_steps import FINAL, FINAL_NEXT_TOKEN, STAGE_OF_VALUES, published_steps

_WRITTEN_ANEW = (CONFIG_FILE, METADATA_FILE, RECEIPT_FILE, INDEX_FILE)


@dataclass(frozen=True)
class CheckpointWriter:
    """Publishes the checkpoints of one run.

    Attributes:
        directory: The run's directory.
        base: The model that is trained, as it was loaded; its parameters are what is written.
        algorithm: What trains it.
        recipe: What was asked for.
        data: Fingerprint of the tokens of each data set, by its name.
        carried: Files of the base model that every checkpoint needs: tokenizer, code. Read when the run starts, as
            they may change or go while it lasts.
        state: Returns what the algorithm keeps beside the weights, as `write_state` does.
        scores: Fingerprint of the figures beside the training tokens that the algorithm reads, by the score's name;
            those that are computed while training are none.
        record: What training states say of the run; without it a checkpoint is a model alone.
        origin: What cards say of the base model. Read when the run starts, too.
    """

    directory: Path
    base: LoadResult
    algorithm: Algorithm
    recipe: Recipe
    data: Mapping[str, str]
    carried: Mapping[str, bytes]
    state: Callable[[], bytes]
    scores: Mapping[str, str] = field(default_factory=dict)
    record: RunRecord | None = None
    origin: Origin = field(default_factory=Origin)

    def save_step(self, step: int, best_step: int | None, loop: Loop | None = None) -> None:
        """Publish `step-<step>`; once it verifies, remove the oldest checkpoints beyond `train.save_total_limit`.

        Args:
            step: Optimizer steps done.
            best_step: The step whose checkpoint is kept however old it gets.
            loop: What going on needs; None: a model alone.

        Raises:
            StorageError: If the disk does not take it; the older checkpoints are there then.
        """
        keeps = self.record is not None and loop is not None and self.recipe.train.save_optimizer
        training = self.record.state("model", loop) if keeps and self.record else None
        self._publish(f"step-{step}", step, validated_at(step, loop), training)
        limit = self.recipe.train.save_total_limit
        published = published_steps(self.directory)
        if limit is None or len(published) <= limit:
            return
        verify_published(self.directory / f"step-{step}")
        removable = [path for path in published if path.name not in (f"step-{step}", f"step-{best_step}")]
        for path in removable[: len(published) - limit]:
            remove_published(path)

    def save_values(self, step: int, best_step: int | None, loop: Loop | None) -> None:  # noqa: ARG002  as save_step
        """Publish `stage-1/step-<step>`, which holds value heads and no model; once it verifies, remove older ones.

        Args:
            step: Optimizer steps of the stage that are done.
            best_step: None, as nothing is validated.
            loop: What going on within the stage needs; None: it is done.

        Raises:
            StorageError: If the disk does not take it; the older one is there then.
        """
        if self.record is None or not self.recipe.train.save_optimizer:
            return
        final = self.directory / STAGE_OF_VALUES / f"step-{step}"
        training = self.record.state("values", loop)
        with writing(final, len(state := self.state()) + training.num_bytes), publish_directory(final) as directory:
            (directory / ALGORITHM_STATE_FILE).write_bytes(state)
            training.write(directory)
        verify_published(final)
        for path in published_steps(final.parent):
            if path != final:
                remove_published(path)

    def remove_values(self) -> None:
        """Remove what the stage of value heads has left, and the run's directory where it holds nothing else."""
        if (stage := self.directory / STAGE_OF_VALUES).exists():
            remove_published(stage)
        if self.directory.is_dir() and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def save_final(self, step: int, metrics: Mapping[str, float]) -> None:
        """Publish `final`; before it its export as a plain next-token model when the recipe asks for that.

        Args:
            step: Optimizer steps done.
            metrics: Of validation after the last of them; empty without validation data.
        """
        if self.recipe.run.export_next_token:
            # Of a run that was killed between the two.
            if (export := self.directory / FINAL_NEXT_TOKEN).exists():
                remove_published(export)
            write = prepare_module(
                self.base.model,
                config=self.base.checkpoint.config,
                metadata=self._metadata(step),
                extra_files=self.carried,
                source=self.base,
            )
            with publish_directory(export) as directory:
                write(directory)
                write_card(directory, Source(self.origin, metrics=metrics, target="transformers"))
        self._publish(FINAL, step, metrics)
        self.remove_values()

    def _publish(
        self, name: str, step: int, metrics: Mapping[str, float], training: TrainingState | None = None
    ) -> None:
        state, final = self.state(), self.directory / name
        num_bytes = sum(tensor.nbytes for tensor in stored_once(self.base.model.state_dict()).values()) + len(state)
        with writing(final, num_bytes + (training.num_bytes if training else 0)), publish_directory(final) as directory:
            self._write_model(directory, state, step)
            write_adapter(directory, self.base, self.recipe.train.lora)
            write_card(directory, Source(self.origin, metrics=metrics))
            if training is not None:
                training.write(directory)

    def _write_model(self, directory: Path, state: bytes, step: int) -> None:
        metadata = self._metadata(step)
        files = {**self.carried, **({ALGORITHM_STATE_FILE: state} if state else {})}
        if keeps_source_layout(self.base):
            write_native_directory(directory, self.base, metadata=metadata, extra_files=files)
            write_receipt(directory, self.base)
            return
        write_model_directory(
            directory,
            state_dict=self.base.model.state_dict(),
            config=self.base.checkpoint.config,
            metadata=metadata,
            extra_files=files,
            source=self.base,
        )

    def _metadata(self, step: int) -> ModelMetadata:
        parent = self.base.metadata
        changes = {
            "training_algorithm": self.algorithm.training_algorithm,
            "files": None,
            "created_by": f"wmtp {wmtp.__version__}",
            "source_path": self.base.checkpoint.where,
            "provenance": {**self._provenance, "step": step},
        }
        return parent.model_copy(update=changes)

    @cached_property
    def _provenance(self) -> dict[str, Any]:
        changes = [change.model_dump() for change in self.record.changes] if self.record else []
        return {
            "recipe": self.recipe.to_document(),
            **trained_record(self.recipe, self.base.checkpoint),
            "data": dict(self.data),
            "scores": dict(self.scores),
            "parent": self.record.parent if self.record else parent_record(self.base),
            "versions": versions(),
            **({"changes": changes} if changes else {}),
        }


def validated_at(step: int, loop: Loop | None) -> dict[str, float]:
    """Return what validation has found at a step, from the log up to it; nothing where it was not made then."""
    log = loop[0].log if loop else []
    measured = [entry for entry in log if entry.get("step") == step and "eval_ce_1" in entry]
    return dict(measured[-1]) if measured else {}


def carried_files(base: LoadResult) -> dict[str, bytes]:
    """Return the files that a checkpoint takes over from its base model: all it requires but weights and config."""
    store = base.checkpoint.store
    required = [*base.metadata.loading_strategy.required_files, *base.receipt.code]
    required += [*small_files(store), *processor_files(store)]
    names = [n for n in dict.fromkeys(required) if n not in _WRITTEN_ANEW and not n.endswith(".safetensors")]
    return {name: path.read_bytes() for name, path in store.local_paths(names).items()}
