"""The run of `wmtp demo --thorough`: long enough to learn something, and every way to weigh tokens."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from wmtp.data.documents import read_documents
from wmtp.data.rows import build_rows
from wmtp.demo.checks import check_equal
from wmtp.demo.completion import complete_line
from wmtp.demo.modes import MODES, run_modes
from wmtp.demo.setting import Tell, recipe_path, show_report, show_resolutions, train_baseline, write_zoo
from wmtp.errors import TrainingError
from wmtp.loaders.base import LoadResult
from wmtp.loaders.standardized import load
from wmtp.settings.recipe import Recipe, load_recipe
from wmtp.training.run import TrainResult

_MODE_STEPS = 60
_LINES = ("    def __init__(self", "if __name__ ==", "else")


def run_thorough(directory: Path, tell: Tell, *, max_steps: int = 300) -> TrainResult:
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
    config = write_zoo(directory, tell)
    tell("\n== 2. Which models fit which algorithm, from metadata alone")
    show_resolutions(directory, config, tell)
    tell(f"\n== 3. Train baseline-mtp for {max_steps} steps on the standard library's sources")
    result = train_baseline(directory, [], max_steps=max_steps)
    for line in result.summary():
        tell(line)
    tell("\n== 4. What was learned")
    reloaded = load(result.final_checkpoint)
    _check_learned(result, reloaded, load_recipe(recipe_path(directory, "baseline-mtp")), tell)
    tell("\n== 5. The checkpoint, loaded again by its own metadata.json")
    check_equal(result.model, reloaded, tell)
    for start in _LINES:
        tell(f"  {start!r} -> {complete_line(reloaded.model, reloaded.tokenizer, start)!r}")
    steps = min(max_steps, _MODE_STEPS)
    tell(f"\n== 6. Weighted training: {steps} steps of each mode of rho1-wmtp and critic-wmtp")
    modes = run_modes(MODES, directory, result, lambda line: tell(f"  {line}"), max_steps=steps, logging_steps=5)
    tell("\n== 7. Which tokens each of them has learned: a page for a browser")
    show_report(directory, [result, *modes], tell, documents=3)
    tell(f"\nLook around: wmtp ls {directory}    wmtp inspect {result.final_checkpoint}")
    return result


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
