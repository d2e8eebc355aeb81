"""What is believed of an answer: lines in the form, with the token of the run, about tests that there are."""

import json
import signal

import pytest

from wmtp.errors import TrustError
from wmtp.evaluation.outcomes import Confinement, read_outcome

TOKEN = "0123"


STARTED = {
    "token": TOKEN,
    "network_cut": True,
    "files_confined": False,
    "memory_limited": True,
    "processes_barred": True,
}


def answer(*facts, token=TOKEN):
    return (
        json.dumps(STARTED).encode()
        + b"\n"
        + b"".join(json.dumps({"token": token, **each}).encode() + b"\n" for each in facts)
    )


def passed(*tests):
    return [{"test": test, "passed": True} for test in tests]


def test_all_tests_with_the_token_are_a_pass_however_the_process_ended():
    for ended in (0, 1, -9, None):
        assert read_outcome(answer(*passed(1, 0)), TOKEN, 2, ended).status == "passed"


@pytest.mark.parametrize(
    "told",
    [
        answer(),
        answer(*passed(0, 1), token="other"),
        answer(*passed(0, 0)),
        answer(*passed(0, 2, -1)),
        answer({"test": 0, "passed": True, "more": 1}, {"test": True, "passed": True}),
        answer({"test": 0, "passed": 1}),
        answer() + b'{"token": "0123", "test": 0, "pas',
        answer() + b"\xff\n[[[[",
    ],
)
def test_anything_less_is_none(told):
    outcome = read_outcome(told, TOKEN, 2, 0)
    assert outcome.status == "failed"
    assert outcome.num_passed < 2


@pytest.mark.parametrize(
    ("ended", "status", "error"),
    [
        (None, "timed out", "took more time than it may"),
        (-signal.SIGXCPU, "timed out", "took more time than it may"),
        (-signal.SIGKILL, "limited", "ended with signal 9 before all tests had run"),
        (-signal.SIGXFSZ, "limited", f"ended with signal {int(signal.SIGXFSZ)} before all tests had run"),
        (0, "failed", "ended with status 0 before all tests had run"),
    ],
)
def test_an_end_without_all_tests_is_told_by_its_reason(ended, status, error):
    outcome = read_outcome(answer(*passed(0)), TOKEN, 2, ended)
    assert (outcome.status, outcome.num_passed, outcome.error) == (status, 1, error)


def test_an_error_is_shown_safely():
    outcome = read_outcome(answer({"test": 0, "error": "E: \x1b[31m\u202e"}), TOKEN, 1, 0)
    assert outcome.error == "E: \\x1b[31m\\u202e"


@pytest.mark.parametrize(
    ("told", "ended", "how"),
    [(b"", 1, "ended with status 1"), (b"[", -9, "ended with signal 9"), (b"", None, "took more time than it may")],
)
def test_a_process_that_never_came_to_the_program_is_no_failure_of_that(told, ended, how):
    with pytest.raises(TrustError) as refused:
        read_outcome(told, TOKEN, 1, ended)
    assert refused.value.problem == f"the limited process for a program did not start: it {how}"
    assert "no reward was given for that" in refused.value.hint


def test_what_the_process_had_given_up_is_what_it_said_first():
    confinement = read_outcome(answer(*passed(0)), TOKEN, 1, 0).confinement
    assert confinement == Confinement(network_cut=True, memory_limited=True, processes_barred=True)
