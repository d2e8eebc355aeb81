"""Where trackers write, and what they are told of a run beside its figures: the plan that it was begun with."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.run_plan.plan import RunPlan
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.storage.replace import replace_file
from wmtp.training.resumable import ResumableTrainer
from wmtp.untrusted import parse_json_object

TENSORBOARD = "tensorboard"
MLFLOW_DATABASE = "mlflow.db"
TRACKERS_FILE = "trackers.json"
_PLAN = "plan"


def set_trackers(
    trainer: ResumableTrainer, config: Config, recipe: Recipe, directory: Path, plan: RunPlan | None
) -> None:
    """Tell the trackers of a run where to write and under which name, and have them keep its plan.

    A run that goes on is the same run to them: MLflow and W&B know it by what `trackers.json` in its directory says,
    trackio by its name. What their own environment variables say goes before.

    Args:
        trainer: Not yet training; it has a callback for each tracker.
        config: Which trackers there are.
        recipe: What is trained.
        directory: The run's own.
        plan: What it was begun with; None on processes that keep nothing.
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(directory / TENSORBOARD)
    if not config.tracking.report_to or plan is None:
        return
    known = _known_runs(directory) if trainer.goes_on else {}
    if "mlflow" in config.tracking.report_to:
        _set_mlflow(config, known.get("mlflow"))
    if "wandb" in config.tracking.report_to:
        _begin_wandb(config, recipe, directory, known.get("wandb"))
    trainer.add_callback(PlanReport(trainer, config, plan, directory))


def mlflow_uri(config: Config) -> str:
    """Return where MLflow keeps runs: by its variable, by the configuration, or in a file of SQLite beside the runs."""
    database = Path(config.paths.output_dir).absolute() / MLFLOW_DATABASE
    return os.environ.get("MLFLOW_TRACKING_URI") or config.tracking.mlflow_uri or f"sqlite:///{database}"


class PlanReport(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Gives a run's plan to each tracker, once these have begun, and notes what they call it; stands behind them.

    Args:
        trainer: Whose trackers they are.
        config: Which they are.
        plan: The plan.
        directory: The run's own.
    """

    def __init__(self, trainer: Trainer, config: Config, plan: RunPlan, directory: Path) -> None:
        self._trainer, self._names, self._plan, self._directory = trainer, config.tracking.report_to, plan, directory

    @override
    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        facts: Mapping[str, Any] = json.loads(json.dumps(self._plan.to_dict()))
        kept: dict[str, Callable[[], None]] = {
            "tensorboard": self._in_tensorboard,
            "mlflow": lambda: _module("mlflow").log_dict(dict(facts), f"{_PLAN}.json"),
            "wandb": lambda: _module("wandb").config.update({_PLAN: facts}, allow_val_change=True),
            "trackio": lambda: _module("trackio").config.update({_PLAN: facts}, allow_val_change=True),
        }
        for name in self._names:
            kept[name]()
        self._note_runs()

    def _note_runs(self) -> None:
        """Keep what MLflow and W&B call this run, so that it can go on in them."""
        found = {"mlflow": lambda: _module("mlflow").active_run().info.run_id, "wandb": lambda: _module("wandb").run.id}
        named = {name: found[name]() for name in self._names if name in found}
        if named:
            self._directory.mkdir(parents=True, exist_ok=True)
            replace_file(self._directory / TRACKERS_FILE, (json.dumps(named, indent=2) + "\n").encode())

    def _in_tensorboard(self) -> None:
        text = "\n".join(f"    {line}" for line in self._plan.summary())
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(_PLAN, text)


def _known_runs(directory: Path) -> dict[str, Any]:
    path = directory / TRACKERS_FILE
    if not path.exists():
        return {}  # begun without these trackers
    return parse_json_object(path.read_bytes(), where=str(path), error=TrainingError)


def _set_mlflow(config: Config, known: str | None) -> None:
    mlflow, uri = _module("mlflow"), mlflow_uri(config)
    directory = Path(config.paths.output_dir).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(uri)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", config.tracking.experiment)
    if uri.startswith("sqlite:") and mlflow.get_experiment_by_name(name) is None:
        # A server knows where files go; a database would have them below the directory that the process began in.
        mlflow.create_experiment(name, artifact_location=(directory / "mlruns").as_uri())
    mlflow.set_experiment(name)
    if known:
        os.environ.setdefault("MLFLOW_RUN_ID", known)  # MLflow attaches to that run, and takes the variable away


def _begin_wandb(config: Config, recipe: Recipe, directory: Path, known: str | None) -> None:
    wandb = _module("wandb")
    if wandb.run is not None:  # the caller's own
        return
    directory.mkdir(parents=True, exist_ok=True)
    project = os.environ.get("WANDB_PROJECT", config.tracking.experiment)
    own = {} if "WANDB_RUN_ID" in os.environ or not known else {"id": known, "resume": "allow"}
    wandb.init(project=project, name=recipe.run.name, dir=os.environ.get("WANDB_DIR", str(directory)), **own)


def _module(name: str) -> Any:
    return import_module(name)
