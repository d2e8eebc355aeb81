"""run.json: what a run was told, what it was planned to use, and, once it is over, what became of it."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from wmtp.errors import TrainingError
from wmtp.faults import StrictModel, faults_error, model_faults
from wmtp.publishing.training_state import LogEntry, LoggedNumber
from wmtp.storage.replace import replace_file
from wmtp.untrusted import parse_json_object, plain

RUN_FILE = "run.json"
_MAX_BYTES, _MAX_NAMES = 1 << 28, 4
_HINT = "name the directory of a run, <paths.output_dir>/<run.name>, as 'wmtp train' wrote it"


class RunOutcome(StrictModel):
    """What became of a run."""

    steps: int = Field(ge=0, description="Optimizer steps done.")
    seconds: float = Field(ge=0, description="Of this process: training, with validation and writing checkpoints.")
    best_step: int | None = Field(description="Validated step with the lowest next-token cross-entropy.")
    explained_variance: list[LoggedNumber] | None = Field(description="Of value heads, begin to end of documents.")
    peak_bytes: int | None = Field(None, description="Most memory of the process; on CUDA that of the device.")
    log: list[LogEntry] = Field(description="Every log line and validation.")


class RunFile(StrictModel):
    """All of run.json."""

    wmtp: str = Field(description="The version that ran.")
    config: dict[str, JsonValue] = Field(description="config.yaml, with every default written out.")
    recipe: dict[str, JsonValue] = Field(description="recipe.yaml, the same.")
    trained: dict[str, JsonValue] | None = Field(None, description="What was trained, where it was not everything.")
    plan: dict[str, JsonValue] | None = Field(None, description="What the run was expected to use; null: not known.")
    result: RunOutcome | None = Field(None, description="null: the run is not over.")


def write_run_file(directory: Path, facts: Mapping[str, Any], result: RunOutcome | None = None) -> None:
    """Write run.json, in place of the one that is there.

    Args:
        directory: The run's own; made where it is not there.
        facts: What `RunFile` says before the run is over.
        result: What became of it.

    Raises:
        StorageError: If the disk does not take it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    ended = {} if result is None else {"result": result.model_dump(mode="json")}
    replace_file(directory / RUN_FILE, (json.dumps({**facts, **ended}, indent=2) + "\n").encode())


def read_run_file(directory: Path) -> RunFile:
    """Read run.json of a run, strictly.

    Raises:
        TrainingError: If there is none, or it is malformed.
    """
    path = directory / RUN_FILE
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}", hint=_directory_hint(directory)) from error
    document = parse_json_object(data, where=str(path), error=TrainingError, max_bytes=_MAX_BYTES)
    try:
        return RunFile.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise faults_error(model_faults(error, RunFile), where=str(path), error=TrainingError, hint=_HINT) from error


def _directory_hint(directory: Path) -> str:
    """Return which directory may have been meant, where a checkpoint or a directory of runs was named."""
    if (directory.parent / RUN_FILE).is_file():
        return f"that is a checkpoint; name the directory of its run: {directory.parent}"
    if runs := sorted(path.parent.name for path in directory.glob(f"*/{RUN_FILE}")):
        return f"name a run in it: {', '.join(f'{directory}/{plain(name)}' for name in runs[:_MAX_NAMES])}"
    return _HINT


def peak_bytes() -> int:
    """Return the most memory that this process has had; on CUDA what its tensors took on the device."""
    import torch

    if torch.cuda.is_available() and (on_device := torch.cuda.max_memory_allocated()):
        return on_device
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
