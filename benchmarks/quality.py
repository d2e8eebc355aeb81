"""Do the weights of rho1-wmtp and critic-wmtp do what they are for? Two experiments on models of 120,000 parameters.

    python benchmarks/quality.py                # half an hour on 2 cores, prints markdown
    python benchmarks/quality.py --short        # one seed, fewer steps: a minute or two
    python benchmarks/quality.py --results DIR  # where results and reference losses are kept

quality_noise.py and quality_reward.py say what is run, and what was fixed before. Every result is kept when it is there
(`results.jsonl`), so that a run that was stopped goes on from where it was; the end writes `quality.json`.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import quality_noise
import quality_reward
import torch
import transformers
from quality_report import Record, markdown

import wmtp

RESULTS, SETTINGS, SUMMARY = "results.jsonl", "settings.json", "quality.json"


@dataclass(frozen=True)
class Job:
    """One model to train.

    Attributes:
        experiment: `noise` or `reward`.
        arm: Of the experiment; `reference` or `pretrained` for the models that arms begin from.
        seed: Of everything random.
        share: A reference's share of the policy's budget; None where there is no reference.
    """

    experiment: str
    arm: str
    seed: int
    share: float | None = None

    def kept(self, directory: Path) -> Path:
        """Return where a reference keeps its losses, or a pretrained model its weights."""
        return directory / f"{self.experiment}-{self.seed}-{self.share}.pt"


@dataclass(frozen=True)
class Plan:
    """What is run, and where its results are."""

    noise: quality_noise.Sizes
    reward: quality_reward.Sizes
    directory: Path

    def first(self) -> Iterator[Job]:
        """Yield what others begin from."""
        for seed in self.noise.seeds:
            for share in self.noise.references:
                yield Job("noise", "reference", seed, share)
        for seed in self.reward.seeds:
            yield Job("reward", "pretrained", seed)

    def then(self) -> Iterator[Job]:
        """Yield the arms, seed by seed, so that whole seeds are there when a run is stopped."""
        for seed in self.noise.seeds:
            for arm in self.noise.arms:
                shares = self.noise.references if arm in quality_noise.SELECTING else (None,)
                yield from (Job("noise", arm, seed, share) for share in shares)
        for seed in self.reward.seeds:
            yield from (Job("reward", arm, seed) for arm in self.reward.arms)

    def run(self, job: Job) -> dict[str, Any]:
        """Train one model, and return what was measured."""
        kept = job.kept(self.directory)
        if job.arm == "reference":
            assert job.share is not None
            return quality_noise.train_reference(self.noise, job.seed, job.share, kept)
        if job.arm == "pretrained":
            return quality_reward.pretrain(self.reward, job.seed, kept)
        if job.experiment == "noise":
            return quality_noise.train_policy(self.noise, job.seed, job.arm, kept if job.share else None)
        return quality_reward.continue_training(self.reward, job.seed, job.arm, kept)

    def settings(self) -> dict[str, Any]:
        """Return what results depend on, as JSON gives it back."""
        found = {"noise": asdict(self.noise), "reward": asdict(self.reward), "versions": versions()}
        return dict(json.loads(json.dumps(found)))


def versions() -> str:
    """Return what the figures depend on besides, in one line."""
    packages = ", ".join(f"{module.__name__} {module.__version__}" for module in (wmtp, torch, transformers))
    return f"{packages}, Python {platform.python_version()}"


def run_timed(work: tuple[Plan, Job]) -> Record:
    """Do one job in a worker process; `seconds` are of processor time, as machines are shared."""
    plan, job = work
    started = time.process_time()
    return asdict(job) | plan.run(job) | {"seconds": round(time.process_time() - started, 1)}


def prepare_worker() -> None:
    """Keep a worker to one core, and to itself."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def run_all(plan: Plan, workers: int) -> list[Record]:
    """Do all jobs that have no result yet; returns all results."""
    records = read_records(plan)
    with multiprocessing.get_context("spawn").Pool(workers, prepare_worker) as pool:
        for jobs in (list(plan.first()), list(plan.then())):
            work = [(plan, job) for job in jobs if not any(asdict(job).items() <= record.items() for record in records)]
            for record in pool.imap_unordered(run_timed, work):
                records.append(record)
                with (plan.directory / RESULTS).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                print(json.dumps(record), file=sys.stderr, flush=True)
    return records


def read_records(plan: Plan) -> list[Record]:
    """Return the results of an earlier run with the same settings; leaves with an error when they differ."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    settings, results = plan.directory / SETTINGS, plan.directory / RESULTS
    if not settings.exists():
        settings.write_text(json.dumps(plan.settings(), indent=2) + "\n", encoding="utf-8")
    if json.loads(settings.read_text(encoding="utf-8")) != plan.settings():
        sys.exit(f"error: {settings}: these results are of other settings or versions\nhint: --results DIR, a new one")
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one seed, fewer steps and arms")
    parser.add_argument("--results", type=Path, metavar="DIR", help="default: runs/quality, or runs/quality-short")
    parser.add_argument("--workers", type=int, default=2, help="processes of one core each (2)")
    arguments = parser.parse_args(argv)
    short = arguments.short
    plan = Plan(
        quality_noise.SHORT if short else quality_noise.FULL,
        quality_reward.SHORT if short else quality_reward.FULL,
        arguments.results or Path("runs") / ("quality-short" if short else "quality"),
    )
    records = run_all(plan, arguments.workers)
    summary = plan.settings() | {"records": records}
    (plan.directory / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(f"{versions()}\n\n{markdown(records)}")


if __name__ == "__main__":
    main()
