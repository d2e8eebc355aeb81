"""`--fuzz-seconds N`: fresh examples for N seconds, shared among the targets that were picked."""

from __future__ import annotations

import functools
import inspect
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

from fuzz.target import ENDLESS

_COUNTS: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seconds", type=float, default=0, help="fuzz for so long in all, instead of a few fixed examples"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Before the targets are imported: a decorated test keeps the settings of that moment.
    if _seconds(config):
        settings.load_profile(ENDLESS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    seconds = _seconds(pyfuncitem.config)
    if not seconds or not is_hypothesis_test(pyfuncitem.obj):
        return None
    targets = [item for item in pyfuncitem.session.items if is_hypothesis_test(getattr(item, "obj", None))]
    _count_examples(pyfuncitem)
    fixtures = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    end = time.monotonic() + seconds / len(targets)
    while time.monotonic() < end:
        pyfuncitem.obj(**fixtures)
    return True


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _COUNTS:
        terminalreporter.section("examples")
    for target, number in _COUNTS.items():
        terminalreporter.write_line(f"{number:>9,}  {target}")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Gives a directory that is empty again at each call: an example must not see the files of another."""
    directory = tmp_path_factory.mktemp("fuzz") / "checkpoint"

    def cleared() -> Path:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        return directory

    yield cleared
    shutil.rmtree(directory, ignore_errors=True)


def _seconds(config: pytest.Config) -> float:
    # Not there when pytest was started on another directory and found this file only while collecting.
    return float(config.getoption("fuzz_seconds", default=0))


def _count_examples(item: pytest.Function) -> None:
    handle = item.obj.hypothesis
    inner = handle.inner_test

    @functools.wraps(inner)
    def counted(*args: Any, **arguments: Any) -> None:
        _COUNTS[item.nodeid] += 1
        inner(*args, **arguments)

    handle.inner_test = counted
