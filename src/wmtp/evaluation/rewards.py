"""Rewards from tests: for critic-wmtp, a number beside each answer that says how much of its task it solves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from wmtp.data.columns import read_text
from wmtp.data.fault_list import FaultList
from wmtp.errors import DataError
from wmtp.evaluation.execution import RunLimits, run_tests
from wmtp.evaluation.outcomes import Outcome
from wmtp.evaluation.tasks import Task, read_records, read_tasks
from wmtp.storage.replace import replace_file
from wmtp.untrusted import did_you_mean, show

How = Literal["share", "all"]
_KEY = "write the answer to each task under its task_id, and say under which key: answer='code'"


def reward_completions(
    tasks: Mapping[str, Task],
    completions: Sequence[tuple[str, str]],
    *,
    allow_code_execution: bool,
    how: How = "share",
    limits: RunLimits | None = None,
) -> list[float]:
    """Return the reward of each answer, in order.

    Args:
        tasks: By name, as `read_tasks` returns them.
        completions: Names of tasks with answers to them; several to one task if need be.
        allow_code_execution: Whether the operator agrees that answers are run.
        how: `share`: of the tests that pass, 0 to 1. `all`: 1 where all pass, else 0.
        limits: Of each program; None: the usual ones.

    Raises:
        TrustError: If the operator does not agree.
        KeyError: If there is no such task.
    """
    programs = [tasks[name].program(answer) for name, answer in completions]
    outcomes = run_tests(programs, allow_code_execution=allow_code_execution, limits=limits)
    return [_reward(outcome, how) for outcome in outcomes]


def write_rewards(
    tasks: Path,
    answers: Path,
    destination: Path,
    *,
    allow_code_execution: bool,
    answer: str = "code",
    how: How = "share",
) -> list[float]:
    """Run answers against the tests of their tasks, and write them with their rewards, as training reads them.

    Each line of the new file has `task_id`, `text` (the prompt), `code` (the answer) and `reward`; a recipe reads it
    with `format: prompt_completion`, `prompt: text`, `completion: code` and `critic.reward_column: reward`.

    Args:
        tasks: See `read_tasks`.
        answers: Records with `task_id` and an answer; several for one task if need be.
        destination: The file to write; what stands there is replaced once all is known.
        allow_code_execution: Whether the operator agrees that answers are run.
        answer: The key of the answers.
        how: See `reward_completions`.

    Raises:
        TrustError: If the operator does not agree.
        DataError: If a file cannot be used, or an answer is one to no task.
    """
    known = read_tasks(tasks)
    given = _answers(answers, answer, known)
    rewards = reward_completions(known, given, allow_code_execution=allow_code_execution, how=how)
    lines = [
        json.dumps({"task_id": name, "text": known[name].prompt, "code": code, "reward": reward})
        for (name, code), reward in zip(given, rewards, strict=True)
    ]
    replace_file(destination, "".join(f"{line}\n" for line in lines).encode())
    return rewards


def _reward(outcome: Outcome, how: How) -> float:
    return outcome.share if how == "share" else float(outcome.status == "passed")


def _answers(path: Path, key: str, tasks: Mapping[str, Task]) -> list[tuple[str, str]]:
    faults, found = FaultList(str(path)), list[tuple[str, str]]()
    for where, entry in read_records(path, faults):
        with faults.collected():
            name = str(entry.get("task_id"))
            if name not in tasks:
                hint = f"give it the task_id of a task in the other file{did_you_mean(name, tasks)}"
                raise DataError(f"{where}: task_id is {show(entry.get('task_id'))}, and there is no such task", hint)
            found.append((name, read_text(entry, key, where, _KEY, may_be_empty=True)))
    faults.raise_any()
    if not found:
        raise DataError(f"{path}: holds no answer", hint=_KEY)
    return found
