"""One training run, from settings to a published checkpoint."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

import wmtp
from wmtp.errors import TrainingError
from wmtp.load_plan.receipt import LoadReceipt
from wmtp.publishing.publish import sweep_unfinished
from wmtp.run_plan.trained import trained_record
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.checkpoints import FINAL, FINAL_NEXT_TOKEN
from wmtp.training.preparation import PreparedRun, prepare
from wmtp.training.progress import ProgressReport
from wmtp.training.rendezvous import part_after
from wmtp.training.trackers import set_trackers

logger = logging.getLogger("wmtp")

RUN_FILE = "run.json"


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

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values, without the model."""
        facts = {name: value for name, value in vars(self).items() if name != "model"}
        return facts | {"run_directory": str(self.run_directory), "receipt": self.receipt.to_dict()}

    def summary(self) -> list[str]:
        """Return the result in a few lines for a person."""
        lines = [f"{self.steps} steps in {self.seconds:.1f} s"]
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
    config: Config, recipe: Recipe, *, allow_code: Mapping[str, str] | None = None, resume: bool = False
) -> TrainResult:
    """Train the model that fits a recipe, and publish checkpoints that load as it did.

    A run writes into `<paths.output_dir>/<run.name>`: `run.json`, what trackers write, `step-<n>` every
    `train.save_steps` steps, and `final`. A checkpoint holds the model, not the state of the optimizer, so this
    version cannot resume a run. With `devices.dtype: auto`, models train in float32 off CUDA.

    Args:
        config: Where models are, and what to compute on.
        recipe: What to train.
        allow_code: Consent to run a checkpoint's code, besides that in `config.trust`.
        resume: Must be False in this version.

    Raises:
        TrainingError: If the run cannot start, or its loss stops being finite.
        DataError: If the data cannot be used.
        IncompatibleModelError: If no model fits the recipe.
    """
    if resume:
        raise TrainingError(
            "this version of wmtp cannot resume a run: its checkpoints hold no optimizer state",
            hint="start a new run whose paths.models.base is the last checkpoint of the old one",
        )
    try:
        return _train(config, recipe, allow_code or {})
    except BaseException as error:
        part_after(error)
        raise


def _train(config: Config, recipe: Recipe, allow_code: Mapping[str, str]) -> TrainResult:
    run = prepare(config, recipe, allow_code)
    progress = ProgressReport()
    started = time.monotonic()
    explained = run.fit_values()
    trainer = run.build_trainer(callbacks=[progress])
    set_trackers(trainer, config, recipe, run.directory)
    trainer.on_first_process(lambda: _begin(run, config, recipe))
    try:
        trainer.train()
        history = trainer.evaluations()
    finally:
        progress.stop()
    trainer.on_first_process(lambda: run.writer.save_final(trainer.state.global_step))
    trainer.end()
    return TrainResult(
        run_directory=run.directory,
        final_checkpoint=str(run.directory / FINAL),
        next_token_checkpoint=str(run.directory / FINAL_NEXT_TOKEN) if recipe.run.export_next_token else None,
        steps=trainer.state.global_step,
        initial_metrics=_figures(history[:1]),
        final_metrics=_figures(history[-1:]),
        best_step=int(min(history, key=lambda entry: entry["eval_ce_1"])["step"]) if history else None,
        explained_variance=explained,
        seconds=time.monotonic() - started,
        receipt=run.base.receipt,
        model=run.base.model.eval(),
    )


def _begin(run: PreparedRun, config: Config, recipe: Recipe) -> None:
    for path in sweep_unfinished(run.directory):
        logger.warning("removed %s, which a run that was killed left unfinished", path)
    settings = {"wmtp": wmtp.__version__, "config": config.model_dump(mode="json"), "recipe": recipe.to_document()}
    settings |= trained_record(recipe, run.base.checkpoint)
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / RUN_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _figures(entries: list[dict[str, float]]) -> dict[str, float]:
    return {name: value for entry in entries for name, value in entry.items() if name.startswith("eval_")}
