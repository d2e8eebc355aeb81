"""What the directory of a run holds: its settings, its log, its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from wmtp.errors import CheckpointError, TrainingError
from wmtp.metadata.file import METADATA_FILE, load_metadata
from wmtp.publishing.training_state import LogEntry, has_training_state, read_run_state
from wmtp.publishing.write import RECEIPT_FILE
from wmtp.training.run_file import RunFile, read_run_file
from wmtp.training.saved_steps import FINAL, published_steps
from wmtp.untrusted import parse_json_object

_MAX_RECEIPT = 1 << 26


@dataclass(frozen=True)
class SavedRun:
    """A run that has been, or has begun.

    Attributes:
        directory: Where it is.
        name: What it is called in the report.
        file: Its run.json.
        checkpoints: Its checkpoints by optimizer step, the oldest first.
    """

    directory: Path
    name: str
    file: RunFile
    checkpoints: Mapping[int, Path]

    @classmethod
    def read(cls, directory: Path, name: str = "") -> SavedRun:
        """Read what a run has left.

        Raises:
            TrainingError: If it is no run's directory.
            MetadataError: If the metadata.json of a checkpoint is malformed.
        """
        file, final = read_run_file(directory), directory / FINAL
        found = {int(path.name.removeprefix("step-")): path for path in published_steps(directory)}
        if (final / METADATA_FILE).is_file():
            found[_step_of(final)] = final
        return cls(directory, name or directory.absolute().name, file, dict(sorted(found.items())))

    @property
    def log(self) -> list[LogEntry]:
        """Every log line and validation; of a run that is not over, up to its newest checkpoint."""
        if self.file.result is not None:
            return self.file.result.log
        for path in self._newest_first:
            if has_training_state(path) and (loop := read_run_state(path).loop) is not None:
                return loop.log
        return []

    @property
    def _newest_first(self) -> list[Path]:
        return list(self.checkpoints.values())[::-1]

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """What the newest checkpoint says of where it comes from; empty without one."""
        newest = next(iter(self._newest_first), None)
        return {} if newest is None else load_metadata(newest).provenance or {}

    @cached_property
    def receipt(self) -> Mapping[str, Any]:
        """How the base model was loaded, as the newest checkpoint keeps it; empty without one."""
        newest = next(iter(self._newest_first), None)
        if newest is None or not (newest / RECEIPT_FILE).is_file():
            return {}
        path = newest / RECEIPT_FILE
        return parse_json_object(path.read_bytes(), where=str(path), error=CheckpointError, max_bytes=_MAX_RECEIPT)

    def chosen(self, steps: tuple[int, ...], at_most: int) -> dict[int, Path]:
        """Return the checkpoints of steps that are asked for; without any, so many of all, the last one among them.

        Raises:
            TrainingError: If there is no checkpoint, or none of a step that is asked for.
        """
        there = ", ".join(map(str, self.checkpoints)) or "none"
        if not self.checkpoints or (missing := [step for step in steps if step not in self.checkpoints]):
            what = "no checkpoint" if not self.checkpoints else f"no checkpoint of step {missing[0]}"
            raise TrainingError(
                f"{self.directory}: has {what}; steps with one: {there}",
                hint="name steps that have one in --steps, or leave the tokens out: --no-xray",
            )
        kept = sorted(set(steps)) or list(self.checkpoints)
        number = len(kept)
        places = range(number) if steps or number <= at_most else _spread(number, at_most)
        return {kept[place]: self.checkpoints[kept[place]] for place in places}


def _spread(number: int, wanted: int) -> list[int]:
    return sorted({round(place * (number - 1) / max(wanted - 1, 1)) for place in range(wanted)} | {number - 1})


def _step_of(final: Path) -> int:
    step = (load_metadata(final).provenance or {}).get("step")
    if not isinstance(step, int) or step < 0:
        raise TrainingError(
            f"{final / METADATA_FILE}: provenance.step is {step!r:.40}, expected the optimizer steps done",
            hint="take the file again from where the run has written it",
        )
    return step
