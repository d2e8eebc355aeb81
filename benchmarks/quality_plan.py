"""What quality.py runs: experiments, their jobs, and where results are kept."""

from __future__ import annotations

import json
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import quality_decisions
import quality_noise
import quality_reward
import torch
import transformers
from quality_report import Record
from typing_extensions import override

import wmtp


@dataclass(frozen=True)
class Job:
    """One model to train.

    Attributes:
        experiment: `noise`, `reward` or `decisions`.
        arm: Of the experiment; `reference` or `pretrained` for the models that arms begin from.
        seed: Of everything random.
        share: A reference's share of the policy's budget; None where there is no reference.
    """

    experiment: str
    arm: str
    seed: int
    share: float | None = None


@dataclass(frozen=True)
class Experiment(ABC):
    """One of the experiments, and the directory of its results.

    Attributes:
        name: As jobs and results have it.
        sizes: What is run.
        directory: Where its results are, and models and losses that other jobs begin from.
    """

    name: str
    sizes: Any
    directory: Path

    @abstractmethod
    def first(self) -> Iterator[Job]:
        """Yield what others begin from."""

    @abstractmethod
    def then(self) -> Iterator[Job]:
        """Yield the arms, seed by seed, so that whole seeds are there when a run is stopped."""

    @abstractmethod
    def run(self, job: Job) -> dict[str, Any]:
        """Train one model, and return what was measured."""

    def settings(self) -> dict[str, Any]:
        """Return what results depend on, as JSON gives it back."""
        return dict(json.loads(json.dumps(asdict(self.sizes) | {"versions": versions()})))

    def read(self) -> list[Record]:
        """Return the results of an earlier run with the same settings; leaves with an error when they differ."""
        self.directory.mkdir(parents=True, exist_ok=True)
        settings = self.directory / "settings.json"
        if not settings.exists():
            settings.write_text(json.dumps(self.settings(), indent=2) + "\n", encoding="utf-8")
        if json.loads(settings.read_text(encoding="utf-8")) != self.settings():
            sys.exit(
                f"error: {settings}: these results are of other settings or versions\nhint: --results DIR, a new one"
            )
        if not self._results.exists():
            return []
        return [json.loads(line) for line in self._results.read_text(encoding="utf-8").splitlines()]

    def keep(self, record: Record) -> None:
        """Write down one result."""
        with self._results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def kept(self, job: Job) -> Path:
        """Return where a reference keeps its losses, or a pretrained model its weights."""
        return self.directory / f"{job.seed}-{job.share}.pt"

    @property
    def _results(self) -> Path:
        return self.directory / "results.jsonl"


class Noise(Experiment):
    """rho1-wmtp on text with known noise."""

    @override
    def first(self) -> Iterator[Job]:
        for seed in self.sizes.seeds:
            yield from (Job(self.name, "reference", seed, share) for share in self.sizes.references)

    @override
    def then(self) -> Iterator[Job]:
        for seed in self.sizes.seeds:
            for arm in self.sizes.arms:
                shares = self.sizes.references if arm in quality_noise.SELECTING else (None,)
                yield from (Job(self.name, arm, seed, share) for share in shares)

    @override
    def run(self, job: Job) -> dict[str, Any]:
        if job.arm == "reference":
            assert job.share is not None
            return quality_noise.train_reference(self.sizes, job.seed, job.share, self.kept(job))
        return quality_noise.train_policy(self.sizes, job.seed, job.arm, self.kept(job) if job.share else None)


class Credit(Experiment):
    """Arms that begin from one pretrained model of sums; the experiment's name is its module's."""

    @override
    def first(self) -> Iterator[Job]:
        return (Job(self.name, "pretrained", seed) for seed in self.sizes.seeds)

    @override
    def then(self) -> Iterator[Job]:
        return (Job(self.name, arm.name, seed) for seed in self.sizes.seeds for arm in self.sizes.arms)

    @override
    def run(self, job: Job) -> dict[str, Any]:
        module = {"reward": quality_reward, "decisions": quality_decisions}[self.name]
        if job.arm == "pretrained":
            return module.train_first(self.sizes, job.seed, self.kept(job))
        arm = next(arm for arm in self.sizes.arms if arm.name == job.arm)
        return module.train_arm(self.sizes, job.seed, arm, self.kept(job))


def experiments(directory: Path, *, short: bool) -> list[Experiment]:
    """Return all experiments, each with a directory of its own in this one."""
    size = "SHORT" if short else "FULL"
    return [
        Noise("noise", getattr(quality_noise, size), directory / "noise"),
        Credit("reward", getattr(quality_reward, size), directory / "reward"),
        Credit("decisions", getattr(quality_decisions, size), directory / "decisions"),
    ]


def versions() -> str:
    """Return what the figures depend on besides, in one line."""
    packages = ", ".join(f"{module.__name__} {module.__version__}" for module in (wmtp, torch, transformers))
    return f"{packages}, Python {platform.python_version()}"
