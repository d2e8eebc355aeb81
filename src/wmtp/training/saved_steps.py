"""The checkpoints of a run that its directory holds, and the one that it can go on from."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmtp.errors import IntegrityError, TrainingError
from wmtp.publishing.publish import verify_published
from wmtp.publishing.training_state import RunState, has_training_state, read_optimizer_tensors, read_run_state

logger = logging.getLogger("wmtp")

FINAL = "final"
FINAL_NEXT_TOKEN = "final-next-token"  # noqa: S105  a name of a directory
STAGE_OF_VALUES = "stage-1"
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class SavedStep:
    """A checkpoint that a run goes on from.

    Attributes:
        path: Its directory; every file in it is what its manifest says.
        run: What it says of the run.
    """

    path: Path
    run: RunState

    @classmethod
    def read(cls, path: Path) -> SavedStep:
        """Read what a checkpoint that verifies says of its run.

        Raises:
            TrainingError: If it was written without.
        """
        if not has_training_state(path):
            raise TrainingError(
                f"{path}: holds a model alone, without the state of its optimizer: no run can go on from it",
                hint="train.save_optimizer: false writes such ones, and so did earlier versions; start a new run, under"
                " another run.name, whose paths.models.base is this directory",
            )
        return cls(path, read_run_state(path))

    def loop(self) -> Any:
        """Return what `ResumableTrainer` goes on from; None where a stage is done and the next one has not begun."""
        return None if self.run.loop is None else (self.run.loop, read_optimizer_tensors(self.path))


def published_steps(directory: Path) -> list[Path]:
    """Return the published `step-<n>` directories below one, oldest first."""
    found = {int(match[1]): path for path in directory.glob("step-*") if (match := _STEP.fullmatch(path.name))}
    return [found[step] for step in sorted(found)]


def published_checkpoints(directory: Path) -> list[Path]:
    """Return every published checkpoint of a run: of its stage of values, of its steps, the final ones last."""
    finals = [path for name in (FINAL, FINAL_NEXT_TOKEN) if (path := directory / name).exists()]
    return [*published_steps(directory / STAGE_OF_VALUES), *published_steps(directory), *finals]


def resumable_steps(directory: Path) -> list[Path]:
    """Return what a run may go on from, the newest first: its steps, then those of its stage of values."""
    return [*reversed(published_steps(directory)), *reversed(published_steps(directory / STAGE_OF_VALUES))]


def refuse_used(directory: Path) -> None:
    """Raise TrainingError if a new run would be written between the checkpoints of another."""
    found = [str(path.relative_to(directory)) for path in published_checkpoints(directory)]
    if FINAL in found:
        raise TrainingError(
            f"{directory}: already holds checkpoints of a run: {', '.join(found)}",
            hint="choose another run.name, or move that directory away",
        )
    if found:
        raise TrainingError(
            f"{directory}: holds a run that is unfinished: {', '.join(found)}",
            hint="go on with it: the same command with --resume (resume=True); or choose another run.name, or move that"
            " directory away",
        )


def require_unfinished(directory: Path) -> None:
    """Raise TrainingError if there is nothing in a directory that a run could go on from."""
    if (directory / FINAL).exists():
        raise TrainingError(
            f"{directory}: this run is finished: {FINAL} is its result",
            hint=f"to train further, start a run of another run.name whose paths.models.base is {directory / FINAL}",
        )
    if not resumable_steps(directory):
        raise TrainingError(
            f"{directory}: there is no checkpoint to go on from",
            hint="leave out --resume (resume=True) to begin; the run's directory is <paths.output_dir>/<run.name>, and"
            " the first checkpoint is written after train.save_steps steps",
        )


def newest_whole(directory: Path) -> Path:
    """Return the newest checkpoint whose every byte is what its manifest says.

    Newer ones that are not are set aside under another name, and the log says so.

    Raises:
        TrainingError: If none is whole.
    """
    damaged: dict[Path, str] = {}
    for path in resumable_steps(directory):
        try:
            verify_published(path)
        except IntegrityError as error:
            damaged[path] = str(error.problem)
        else:
            for other, problem in damaged.items():
                logger.warning("%s; it is kept as %s", problem, _set_aside(other).name)
            return path
    raise TrainingError(
        f"{directory}: none of its {len(damaged)} checkpoints is whole, so there is nothing to go on from",
        hint="get one of them back from where it was copied to, or move the directory away and begin anew",
        faults=list(damaged.values()),
    )


def _set_aside(path: Path) -> Path:
    # The step will be done again, and saved under the name that this one has.
    names = (path.with_name(f"{path.name}.damaged{number or ''}") for number in range(1 << 30))
    return path.rename(next(name for name in names if not name.exists()))
