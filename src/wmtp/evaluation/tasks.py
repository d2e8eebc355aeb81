"""Programming tasks with tests, as MBPP and HumanEval write them, and programs that answer them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmtp.data.columns import read_text
from wmtp.data.content import read_content
from wmtp.data.fault_list import FaultList
from wmtp.data.records import parse_record, record_texts
from wmtp.errors import DataError
from wmtp.untrusted import show

_KEYS = "write test_list, as MBPP does, or test and entry_point, as HumanEval does"
_MEND = "mend the line, or remove it"


@dataclass(frozen=True)
class Program:
    """A program in Python, and what shows that it is right.

    Attributes:
        code: The program; without site-packages, it can import what Python itself brings.
        tests: Each a piece of code that runs through when the program is right. They run in order and see what the
            program has defined, and those after one that fails run too. At least one.
    """

    code: str
    tests: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.tests:
            raise ValueError("a program without tests can neither pass nor fail")


@dataclass(frozen=True)
class Task:
    """A programming task.

    Attributes:
        task_id: Its name, as the file has it, in text.
        prompt: What a model is given.
        tests: See `Program`.
        head: What stands before an answer in the program: with HumanEval the prompt, which an answer goes on from.
        setup: What runs before the tests: `test_setup_code` of MBPP.
        solution: The answer that the file itself gives; empty where it gives none.
    """

    task_id: str
    prompt: str
    tests: tuple[str, ...]
    head: str = ""
    setup: str = ""
    solution: str = ""

    def program(self, answer: str) -> Program:
        """Return the program that an answer makes."""
        return Program(f"{self.head}{answer}\n{self.setup}", self.tests)


def read_tasks(path: Path) -> dict[str, Task]:
    """Return the tasks of a file by their names, in its order.

    A record with `test_list` is one of MBPP (`text` or `prompt`, `code`), one with `test` and `entry_point` one of
    HumanEval (`prompt`, `canonical_solution`), which has one test: `check(<entry_point>)`. Without `task_id` a task
    is called by its number, from 1.

    Args:
        path: JSONL, or what else holds records; by gzip too.

    Raises:
        DataError: With everything that is wrong in the file.
    """
    tasks: dict[str, Task] = {}
    faults = FaultList(str(path))
    for number, (where, entry) in enumerate(read_records(path, faults), start=1):
        with faults.collected():
            task = _task(entry, str(entry.get("task_id", number)), where)
            if task.task_id in tasks:
                raise DataError(f"{where}: task_id {show(task.task_id)} stands twice", hint="give each task its own")
            tasks[task.task_id] = task
    faults.raise_any()
    if not tasks:
        raise DataError(f"{path}: holds no task", hint=_KEYS)
    return tasks


def read_records(path: Path, faults: FaultList) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the records of a file, each with its place; what is none goes to the faults."""
    if not path.is_file():
        raise DataError(f"{path}: no such file", hint="name a file of JSON records, one a line")
    for where, data in record_texts(read_content(path)):
        with faults.collected():
            yield where, parse_record(data, where)


def _task(entry: Mapping[str, Any], task_id: str, where: str) -> Task:
    if "test_list" in entry:
        prompt = read_text(entry, "text" if "text" in entry else "prompt", where, _KEYS)
        setup = entry.get("test_setup_code") and read_text(entry, "test_setup_code", where, _KEYS)
        solution = read_text(entry, "code", where, _KEYS) if "code" in entry else ""
        return Task(task_id, prompt, _test_list(entry, where), "", setup or "", solution)
    test, name = read_text(entry, "test", where, _KEYS), read_text(entry, "entry_point", where, _KEYS)
    if not name.isidentifier():
        raise DataError(f"{where}: 'entry_point' is {show(name)}, expected the name of a function", hint=_MEND)
    prompt = read_text(entry, "prompt", where, _KEYS)
    key = "canonical_solution"
    solution = read_text(entry, key, where, _KEYS) if key in entry else ""
    return Task(task_id, prompt, (f"{test}\ncheck({name})",), prompt, "", solution)


def _test_list(entry: Mapping[str, Any], where: str) -> tuple[str, ...]:
    found = entry["test_list"]
    if not isinstance(found, list) or not found or not all(isinstance(test, str) and test.strip() for test in found):
        raise DataError(f"{where}: 'test_list' is {show(found)}, expected a list of code, not empty", hint=_MEND)
    return tuple(found)
