"""What a published training checkpoint is: a model directory that loads as its base model did.

Tensors stand in the layout in which the base model's were read, by the same mapping in metadata.json; of a model with
native heads configuration and copies too, as servers look for these. Code and tokenizer come along byte for byte:
consent to a base model's modeling.py is consent to the checkpoint's.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

import wmtp
from wmtp.algorithms.base import Algorithm
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import small_files
from wmtp.checkpoint.index import INDEX_FILE
from wmtp.loaders.base import LoadResult
from wmtp.metadata.file import METADATA_FILE
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing.algorithm_state import ALGORITHM_STATE_FILE
from wmtp.publishing.exports.next_token import export_module
from wmtp.publishing.native import keeps_source_layout, write_native_directory
from wmtp.publishing.parent import parent_record
from wmtp.publishing.publish import publish_directory, remove_published, verify_published
from wmtp.publishing.write import RECEIPT_FILE, write_model_directory, write_receipt
from wmtp.run_plan.trained import trained_record
from wmtp.settings.recipe import Recipe
from wmtp.training.lora import write_adapter

FINAL = "final"
FINAL_NEXT_TOKEN = "final-next-token"  # noqa: S105  a name of a directory
_STEP = re.compile(r"step-(\d+)")
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
    """

    directory: Path
    base: LoadResult
    algorithm: Algorithm
    recipe: Recipe
    data: Mapping[str, str]
    carried: Mapping[str, bytes]
    state: Callable[[], bytes]
    scores: Mapping[str, str] = field(default_factory=dict)

    def save_step(self, step: int, best_step: int | None) -> None:
        """Publish `step-<step>`; once it verifies, remove the oldest checkpoints beyond `train.save_total_limit`.

        Args:
            step: Optimizer steps done.
            best_step: The step whose checkpoint is kept however old it gets.
        """
        self._publish(f"step-{step}", step)
        limit = self.recipe.train.save_total_limit
        published = published_steps(self.directory)
        if limit is None or len(published) <= limit:
            return
        verify_published(self.directory / f"step-{step}")
        removable = [path for path in published if path.name not in (f"step-{step}", f"step-{best_step}")]
        for path in removable[: len(published) - limit]:
            remove_published(path)

    def save_final(self, step: int) -> None:
        """Publish `final`, and its export as a plain next-token model when the recipe asks for that."""
        self._publish(FINAL, step)
        if self.recipe.run.export_next_token:
            export_module(
                self.base.model,
                self.directory / FINAL_NEXT_TOKEN,
                config=self.base.checkpoint.config,
                metadata=self._metadata(step),
                extra_files=self.carried,
                source=self.base,
            )

    def _publish(self, name: str, step: int) -> None:
        with publish_directory(self.directory / name) as directory:
            self._write_model(directory, step)
            write_adapter(directory, self.base, self.recipe.train.lora)

    def _write_model(self, directory: Path, step: int) -> None:
        state, metadata = self.state(), self._metadata(step)
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
        # Hashing the parent's weights may take a minute, so it is done once, and by the process that writes.
        return {
            "recipe": self.recipe.to_document(),
            **trained_record(self.recipe, self.base.checkpoint),
            "data": dict(self.data),
            "scores": dict(self.scores),
            "parent": parent_record(self.base),
            "versions": {
                "wmtp": wmtp.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "python": platform.python_version(),
            },
        }


def carried_files(base: LoadResult) -> dict[str, bytes]:
    """Return the files that a checkpoint takes over from its base model: all it requires but weights and config."""
    store = base.checkpoint.store
    required = [*base.metadata.loading_strategy.required_files, *base.receipt.code, *small_files(store)]
    names = [n for n in dict.fromkeys(required) if n not in _WRITTEN_ANEW and not n.endswith(".safetensors")]
    return {name: path.read_bytes() for name, path in store.local_paths(names).items()}


def published_steps(directory: Path) -> list[Path]:
    """Return the published `step-<n>` directories of a run, oldest first."""
    found = {int(match[1]): path for path in directory.glob("step-*") if (match := _STEP.fullmatch(path.name))}
    return [found[step] for step in sorted(found)]


def published_checkpoints(directory: Path) -> list[Path]:
    """Return every published checkpoint of a run, the final ones last."""
    finals = [directory / FINAL, directory / FINAL_NEXT_TOKEN]
    return [*published_steps(directory), *(path for path in finals if path.exists())]
