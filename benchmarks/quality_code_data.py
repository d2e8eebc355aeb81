"""MBPP with several answers to each task: the right one, and some with one small error; rewards are tests passed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_code_mutations import mutations, normalised

from wmtp.evaluation import RunLimits, Task, read_tasks, run_tests

TRAIN, PASSING, HELD_OUT, TASKS = (f"{name}.jsonl" for name in ("train", "passing", "held_out", "held_out_tasks"))
_LIMITS = RunLimits(seconds=2, wall_seconds=20.0, memory_bytes=256 << 20)
_DRAWN = 5  # mutations of a task that are run
_MOST_CHARACTERS = 700  # of prompt and code: about 250 tokens


@dataclass(frozen=True)
class Sizes:
    """How much data there is.

    Attributes:
        seed: Of the split and of all mutations.
        train_tasks: Tasks to learn from.
        held_out_tasks: Tasks to measure on.
        wrong_answers: To each task, beside the right one, at most.
    """

    seed: int = 0
    train_tasks: int = 120
    held_out_tasks: int = 30
    wrong_answers: int = 3


def prompt_of(task: Task) -> str:
    """Return what a model is given: the task and its first test, which says how the function is called."""
    return f'"""\n{task.prompt}\n{task.tests[0]}\n"""\n'


def write_data(source: Path, directory: Path, sizes: Sizes) -> dict[str, Any]:
    """Write the data of all arms into a directory; returns what it holds. What is there already is kept.

    - train.jsonl: every answer to the tasks to learn from, with the share of tests that it passes under `reward`
    - passing.jsonl: of these, the ones that pass all tests
    - held_out.jsonl: every answer to the other tasks
    - held_out_tasks.jsonl: those tasks
    """
    facts = directory / "facts.json"
    if not facts.exists():
        directory.mkdir(parents=True, exist_ok=True)
        tasks = _drawn(read_tasks(source), sizes)
        answers = _answers(tasks, sizes)
        learned = set(list(tasks)[: sizes.train_tasks])
        train = [line for line in answers if line["task_id"] in learned]
        held_out = [line for line in answers if line["task_id"] not in learned]
        _write(directory / TRAIN, train)
        _write(directory / PASSING, [line for line in train if line["reward"] == 1])
        _write(directory / HELD_OUT, held_out)
        _write(directory / TASKS, [_task_line(task) for name, task in tasks.items() if name not in learned])
        facts.write_text(json.dumps({"train": _counts(train), "held_out": _counts(held_out)}, indent=1))
    return dict(json.loads(facts.read_text()))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _drawn(tasks: Mapping[str, Task], sizes: Sizes) -> dict[str, Task]:
    """Return as many short tasks as are needed, in random order, whose own solution passes as Python writes it."""
    short = [name for name, task in tasks.items() if len(prompt_of(task) + task.solution) <= _MOST_CHARACTERS]
    random.Random(sizes.seed).shuffle(short)
    needed = sizes.train_tasks + sizes.held_out_tasks
    programs = [tasks[name].program(normalised(tasks[name].solution)) for name in short[: needed + 20]]
    outcomes = run_tests(programs, allow_code_execution=True, limits=_LIMITS)
    passing = [name for name, outcome in zip(short, outcomes, strict=False) if outcome.status == "passed"]
    return {name: tasks[name] for name in passing[:needed]}


def _answers(tasks: Mapping[str, Task], sizes: Sizes) -> list[dict[str, Any]]:
    """Return the right answer to each task and wrong ones, each labelled by what its tests said.

    Of the mutations that are run, those that fail are taken first; where too few do, some that pass are taken too.
    """
    drawn = []
    for name, task in tasks.items():
        code = normalised(task.solution)
        found = mutations(code, random.Random(f"{sizes.seed}-{name}"), _DRAWN)
        drawn += [(task, "none", code), *((task, mutation.kind, mutation.code) for mutation in found)]
    programs = [task.program(code) for task, _, code in drawn]
    outcomes = run_tests(programs, allow_code_execution=True, limits=_LIMITS)
    lines = [
        {"task_id": task.task_id, "kind": kind, "text": prompt_of(task), "code": code, "reward": outcome.share}
        | {"status": outcome.status}
        for (task, kind, code), outcome in zip(drawn, outcomes, strict=True)
    ]
    taken = []
    for name in tasks:
        right, *wrong = [line for line in lines if line["task_id"] == name]
        taken += [right, *sorted(wrong, key=lambda line: line["reward"] == 1)[: sizes.wrong_answers]]
    return taken


def _task_line(task: Task) -> dict[str, Any]:
    return {"task_id": task.task_id, "text": prompt_of(task), "test_list": task.tests, "code": task.solution}


def _counts(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    by_kind: dict[str, list[float]] = {}
    for line in lines:
        by_kind.setdefault(line["kind"], []).append(line["reward"])
    kinds = {kind: [len(rewards), rewards.count(1)] for kind, rewards in sorted(by_kind.items())}
    passing = sum(line["reward"] == 1 for line in lines)
    return {"answers": len(lines), "passing": passing, "of_each_kind_all_and_passing": kinds}


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
