"""What came of a program and its tests, from what the process that ran them has answered."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ValidationError

from wmtp.errors import TrustError
from wmtp.faults import StrictModel
from wmtp.untrusted import plain

Status = Literal["passed", "failed", "timed out", "limited"]
_BY_A_LIMIT = {signal.SIGXFSZ, signal.SIGKILL, signal.SIGSYS}


@dataclass(frozen=True)
class Confinement:
    """What the process that ran a program had given up; what is False, the system did not let it.

    Attributes:
        network_cut: It was in a network with nothing in it.
        files_confined: It could read what Python needs, write to its own directory of bounded size, and no more.
        memory_limited: Memory beyond the limit was refused.
        processes_barred: It could start no process and no thread, signal none, and open no socket.
    """

    network_cut: bool = False
    files_confined: bool = False
    memory_limited: bool = False
    processes_barred: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one program.

    Attributes:
        status: `passed`: every test ran through. `timed out`: it took more processor time, or more time, than it may.
            `limited`: it wanted memory, files, processes, a connection or whatever else it may not have. `failed`: the
            rest.
        num_passed: Tests that ran through, each by itself.
        num_tests: All of them.
        error: The first line of the first error; empty where there was none.
        confinement: What the process had given up.
    """

    status: Status
    num_passed: int
    num_tests: int
    error: str
    confinement: Confinement

    @property
    def share(self) -> float:
        """The share of tests that ran through, 0 to 1."""
        return self.num_passed / self.num_tests

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return asdict(self)


class _Confined(StrictModel):
    token: str
    network_cut: bool
    files_confined: bool
    memory_limited: bool
    processes_barred: bool


class _Tested(StrictModel):
    token: str
    test: int
    passed: bool = False
    error: str = ""
    limited: bool = False


def read_outcome(answer: bytes, token: str, num_tests: int, ended: int | None) -> Outcome:
    """Return what came of a program.

    Args:
        answer: All that the process wrote; lines without the token are those of the program, and say nothing.
        token: Of this run.
        num_tests: How many tests there were.
        ended: The status of the process, negative for a signal; None where its time was up.

    Raises:
        TrustError: If the process never came to the program, which is no fault of that.
    """
    told = list(_told(answer, token))
    started = next((each for each in told if isinstance(each, _Confined)), None)
    if started is None:
        raise TrustError(
            f"the limited process for a program did not start: it {_end(ended)}",
            hint="no reward was given for that: see that 'python -I -S -c pass' works here, free memory, and repeat",
        )
    confinement = Confinement(**started.model_dump(exclude={"token"}))
    tested = {each.test: each for each in told if isinstance(each, _Tested) and 0 <= each.test < num_tests}
    passed = sum(each.passed for each in tested.values())
    status, error = _verdict([tested.get(index) for index in range(num_tests)], ended)
    return Outcome(status, passed, num_tests, error, confinement)


def _told(answer: bytes, token: str) -> Iterator[_Confined | _Tested]:
    for line in answer.split(b"\n"):
        for kind in (_Tested, _Confined):
            try:
                found = kind.model_validate_json(line)
            except ValidationError:
                continue
            if found.token == token:
                yield found


def _verdict(tests: Sequence[_Tested | None], ended: int | None) -> tuple[Status, str]:
    if all(test is not None and test.passed for test in tests):
        return "passed", ""
    failed = [test for test in tests if test is not None and not test.passed]
    error = plain(failed[0].error) if failed else _end(ended)
    if ended in (None, -signal.SIGXCPU):
        return "timed out", error
    if not failed:
        error = f"{error} before all tests had run"
    is_limited = any(test.limited for test in failed) or (ended < 0 and -ended in _BY_A_LIMIT)
    return ("limited" if is_limited else "failed"), error


def _end(ended: int | None) -> str:
    if ended in (None, -signal.SIGXCPU):
        return "took more time than it may"
    how = f"signal {-ended}" if ended < 0 else f"status {ended}"
    return f"ended with {how}"
