"""Going on with a run: from which checkpoint, whether it is still the same run, and what is taken over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from wmtp.algorithms.base import Algorithm
from wmtp.load_plan.parameters import parameter_slots
from wmtp.storage.opening import open_store
from wmtp.training.identity import RunRecord
from wmtp.training.loading import ModelReader
from wmtp.training.lora import of_adapter, take_adapters
from wmtp.training.processes import together
from wmtp.training.restoring import restore_kept
from wmtp.training.saved_steps import STAGE_OF_VALUES, SavedStep, newest_whole

logger = logging.getLogger("wmtp")


@dataclass(frozen=True)
class Continuation:
    """A run that goes on.

    Attributes:
        saved: The checkpoint that it goes on from.
        allowed: Keys that may differ from then.
        device: Through which processes talk.
    """

    saved: SavedStep
    allowed: tuple[str, ...]
    device: torch.device

    @classmethod
    def find(cls, directory: Path, device: torch.device, allowed: Sequence[str]) -> Continuation:
        """Look for the newest whole checkpoint of a run: the first process does, and tells the others.

        Raises:
            TrainingError: If none is whole, or the newest one that is holds a model alone.
        """

        def look() -> float:
            path = newest_whole(directory)
            step = int(path.name.removeprefix("step-"))
            return -step if path.parent.name == STAGE_OF_VALUES else step

        found = int(together(look, device))
        parent = directory / STAGE_OF_VALUES if found < 0 else directory
        return cls(SavedStep.read(parent / f"step-{abs(found)}"), tuple(allowed), device)

    def take_over(self, record: RunRecord, algorithm: Algorithm, model: nn.Module, reader: ModelReader) -> None:
        """Give a model and its algorithm what the checkpoint has of them, if this is still the same run.

        Args:
            record: What the run is made of now, but for scores.
            algorithm: Takes over its running figures.
            model: What is trained, value heads included, with the weights of the base model.
            reader: What has loaded the base model.

        Raises:
            TrainingError: If the run is made of something else that was not allowed to differ.
        """
        together(partial(record.refuse_other, self.saved.path, self.saved.run, self.allowed), self.device)
        if self.saved.run.stage == "model":
            trained = reader.load(self.saved.path).model
            (_take_pages if reader.is_sharded else _take_weights)(record.model, trained)
            take_adapters(record.model, self.saved.path)
        restore_kept(algorithm, model, open_store(self.saved.path))
        record.explained = self.saved.run.explained

    def check(self, record: RunRecord) -> None:
        """Take over the run's history once scores are known too; raises what `take_over` does."""
        together(partial(record.go_on_from, self.saved.path, self.saved.run, self.allowed), self.device)
        logger.info("going on from %s", self.saved.path)


@torch.no_grad()
def _take_weights(model: nn.Module, trained: nn.Module) -> None:
    slots = dict(parameter_slots(trained))
    for name, slot in parameter_slots(model):
        if not of_adapter(name):
            slot.tensor.copy_(slots[name].tensor)


def _take_pages(model: nn.Module, trained: nn.Module) -> None:
    """Put parameters in the place of others, rather than copy values of which a process needs its rows alone."""
    slots, given = dict(parameter_slots(trained)), dict[Tensor, Tensor]()
    for name, slot in parameter_slots(model):
        old = slot.tensor
        slot.assign(given.get(old, slots[name].tensor.detach()))
        given.setdefault(old, slot.tensor)  # those that were one object stay one
