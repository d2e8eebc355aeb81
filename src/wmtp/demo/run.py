"""The run of `wmtp demo`: a zoo, the models that fit each recipe, training, and the result loaded again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from wmtp.data.documents import read_documents
from wmtp.data.rows import build_rows
from wmtp.demo.completion import complete_line
from wmtp.demo.modes import run_modes, save_steps
from wmtp.demo.zoo import CODE_FILE, EXHIBITS, make_zoo, stdlib_sources
from wmtp.errors import IncompatibleModelError, TrainingError
from wmtp.factory import resolve_models
from wmtp.loaders.base import LoadResult
from wmtp.loaders.standardized import load
from wmtp.manifest import sha256_bytes
from wmtp.metadata.file import load_metadata
from wmtp.report.write import REPORT_FILE, write_report
from wmtp.report.xray import XRayOptions
from wmtp.settings.config import Config, load_config
from wmtp.settings.recipe import Recipe, load_recipe
from wmtp.training.run import TrainResult, train
from wmtp.training.saved_steps import published_checkpoints

Tell = Callable[[str], None]

_MODE_STEPS = 60
_ALGORITHMS = ("baseline-mtp", "rho1-wmtp", "critic-wmtp")
_LINES = ("    def __init__(self", "if __name__ ==", "else")
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


def run_demo(directory: Path, tell: Tell, *, max_steps: int = 300) -> TrainResult:
    """Make the zoo, show which models fit which recipe, train, load the result again, and try each way to weigh tokens.

    Args:
        directory: Where everything goes; a zoo that is already there is used.
        tell: Called with each line for the person who watches.
        max_steps: Optimizer steps of the first run; those after it have at most 60.

    Returns:
        The result of the first run.

    Raises:
        TrainingError: If a result is not what the demo promises.
    """
    tell(f"== 1. A zoo of checkpoints in {directory}, each with a metadata.json")
    _write_zoo(directory, tell)
    config = load_config(directory / "config.yaml")
    tell("\n== 2. Which models fit which algorithm, from metadata alone")
    for algorithm in _ALGORITHMS:
        _show_resolution(config, load_recipe(_recipe_path(directory, algorithm)), tell)
    changes = [
        f"run.name={_free_name(config)}",
        f"train.max_steps={max_steps}",
        f"train.save_steps={save_steps(max_steps)}",
    ]
    recipe = load_recipe(_recipe_path(directory, "baseline-mtp"), changes)
    tell(f"\n== 3. Train baseline-mtp for {recipe.train.max_steps} steps on the standard library's sources")
    # Of the built-in class, whose next-token head can become a reference; an older zoo prefers another.
    result = train(load_config(directory / "config.yaml", ["paths.models.base=./llama-mtp"]), recipe)
    for line in result.summary():
        tell(line)
    tell("\n== 4. What was learned")
    reloaded = load(result.final_checkpoint, allow_code=config.trust.allow_code)
    _check_learned(result, reloaded, recipe, tell)
    tell("\n== 5. The checkpoint, loaded again by its own metadata.json")
    check_equal(result.model, reloaded, tell)
    for start in _LINES:
        tell(f"  {start!r} -> {complete_line(reloaded.model, reloaded.tokenizer, start)!r}")
    steps = min(max_steps, _MODE_STEPS)
    tell(f"\n== 6. Weighted training: {steps} steps of each mode of rho1-wmtp and critic-wmtp")
    modes = run_modes(directory, result, lambda line: tell(f"  {line}"), max_steps=steps)
    tell(f"\nLook around: wmtp ls {directory}    wmtp inspect {result.final_checkpoint}")
    _report(directory, [result, *modes], tell)
    return result


def _report(directory: Path, results: Sequence[TrainResult], tell: Tell) -> None:
    tell("\n== 7. Which tokens each of them has learned: a page for a browser")
    runs = [result.run_directory for result in results]
    written = write_report(runs, directory / REPORT_FILE, xray=XRayOptions(documents=3))
    tell(list(written.summary())[-1])


def check_equal(trained: nn.Module, reloaded: LoadResult, tell: Tell) -> None:
    """Show that a reloaded model gives the same hidden states as the one in memory, bit for bit."""
    ids = torch.arange(64).view(1, 64)
    with torch.no_grad():
        pairs = [(a, b) for a, b in zip(_heads(trained, ids), _heads(reloaded.model, ids), strict=True)]
    if not all(torch.equal(a, b) for a, b in pairs):
        raise TrainingError(
            f"{reloaded.receipt.uri}: its outputs differ from those of the model in memory",
            hint="this is a fault in wmtp: please report it with what 'wmtp env' prints",
        )
    tell(f"outputs of {reloaded.receipt.uri} equal those of the trained model in memory, bit for bit")


def _heads(model: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs: tuple[torch.Tensor, torch.Tensor] = model.eval().forward_heads(ids)  # type: ignore[operator]
    return outputs


def _write_zoo(directory: Path, tell: Tell) -> None:
    if not (directory / "config.yaml").exists():
        make_zoo(directory)
        digest = sha256_bytes((directory / "gpt2-mtp" / CODE_FILE).read_bytes())
        for algorithm in _ALGORITHMS:
            files = ", ".join(json.dumps(str(path)) for path in stdlib_sources())
            text = _RECIPE.format(name=algorithm, algorithm=algorithm, files=files)
            _recipe_path(directory, algorithm).write_text(text, encoding="utf-8")
        # Last: a zoo with its config is complete.
        (directory / "config.yaml").write_text(_CONFIG.format(code=CODE_FILE, digest=digest), encoding="utf-8")
    for exhibit in EXHIBITS:
        metadata = load_metadata(directory / exhibit.name)
        strategy = metadata.loading_strategy
        loads_as = strategy.transformers_class or strategy.model_class_name
        code = f" in {strategy.custom_module_file}" if strategy.custom_module_file else ""
        tell(f"  {exhibit.name:12} {metadata.wmtp_type:16} {exhibit.architecture:8} loads as {loads_as}{code}")


def _recipe_path(directory: Path, algorithm: str) -> Path:
    return directory / f"{algorithm}.yaml"


def _free_name(config: Config) -> str:
    runs = Path(config.paths.output_dir)
    numbered = (f"demo-{number}" for number in range(1, 1000))
    return next(name for name in numbered if not published_checkpoints(runs / name))


def _show_resolution(config: Config, recipe: Recipe, tell: Tell) -> None:
    tell(f"  {recipe.train.algo}")
    try:
        lines = resolve_models(config, recipe).describe()
    except IncompatibleModelError as error:
        lines = str(error).splitlines()
    for line in lines:
        tell(f"    {line.replace(f'{Path(config.paths.output_dir).parent}/', '')}")


def _check_learned(result: TrainResult, reloaded: LoadResult, recipe: Recipe, tell: Tell) -> None:
    """Compare each head with the least that a model could reach which ignores what it reads."""
    documents = read_documents(recipe.data.train, field="data.train")
    rows = build_rows(documents, reloaded.tokenizer, recipe.data.train, name="all files").rows
    counts = torch.bincount(torch.cat([example.input_ids.long() for row in rows for example in row])).double()
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * shares.log()).sum())
    tell(f"unigram entropy of the files: {entropy:.3f} nats per token")
    losses = [result.final_metrics[f"eval_ce_{k}"] for k in range(1, (recipe.mtp.horizon or 1) + 1)]
    for k, loss in enumerate(losses, start=1):
        tell(f"  head {k}, which predicts {k} ahead: {loss:.3f} on held-out files (perplexity {math.exp(loss):.0f})")
    if max(losses) >= entropy:
        raise TrainingError(
            f"a head's held-out cross-entropy {max(losses):.3f} is not below the unigram entropy {entropy:.3f}",
            hint="the demo promises that it is: please report this with what 'wmtp env' prints",
        )
