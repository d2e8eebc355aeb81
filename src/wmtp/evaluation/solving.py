"""pass@k: models are asked for programs, and these are run against the tests of their tasks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import Unpack

from wmtp.errors import SettingsError
from wmtp.evaluation.answers import Asked, Asking
from wmtp.evaluation.execution import RunLimits, run_tests
from wmtp.evaluation.intervals import Estimate, Resampling
from wmtp.evaluation.models import Subjects
from wmtp.evaluation.options import split_options
from wmtp.evaluation.passing import pass_at_k
from wmtp.evaluation.sums import Array
from wmtp.evaluation.task_results import ModelTasks, TaskAnswers, TaskDifference, TaskEvaluation
from wmtp.evaluation.tasks import Task, read_tasks
from wmtp.loaders.standardized import URI
from wmtp.settings.loading import LoadKeywords
from wmtp.trust.guards import scoring_errors
from wmtp.untrusted import show
from wmtp.wording import counted

logger = logging.getLogger("wmtp")

_REPORT_SECONDS = 15.0


class TaskKeywords(LoadKeywords, total=False):
    """The keyword arguments of `evaluate_tasks`: those of `wmtp.load`, and those that `TaskOptions` explains."""

    k: Sequence[int]
    samples: int
    temperature: float | None
    max_new_tokens: int
    template: str | None
    batch_size: int
    limit: int | None
    resamples: int
    confidence: float
    seed: int
    limits: RunLimits


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """How tasks are put to models.

    Attributes:
        k: For which k pass@k is wanted.
        samples: Answers to each task, at least the largest k.
        temperature: Of sampling. None: 0 (the most probable answer) for one sample, 0.8 for several.
        max_new_tokens: Tokens of an answer at most.
        template: See `Asking`.
        batch_size: Answers that are drawn at once.
        limit: Take this many tasks, from the first; None: all.
        resamples: How many times tasks are drawn for intervals.
        confidence: What share of the draws an interval holds.
        seed: Of the draws, and of sampling.
        limits: What a program and its tests may take; None: the usual.
    """

    k: Sequence[int] = (1,)
    samples: int = 1
    temperature: float | None = None
    max_new_tokens: int = 512
    template: str | None = None
    batch_size: int = 16
    limit: int | None = None
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    limits: RunLimits | None = None

    def __post_init__(self) -> None:
        for fault in self._faults():
            raise SettingsError(fault, hint="see TaskOptions in docs/evaluation.md")

    def _faults(self) -> Iterator[str]:
        for name in ("samples", "max_new_tokens", "batch_size", "limit", "resamples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {show(value)}, expected 1 or more"
        if not self.k or min(self.k) < 1 or max(self.k) > self.samples:
            yield f"k is {show(list(self.k))}, expected numbers from 1 to samples, which is {self.samples}"
        if self.temperature is not None and not 0 <= self.temperature < float("inf"):
            yield f"temperature is {show(self.temperature)}, expected 0 or more"
        if self.template is not None and self.template.count("{prompt}") != 1:
            yield f"template is {show(self.template)}, expected one {{prompt}} in it"
        if not 0 < self.confidence < 1 or self.seed < 0:
            yield f"confidence is {self.confidence} and seed {self.seed}, expected a share below 1, and 0 or more"

    @property
    def asking(self) -> Asking:
        """How tasks are put to a model."""
        usual = 0.0 if self.samples == 1 else 0.8
        temperature = usual if self.temperature is None else self.temperature
        return Asking(self.samples, temperature, self.max_new_tokens, self.template, self.batch_size, self.seed)


def evaluate_tasks(
    uris: URI | Sequence[URI], tasks: str | Path, *, allow_code_execution: bool, **options: Unpack[TaskKeywords]
) -> TaskEvaluation:
    """Ask models for programs, run them against the tests of their tasks, and return pass@k.

    Answers come from the next-token head. Programs run each in a limited process of its own: see `run_tests`.

    Args:
        uris: Models that `wmtp.load` takes.
        tasks: Records as HumanEval or MBPP write them: see `read_tasks`.
        allow_code_execution: Whether the operator agrees that programs run that a model wrote.
        **options: See `TaskOptions`, and `LoadOptions` for how models are loaded.

    Raises:
        TrustError: If the operator does not agree.
        WmtpError: If a model does not load, or tasks or options cannot be used.
    """
    run_tests([], allow_code_execution=allow_code_execution)  # before hours of sampling
    chosen, loading = split_options(TaskOptions, options, of="evaluate_tasks")
    wanted = list(read_tasks(Path(tasks)).values())[: chosen.limit]
    resampling = Resampling(chosen.resamples, chosen.confidence, chosen.seed)
    subjects = Subjects.open(uris, loading)
    subjects.prove()
    solved = [
        (subjects.checkpoints[number].where, _solved(subjects, number, wanted, chosen))
        for number in range(len(subjects.uris))
    ]
    shares = [task_shares(found, chosen.k) for _, found in solved]
    drawn = [resampling.sums(each) for each in shares]
    models = [
        ModelTasks(where, _estimates(chosen.k, own, resamples, resampling), found)
        for (where, found), own, resamples in zip(solved, shares, drawn, strict=True)
    ]
    first = models[0].model
    differences = [
        TaskDifference(
            model.model, first, _estimates(chosen.k, own - shares[0], _less(resamples, drawn[0]), resampling)
        )
        for model, own, resamples in zip(models[1:], shares[1:], drawn[1:], strict=True)
    ]
    asking = chosen.asking
    return TaskEvaluation(
        str(tasks), len(wanted), asking.samples, asking.temperature, asking.max_new_tokens, models, differences,
        resampling,
    )  # fmt: skip


def _solved(subjects: Subjects, number: int, tasks: Sequence[Task], options: TaskOptions) -> list[TaskAnswers]:
    """Return a model's answers to all tasks, with what came of them."""
    checkpoint, asking = subjects.checkpoints[number], options.asking
    asked = Asked(subjects.load(number), subjects.tokenizers[number], checkpoint.config, checkpoint.where)
    answers, reported = [], time.monotonic()
    logger.info(
        "%s: %s to each of %s", checkpoint.where, counted(asking.samples, "answer"), counted(len(tasks), "task")
    )
    for place, task in enumerate(tasks):
        with scoring_errors(checkpoint.where, f"task {show(task.task_id)}"):
            answers.append(asked.answers(task, place, asking))
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            logger.info("%s: %d of %d tasks are answered", checkpoint.where, place + 1, len(tasks))
    programs = [task.program(one.code) for task, own in zip(tasks, answers, strict=True) for one in own]
    outcomes = iter(run_tests(programs, allow_code_execution=True, limits=options.limits))
    return [
        TaskAnswers(task.task_id, own, [next(outcomes) for _ in own]) for task, own in zip(tasks, answers, strict=True)
    ]


def task_shares(found: Sequence[TaskAnswers], ks: Sequence[int]) -> Array:
    """Return pass@k of each task: `[task, k]`."""
    return np.array([[pass_at_k(len(task.answers), task.num_passed, k) for k in ks] for task in found])


def _estimates(ks: Sequence[int], shares: Array, drawn: Array | None, resampling: Resampling) -> dict[int, Estimate]:
    count = len(shares)
    return {
        k: resampling.estimate(
            float(shares[:, place].mean()), None if drawn is None else drawn[:, place] / count
        )
        for place, k in enumerate(ks)
    }  # fmt: skip


def _less(drawn: Array | None, first: Array | None) -> Array | None:
    return None if drawn is None or first is None else drawn - first
