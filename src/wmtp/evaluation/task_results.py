"""What came of asking models to solve programming tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wmtp.evaluation.answers import Answer
from wmtp.evaluation.intervals import Estimate, Resampling
from wmtp.evaluation.outcomes import Outcome
from wmtp.evaluation.shown import Table, as_html, shown
from wmtp.untrusted import plain
from wmtp.wording import counted


@dataclass(frozen=True)
class TaskAnswers:
    """The answers to one task.

    Attributes:
        task_id: Its name.
        answers: What was run.
        outcomes: What came of each.
    """

    task_id: str
    answers: Sequence[Answer]
    outcomes: Sequence[Outcome]

    @property
    def num_passed(self) -> int:
        """Answers that pass all tests."""
        return sum(outcome.status == "passed" for outcome in self.outcomes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        answers = [
            {**asdict(answer), "status": outcome.status, "error": outcome.error}
            for answer, outcome in zip(self.answers, self.outcomes, strict=True)
        ]
        return {"task_id": self.task_id, "num_passed": self.num_passed, "answers": answers}


@dataclass(frozen=True)
class ModelTasks:
    """How many tasks a model solves.

    Attributes:
        model: Its address.
        pass_at: By k, the chance that one of k answers passes all tests of a task, as a mean over tasks.
        tasks: Task by task.
    """

    model: str
    pass_at: dict[int, Estimate]
    tasks: Sequence[TaskAnswers]

    def statuses(self) -> Counter[str]:
        """Return how many answers came to what."""
        return Counter(outcome.status for task in self.tasks for outcome in task.outcomes)

    def num_ran_out(self) -> int:
        """Return how many answers were cut at the most tokens that one may have."""
        return sum(answer.ran_out for task in self.tasks for answer in task.answers)

    def unconfined(self) -> dict[str, int]:
        """Return what programs had not given up, with how many of them."""
        found = Counter(
            name
            for task in self.tasks
            for outcome in task.outcomes
            for name, held in asdict(outcome.confinement).items()
            if not held
        )
        return dict(found)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "model": self.model,
            "pass_at": [{"k": k, **estimate.to_dict()} for k, estimate in self.pass_at.items()],
            "statuses": dict(self.statuses()),
            "num_ran_out": self.num_ran_out(),
            "unconfined": self.unconfined(),
            "tasks": [task.to_dict() for task in self.tasks],
        }


@dataclass(frozen=True)
class TaskDifference:
    """By how much a model's pass@k is above that of the first, on the same tasks."""

    model: str
    against: str
    pass_at: dict[int, Estimate]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        found = [{"k": k, **estimate.to_dict()} for k, estimate in self.pass_at.items()]
        return {"model": self.model, "against": self.against, "pass_at": found}


@dataclass(frozen=True)
class TaskEvaluation:
    """How many programming tasks models solve.

    Attributes:
        tasks: The file.
        num_tasks: How many were put to each model.
        samples: Answers to each.
        temperature: Of sampling; 0: the most probable answer.
        max_new_tokens: Tokens of an answer at most.
        models: In the order in which they were named.
        differences: Of every model but the first against the first.
        resampling: How intervals were made, by drawing tasks; its seed is that of sampling too.
    """

    tasks: str
    num_tasks: int
    samples: int
    temperature: float
    max_new_tokens: int
    models: Sequence[ModelTasks]
    differences: Sequence[TaskDifference]
    resampling: Resampling

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **vars(self),
            "models": [model.to_dict() for model in self.models],
            "differences": [difference.to_dict() for difference in self.differences],
            "resampling": vars(self.resampling),
        }

    def tables(self) -> list[Table]:
        """Return what a person reads, as text."""
        ks = [f"PASS@{k}" for k in self.models[0].pass_at]
        rows = [
            (
                plain(model.model), *(shown(each, 4) for each in model.pass_at.values()),
                *(str(model.statuses()[status]) for status in ("passed", "failed", "timed out", "limited")),
            )
            for model in self.models
        ]  # fmt: skip
        found = [Table(("MODEL", *ks, "PASSED", "FAILED", "TIMED OUT", "LIMITED"), rows)]
        differences = [
            (plain(each.model), plain(each.against), *(shown(one, 4, signed=True) for one in each.pass_at.values()))
            for each in self.differences
        ]
        return [*found, Table(("MODEL", "LESS", *ks), differences)] if differences else found

    def notes(self) -> list[str]:
        """Return what has to be known beside the tables."""
        share = f"{100 * self.resampling.confidence:g} %"
        asked = f"{counted(self.samples, 'answer')} to each of {counted(self.num_tasks, 'task')}"
        found = [f"{asked}, temperature {self.temperature:g}"]
        if self.num_tasks > 1:
            found.append(f"in brackets: {share} of {self.resampling.resamples:,} draws of tasks")
        cut = [(plain(model.model), model.num_ran_out()) for model in self.models]
        most = f"cut at {self.max_new_tokens} tokens, or where the positions of the model end"
        return [*found, *(f"{name}: {counted(count, 'answer')} {most}" for name, count in cut if count)]

    def _repr_html_(self) -> str:
        return as_html(self.tables(), self.notes())
