"""What going on with a run needs beside the model: a directory of its own within each checkpoint of the run.

<checkpoint>/training_state/state.json             what the run was made of, where it was, its random numbers, its log
<checkpoint>/training_state/optimizer.safetensors  tensors of the optimizer, named `<kind>.<parameter>`

Both stand in the checkpoint's manifest. Whoever loads the checkpoint as a model reads neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue, PlainSerializer, ValidationError

from wmtp.errors import CheckpointError
from wmtp.faults import StrictModel, faults_error, model_faults
from wmtp.untrusted import show

if TYPE_CHECKING:
    from torch import Tensor

STATE_DIRECTORY = "training_state"
STATE_FILE, OPTIMIZER_FILE = "state.json", "optimizer.safetensors"
_HINT = "go on from another checkpoint of the run, or start a new run from the model in this one"
_NOT_FINITE = ("nan", "inf", "-inf")


def _number(value: object) -> object:
    return float(value) if isinstance(value, str) and value in _NOT_FINITE else value


def _text(value: float) -> float | str:
    return str(value) if str(value) in _NOT_FINITE else value


# JSON has no NaN, and a log has: the cross-entropy of a head that had nothing to predict.
LoggedNumber = Annotated[
    float, Field(allow_inf_nan=True), BeforeValidator(_number), PlainSerializer(_text, when_used="json")
]
LogEntry = dict[str, int | LoggedNumber]


class RandomNumbers(StrictModel):
    """The generators of one process, as they stood."""

    python: list[int] = Field(description="Words of `random`, the place in them at the end.")
    python_gauss: float | None = Field(description="What its gauss() has in store.")
    numpy: list[int] = Field(description="Words of numpy's legacy generator, the place in them at the end.")
    numpy_gauss: float | None = Field(description="What its normal() has in store.")
    torch: str = Field(description="Bytes of torch's generator of the CPU, in hexadecimal digits.")
    device: str | None = Field(description="The same of the device; null on a CPU.")


class ProcessState(StrictModel):
    """What one process has for itself."""

    random: RandomNumbers
    loss: float = Field(description="Sum of its losses since the last log line.")
    heads: list[list[float]] = Field(description="Sums over its batches since the last log line, for each head.")
    weights: list[float] = Field(description="The same of the weights of tokens.")


class Position(StrictModel):
    """How far a run has read its data; whatever the number of processes and the size of batches."""

    epoch: int = Field(ge=0, description="Passes that are complete.")
    rows: int = Field(ge=0, description="Rows of the next one that were read, in its order.")


class LoopState(StrictModel):
    """Where the training loop was, after an optimizer step."""

    step: int = Field(ge=1, description="Optimizer steps done.")
    epoch: float = Field(ge=0, description="The same as transformers counts it.")
    position: Position
    schedule: int = Field(ge=0, description="Steps of the learning rate's schedule.")
    rates: list[float] = Field(description="Learning rate of each group of parameters.")
    log: list[LogEntry] = Field(description="Every log line and validation so far.")
    best_metric: LoggedNumber | None
    best_step: int | None
    loss_total: float = Field(description="Sum of all losses up to the last log line.")
    logged_step: int = Field(ge=0, description="The step of that line.")
    seconds: float = Field(ge=0, description="Of training so far.")
    numbers: dict[str, float | int] = Field(description="What of the optimizer is no tensor, by `<kind>.<parameter>`.")
    processes: list[ProcessState] = Field(min_length=1)


class Change(StrictModel):
    """What an operator let differ when a run went on."""

    step: int
    values: dict[str, list[JsonValue]] = Field(description="By key: what was, what is.")


class RunState(StrictModel):
    """All of state.json."""

    format: Literal[1] = 1
    stage: Literal["values", "model"] = Field(description="values: the value heads alone are trained yet.")
    made_of: dict[str, JsonValue] = Field(description="Recipe, model, data, processes, devices: by key.")
    changes: list[Change] = Field(default_factory=list)
    explained: list[LoggedNumber] | None = Field(None, description="What the stage of values reached; null: not done.")
    loop: LoopState | None = Field(description="null: the stage is done, and the next one has not begun.")


@dataclass(frozen=True)
class TrainingState:
    """What going on with a run needs beside the model.

    Attributes:
        run: state.json.
        tensors: optimizer.safetensors.
    """

    run: RunState
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """What the tensors take on a disk; the rest is small."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write(self, checkpoint: Path) -> None:
        """Write it into a checkpoint that is being made."""
        from wmtp.publishing.write import write_shard

        directory = checkpoint / STATE_DIRECTORY
        directory.mkdir()
        (directory / STATE_FILE).write_text(self.run.model_dump_json() + "\n", encoding="utf-8")
        write_shard(directory / OPTIMIZER_FILE, self.tensors)


def has_training_state(checkpoint: Path) -> bool:
    """Say whether a checkpoint was written to go on from."""
    return (checkpoint / STATE_DIRECTORY / STATE_FILE).is_file()


def read_run_state(checkpoint: Path) -> RunState:
    """Read state.json of a checkpoint, strictly.

    Raises:
        CheckpointError: If it is not one, or of a version that is not known.
    """
    path = checkpoint / STATE_DIRECTORY / STATE_FILE
    try:
        return RunState.model_validate_json(path.read_bytes())
    except ValidationError as error:
        faults = model_faults(error, RunState)
        raise faults_error(faults, where=str(path), error=CheckpointError, hint=_HINT) from error


def read_optimizer_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Read optimizer.safetensors of a checkpoint.

    Raises:
        CheckpointError: If it is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = checkpoint / STATE_DIRECTORY / OPTIMIZER_FILE
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file: {show(str(error))}", hint=_HINT) from error
