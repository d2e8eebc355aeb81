"""The run of `wmtp demo`: everything once, in two minutes: proof, refusals, loading, three runs, and their report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file, save_file

from wmtp.demo.modes import BATCH, EVERY, MODES, run_modes
from wmtp.demo.setting import Tell, show_report, show_resolutions, train_baseline, write_zoo
from wmtp.demo.zoo import stdlib_sources
from wmtp.errors import TrainingError, WmtpError
from wmtp.loaders.standardized import load, plan_load
from wmtp.training.run import TrainResult

_MODE_STEPS = 40
# Of all heads the first is to learn most in so few steps: it becomes the reference of rho1-wmtp.
_PRIOR = "loss.head_prior={decay: 0.2}"
_MODES = tuple(mode for mode in MODES if mode.name in ("token_skip", "token"))


def run_tour(directory: Path, tell: Tell, *, max_steps: int = 120) -> list[TrainResult]:
    """Show what wmtp is for: proof, refusals, models found by metadata, a run of each algorithm, and their report.

    Args:
        directory: Where everything goes; a zoo that is already there is used.
        tell: Called with each line for the person who watches.
        max_steps: Optimizer steps of the baseline; the other two runs have at most 40.

    Returns:
        The results of the three runs.

    Raises:
        TrainingError: If a result is not what the demo promises.
    """
    tell(f"== 1. A zoo of checkpoints in {directory}, each with a metadata.json")
    config = write_zoo(directory, tell)
    tell("\n== 2. Proof that one loads, from the headers of its files, before a weight is read")
    for line in plan_load(directory / "llama-mtp").summary():
        tell(f"  {line}")
    tell("  proven: every parameter has its tensor, and every tensor its parameter")
    tell("\n== 3. What others would load with random weights, or run unasked, is refused")
    _show_refusals(directory, tell)
    tell("\n== 4. Which models fit which algorithm, from metadata alone")
    show_resolutions(directory, config, tell)
    tell(f"\n== 5. baseline-mtp: {max_steps} steps on sources of the standard library")
    baseline = _train_baseline(directory, max_steps)
    for line in baseline.summary():
        tell(f"  {line}")
    steps = min(max_steps, _MODE_STEPS)
    tell(f"\n== 6. rho1-wmtp and critic-wmtp: {steps} steps each")
    modes = run_modes(_MODES, directory, baseline, lambda line: tell(f"  {line}"), max_steps=steps, logging_steps=20)
    tell("\n== 7. Which tokens each of them has learned: a page for a browser")
    results = [baseline, *modes]
    show_report(directory, results, tell, documents=3)
    tell(f"\nLook around: wmtp ls {directory}    wmtp inspect {baseline.final_checkpoint}")
    return results


def _train_baseline(directory: Path, max_steps: int) -> TrainResult:
    files = json.dumps([str(path) for path in stdlib_sources()[::EVERY]])
    every = max(1, max_steps // 4)
    steps = [f"train.logging_steps={every}", f"train.eval_steps={max_steps}"]
    return train_baseline(directory, [f"data.train.files={files}", BATCH, _PRIOR, *steps], max_steps=max_steps)


def _show_refusals(directory: Path, tell: Tell) -> None:
    """Show what is said to a checkpoint one of whose tensors has another name, and to one that brings code."""
    with TemporaryDirectory() as temporary:
        broken = Path(temporary) / "llama-renamed"
        shutil.copytree(directory / "llama-mtp", broken, ignore=shutil.ignore_patterns("manifest.json"))
        tensors = load_file(broken / "model.safetensors")
        name = "heads.4.layer.mlp.up_proj.weight"
        tensors[name.replace("layer", "block")] = tensors.pop(name)
        save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
        _show_refusal(broken, tell)
    _show_refusal(directory / "gpt2-mtp", tell)


def _show_refusal(path: Path, tell: Tell) -> None:
    try:
        load(path)
    except WmtpError as error:
        for line in str(error).replace(f"{path.parent}/", "").splitlines():
            tell(f"  {line}")
    else:
        raise TrainingError(f"{path}: was loaded", hint="the demo promises a refusal: please report this")
