"""One training run, from settings to a published checkpoint."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import wmtp
from wmtp.errors import TrainingError
from wmtp.html_table import html_lines
from wmtp.load_plan.receipt import LoadReceipt
from wmtp.publishing.publish import sweep_unfinished
from wmtp.publishing.training_state import has_training_state
from wmtp.run_plan.plan import RunPlan, plan_run
from wmtp.run_plan.trained import trained_record
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.preparation import prepare
from wmtp.training.prepared import PreparedRun
from wmtp.training.processes import together
from wmtp.training.progress import ProgressReport
from wmtp.training.rendezvous import part_after
from wmtp.training.run_file import RunOutcome, peak_bytes, write_run_file
from wmtp.training.saved_steps import FINAL, FINAL_NEXT_TOKEN, STAGE_OF_VALUES, resumable_steps
from wmtp.training.stopping import Stopped, StopRequest
from wmtp.training.trackers import set_trackers

logger = logging.getLogger("wmtp")


@dataclass(frozen=True)
class TrainResult:
    """What a run made.

    Attributes:
        run_directory: Where everything of the run is.
        final_checkpoint: Address of the trained model, which `wmtp.load` takes.
        next_token_checkpoint: Address of its export for transformers; None when the recipe asks for none.
        steps: Optimizer steps done.
        initial_metrics: On validation before the first step: `eval_ce_<k>`, `eval_top1_<k>`, `eval_perplexity` and
            the like; empty without validation data.
        final_metrics: The same after the last step.
        best_step: The validated step with the lowest next-token cross-entropy; None without validation data.
        explained_variance: What stage 1 of an algorithm with value heads has reached, from the begin to the end of
            documents in ten parts; None without such a stage.
        seconds: Of training, with validation and the writing of checkpoints.
        receipt: How the base model was loaded.
        model: The trained model as it is in memory, in eval mode.
    """

    run_directory: Path
    final_checkpoint: str
    next_token_checkpoint: str | None
    steps: int
    initial_metrics: dict[str, float]
    final_metrics: dict[str, float]
    best_step: int | None
    explained_variance: list[float] | None
    seconds: float
    receipt: LoadReceipt
    model: nn.Module = field(repr=False)

    def _repr_html_(self) -> str:
        return html_lines(f"Run: {self.run_directory.name}", self.summary())

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values, without the model."""
        facts = {name: value for name, value in vars(self).items() if name != "model"}
        return facts | {"run_directory": str(self.run_directory), "receipt": self.receipt.to_dict()}

    def summary(self) -> list[str]:
        """Return the result in a few lines for a person."""
        lines = [f"step {self.steps} reached; this process took {self.seconds:.1f} s"]
        if self.explained_variance is not None:
            best = max(
                self.explained_variance, default=math.nan, key=lambda share: -math.inf if math.isnan(share) else share
            )
            lines.append(f"value heads: explain up to {best:.3f} of the reward's variance")
        for name, before in self.initial_metrics.items():
            if name.startswith("eval_ce_"):
                head, after = name.removeprefix("eval_ce_"), self.final_metrics[name]
                lines.append(f"head {head}: validation cross-entropy {before:.3f} -> {after:.3f} nats")
        if self.best_step is not None:
            lines.append(f"next-token cross-entropy was lowest after step {self.best_step}")
        written = [self.final_checkpoint, self.next_token_checkpoint]
        return [*lines, *(f"wrote {address}" for address in written if address)]


def train(
    config: Config,
    recipe: Recipe,
    *,
    allow_code: Mapping[str, str] | None = None,
    resume: bool = False,
    allow_change: Sequence[str] = (),
) -> TrainResult:
    """Train the model that fits a recipe, and publish checkpoints that load as it did.

    A run writes into `<paths.output_dir>/<run.name>`: `run.json`, what trackers write, `step-<n>` every
    `train.save_steps` steps, and `final`. With `devices.dtype: auto`, models train in float32 off CUDA.

    SIGTERM and SIGINT end the run after its optimizer step with a checkpoint, where this is the main thread: then
    SystemExit(143) or KeyboardInterrupt is raised. A second one ends the process at once.

    Args:
        config: Where models are, and what to compute on.
        recipe: What to train.
        allow_code: Consent to run a checkpoint's code, besides that in `config.trust`.
        resume: Go on from the newest whole checkpoint of the run; on a CPU everything is as if it had never stopped.
        allow_change: Keys of the recipe, or `data`, `model`, `world_size`, `devices`, that may differ from then; with
            `resume` alone.

    Raises:
        TrainingError: If the run cannot start or go on, or its loss stops being finite.
        DataError: If the data cannot be used.
        IncompatibleModelError: If no model fits the recipe.
        StorageError: If a checkpoint cannot be written.
    """
    if allow_change and not resume:
        raise TrainingError(
            "--allow-change (allow_change) is given, and this run is not to go on from a checkpoint",
            hint="give --resume (resume=True) too, or leave it out",
        )
    try:
        return _train(config, recipe, allow_code or {}, allow_change if resume else None)
    except Stopped as stopped:
        part_after(stopped)
        raise _ending(stopped, Path(config.paths.output_dir) / recipe.run.name) from None
    except BaseException as error:
        part_after(error)
        raise


