"""What a run is made of, key by key: what must not differ unasked when it goes on."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from pydantic import JsonValue
from torch import nn

import wmtp
from wmtp.errors import TrainingError
from wmtp.loaders.base import LoadResult
from wmtp.manifest import sha256_bytes
from wmtp.publishing.parent import parent_record
from wmtp.publishing.training_state import Change, RunState, TrainingState
from wmtp.settings.recipe import Recipe
from wmtp.training.resumable import Loop
from wmtp.untrusted import did_you_mean, show

logger = logging.getLogger("wmtp")

Facts = dict[str, JsonValue]
# What is trained, and how, is the same whatever these say. Of data files their rows count, not their names.
_FREE = (
    "run.name", "run.export_next_token", "data.train.files", "data.validation.files", "train.logging_steps",
    "train.eval_steps", "train.per_device_eval_batch_size", "train.save_steps", "train.save_total_limit",
    "train.save_optimizer", "train.on_save_error", "train.dataloader_num_workers",
)  # fmt: skip
_SCORES, _VERSIONS = "data.train.scores", "versions"


class RunRecord:
    """What every checkpoint of a run says of the run itself.

    Args:
        recipe: What was asked for.
        base: The model that is trained.
        facts: What else the run is made of, by key: rows, processes, devices.

    Attributes:
        scores: Fingerprint of each score beside the training tokens; None until they are known.
        changes: What was let differ each time the run went on.
        explained: What the stage of value heads has reached; None before its end.
    """

    def __init__(self, recipe: Recipe, base: LoadResult, facts: Mapping[str, JsonValue]) -> None:
        self._recipe, self._base, self._facts = recipe, base, facts
        self.scores: Mapping[str, str] | None = None
        self.changes: list[Change] = []
        self.explained: list[float] | None = None

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        return self._base.model

    @cached_property
    def parent(self) -> dict[str, Any]:
        """What identifies the base model. Hashing its weights may take a minute: once, on the process that writes."""
        return parent_record(self._base)

    @property
    def made_of(self) -> Facts:
        """Everything by key, as a later run compares it."""
        files = json.dumps(self.parent["files"], sort_keys=True).encode()
        scores = {_SCORES: dict(self.scores or {})}
        return _flat({**self._recipe.to_document(), _VERSIONS: versions(), **self._facts, **scores}) | {
            "model": sha256_bytes(files)
        }

    def state(self, stage: Literal["values", "model"], loop: Loop | None) -> TrainingState:
        """Return what a checkpoint has to hold for the run to go on from it."""
        where, tensors = loop or (None, {})
        run = RunState(stage=stage, made_of=self.made_of, changes=self.changes, explained=self.explained, loop=where)
        return TrainingState(run, tensors)

    def refuse_other(self, checkpoint: Path, state: RunState, allowed: Sequence[str]) -> dict[str, list[JsonValue]]:
        """Compare with what a checkpoint says of its run; scores only once they are known.

        Args:
            checkpoint: Where it is.
            state: What it says.
            allowed: Keys that may differ, with all below them.

        Returns:
            What differs and may: by key, what was and what is.

        Raises:
            TrainingError: If something else differs, all of it; or a key that is allowed does not exist.
        """
        then, now = state.made_of, self.made_of
        if self.scores is None:
            then = {key: value for key, value in then.items() if not _is_below(key, [_SCORES])}
        found = {
            key: [then.get(key), now.get(key)]
            for key in dict.fromkeys([*then, *now])
            if then.get(key) != now.get(key) and not _is_below(key, [*_FREE, _VERSIONS])
        }
        _refuse_unknown(allowed, {*state.made_of, *now})
        if refused := {key: values for key, values in found.items() if not _is_below(key, allowed)}:
            raise _refusal(checkpoint, refused)
        return found

    def go_on_from(self, checkpoint: Path, state: RunState, allowed: Sequence[str]) -> None:
        """Do the same, tell the log what differs, and take over the history; call it once scores are known."""
        found = self.refuse_other(checkpoint, state, allowed)
        self.changes = list(state.changes)
        if found:
            self.changes.append(Change(step=state.loop.step if state.loop else 0, values=found))
        for key, (then, now) in found.items():
            logger.warning("%s was %s, and is %s from here on", key, _shown(then), _shown(now))
        for package, version in versions().items():
            if (then := state.made_of.get(f"{_VERSIONS}.{package}")) != version:
                logger.warning("the run was written by %s %s, and this is %s", package, _shown(then), version)


def versions() -> dict[str, str]:
    """Return the versions that numbers may depend on."""
    return {
        "wmtp": wmtp.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _flat(document: Mapping[str, Any], prefix: str = "") -> Facts:
    flat: Facts = {}
    for key, value in document.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _is_below(key: str, allowed: Sequence[str]) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in allowed)


def _refuse_unknown(allowed: Sequence[str], keys: set[str]) -> None:
    known = {key[:end] for key in keys for end in (*_dots(key), len(key))}
    for key in allowed:
        if key not in known:
            raise TrainingError(
                f"--allow-change {show(key)}: a run is not made of that{did_you_mean(key, sorted(known))}",
                hint="name a key of the recipe or one of its sections, or data, model, world_size, devices",
            )


def _dots(key: str) -> list[int]:
    return [place for place, character in enumerate(key) if character == "."]


def _refusal(checkpoint: Path, refused: Mapping[str, list[JsonValue]]) -> TrainingError:
    lines = [f"{key}: {_shown(then)} -> {_shown(now)}" for key, (then, now) in refused.items()]
    options = " ".join(f"--allow-change {key}" for key in refused)
    return TrainingError(
        f"{checkpoint}: the run that wrote it was made of something else, so this would be another run",
        hint=f"go on with what it had then, or let it change from here on: {options}",
        faults=lines,
    )


def _shown(value: JsonValue) -> str:
    return "not set" if value is None else show(value)
