"""What every demo stands on: a zoo in a directory, with its config.yaml and a recipe for each algorithm."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from wmtp.demo.zoo import CODE_FILE, EXHIBITS, make_zoo, stdlib_sources
from wmtp.errors import IncompatibleModelError
from wmtp.factory import resolve_models
from wmtp.manifest import sha256_bytes
from wmtp.metadata.file import load_metadata
from wmtp.report.write import REPORT_FILE, write_report
from wmtp.report.xray import XRayOptions
from wmtp.settings.config import Config, load_config
from wmtp.settings.recipe import load_recipe
from wmtp.training.run import TrainResult, train
from wmtp.training.saved_steps import published_checkpoints

Tell = Callable[[str], None]

ALGORITHMS = ("baseline-mtp", "rho1-wmtp", "critic-wmtp")
_CONFIG = """\
# Written by `wmtp demo`. Where models live, and whose code may run.
paths:
  models:
    base: [./llama-plain, ./llama-mtp, ./gpt2-mtp]
    ref: [./llama-ref]
    rm: [./gpt2-mtp, ./mistral-rm]
  output_dir: ./runs
devices: {{device: cpu, dtype: float32}}
trust:
  allow_code: {{{code}: "{digest}"}}  # the demo wrote that file itself
"""
_RECIPE = """\
# Written by `wmtp demo`. What to train, on which data, with which algorithm.
run: {{name: {name}, seed: 42}}
data:
  train: {{files: [{files}], format: text, max_length: 128, packing: true}}
  validation: {{fraction: 0.05}}
mtp: {{horizon: 4}}
train:
  algo: {algorithm}
  learning_rate: 4.0e-3
  max_steps: 300
  per_device_train_batch_size: 32
  gradient_accumulation_steps: 1
  warmup_ratio: 0.05
  lr_scheduler_type: cosine
  max_grad_norm: 1.0
  adam_beta2: 0.95
  logging_steps: 25
  eval_steps: 100
  save_steps: 300
"""


def write_zoo(directory: Path, tell: Tell) -> Config:
    """Write the zoo with its config.yaml and recipes, unless they are there; tell what each exhibit declares."""
    if not (directory / "config.yaml").exists():
        make_zoo(directory)
        digest = sha256_bytes((directory / "gpt2-mtp" / CODE_FILE).read_bytes())
        for algorithm in ALGORITHMS:
            files = ", ".join(json.dumps(str(path)) for path in stdlib_sources())
            text = _RECIPE.format(name=algorithm, algorithm=algorithm, files=files)
            recipe_path(directory, algorithm).write_text(text, encoding="utf-8")
        # Last: a zoo with its config is complete.
        (directory / "config.yaml").write_text(_CONFIG.format(code=CODE_FILE, digest=digest), encoding="utf-8")
    for exhibit in EXHIBITS:
        metadata = load_metadata(directory / exhibit.name)
        strategy = metadata.loading_strategy
        loads_as = strategy.transformers_class or strategy.model_class_name
        code = f" in {strategy.custom_module_file}" if strategy.custom_module_file else ""
        tell(f"  {exhibit.name:12} {metadata.wmtp_type:16} {exhibit.architecture:8} loads as {loads_as}{code}")
    return load_config(directory / "config.yaml")


def recipe_path(directory: Path, algorithm: str) -> Path:
    """Return where the recipe of an algorithm is."""
    return directory / f"{algorithm}.yaml"


def show_resolutions(directory: Path, config: Config, tell: Tell) -> None:
    """Tell which models of the zoo fit each recipe, and why the others do not."""
    for algorithm in ALGORITHMS:
        tell(f"  {algorithm}")
        try:
            lines = resolve_models(config, load_recipe(recipe_path(directory, algorithm))).describe()
        except IncompatibleModelError as error:
            lines = str(error).splitlines()
        for line in lines:
            tell(f"    {line.replace(f'{directory.resolve()}/', '')}")


def train_baseline(directory: Path, changes: Sequence[str], *, max_steps: int) -> TrainResult:
    """Train baseline-mtp on the zoo's built-in class, whose next-token head can become a reference.

    Args:
        directory: Of the demo.
        changes: Of the recipe, as on the command line.
        max_steps: Optimizer steps.
    """
    # An older zoo prefers another model.
    config = load_config(directory / "config.yaml", ["paths.models.base=./llama-mtp"])
    length = [f"train.max_steps={max_steps}", f"train.save_steps={save_steps(max_steps)}"]
    named = [f"run.name={_free_name(config)}", *length, *changes]
    return train(config, load_recipe(recipe_path(directory, "baseline-mtp"), named))


def save_steps(max_steps: int) -> int:
    """Return after how many steps a run of so many is saved: a report shows three states of it."""
    return max(1, -(-max_steps // 3))


def show_report(directory: Path, results: Sequence[TrainResult], tell: Tell, *, documents: int) -> None:
    """Write the report of some runs, side by side; what is read again for it is not told again."""
    runs = [result.run_directory for result in results]
    logger = logging.getLogger("wmtp")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        written = write_report(runs, directory / REPORT_FILE, xray=XRayOptions(documents=documents))
    finally:
        logger.setLevel(level)
    tell(list(written.summary())[-1])


def _free_name(config: Config) -> str:
    runs = Path(config.paths.output_dir)
    numbered = (f"demo-{number}" for number in range(1, 1000))
    return next(name for name in numbered if not published_checkpoints(runs / name))