def _train(
    config: Config, recipe: Recipe, allow_code: Mapping[str, str], going_on: Sequence[str] | None
) -> TrainResult:
    run, stop = prepare(config, recipe, allow_code, going_on), StopRequest()
    with stop.heard(echoes="TORCHELASTIC_RUN_ID" in os.environ):
        return _carried_out(run, stop, config)


def _carried_out(run: PreparedRun, stop: StopRequest, config: Config) -> TrainResult:
    progress, directory, recipe = ProgressReport(), run.writer.directory, run.writer.recipe
    started = time.monotonic()
    plan = _plan_on_first(run, config)
    together(partial(_sweep, directory), run.arguments.device)
    explained = run.fit_values(stop)
    trainer = run.build_trainer([progress], stop)
    set_trackers(trainer, config, recipe, directory, plan)
    settings = {} if plan is None else _settings(run, config, plan)
    trainer.on_first_process(lambda: write_run_file(directory, settings))
    try:
        trainer.train()
        history = trainer.evaluations()
    finally:
        progress.stop()
    run.gather()
    trainer.on_first_process(lambda: run.writer.save_final(trainer.state.global_step, _figures(history[-1:])))
    result = TrainResult(
        run_directory=directory,
        final_checkpoint=str(directory / FINAL),
        next_token_checkpoint=str(directory / FINAL_NEXT_TOKEN) if recipe.run.export_next_token else None,
        steps=trainer.state.global_step,
        initial_metrics=_figures(history[:1]),
        final_metrics=_figures(history[-1:]),
        best_step=int(min(history, key=lambda entry: entry["eval_ce_1"])["step"]) if history else None,
        explained_variance=explained,
        seconds=time.monotonic() - started,
        receipt=run.base.receipt,
        model=run.base.model.eval(),
    )
    log = trainer.state.log_history
    trainer.on_first_process(lambda: write_run_file(directory, settings, _outcome(result, log)))
    trainer.end()
    return result


def _ending(stopped: Stopped, directory: Path) -> BaseException:
    """Return what a process ends with that was asked to stop, once the log has said how to go on."""
    saved = next(iter(resumable_steps(directory)), None)
    can_go_on = saved is not None and has_training_state(saved)
    advice = f"the same command with --resume goes on from {saved}" if can_go_on else "nothing was saved to go on from"
    if os.environ.get("RANK", "0") == "0":
        logger.warning("%s: stopped after step %d; %s", stopped.by.name, stopped.step, advice)
    return KeyboardInterrupt(stopped.by.name) if stopped.by is signal.SIGINT else SystemExit(128 + stopped.by)


def _plan_on_first(run: PreparedRun, config: Config) -> RunPlan | None:
    """Return the plan on the first process; where it fails there, all of them fail."""
    plans: list[RunPlan] = []
    together(lambda: plans.append(plan_run(config, run.writer.recipe, trains_here=True)), run.arguments.device)
    return next(iter(plans), None)


def _sweep(directory: Path) -> None:
    for parent in (directory, directory / STAGE_OF_VALUES):
        for path in sweep_unfinished(parent):
            logger.warning("removed %s, which a run that was killed left unfinished", path)


def _settings(run: PreparedRun, config: Config, plan: RunPlan) -> dict[str, Any]:
    """Return what run.json says from the begin."""
    recipe = run.writer.recipe
    settings = {"wmtp": wmtp.__version__, "config": config.model_dump(mode="json"), "recipe": recipe.to_document()}
    settings |= trained_record(recipe, run.base.checkpoint)
    return {**settings, "plan": json.loads(json.dumps(plan.to_dict()))}


def _outcome(result: TrainResult, log: list[dict[str, float]]) -> RunOutcome:
    facts = {"steps": result.steps, "seconds": result.seconds, "best_step": result.best_step}
    explained, peak = result.explained_variance, peak_bytes()
    return RunOutcome.model_validate({**facts, "explained_variance": explained, "peak_bytes": peak, "log": log})


def _figures(entries: list[dict[str, float]]) -> dict[str, float]:
    return {name: value for entry in entries for name, value in entry.items() if name.startswith("eval_")}
