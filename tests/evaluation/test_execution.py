"""Programs and their tests, in the process that they get."""

import pytest

from wmtp.errors import TrustError
from wmtp.evaluation import Program, RunLimits, run_tests

LIMITS = RunLimits(wall_seconds=600.0)


def run(code, *tests):
    return run_tests([Program(code, tests)], allow_code_execution=True, limits=LIMITS)[0]


def test_each_test_counts_by_itself():
    outcome = run(
        "def double(x): return 2 * x if x < 3 else x",
        "assert double(1) == 2",
        "assert double(3) == 6",
        "assert double(2) == 4",
    )
    assert (outcome.status, outcome.num_passed, outcome.num_tests) == ("failed", 2, 3)
    assert outcome.share == 2 / 3
    assert outcome.error == "AssertionError"


def test_a_program_that_does_what_it_should_has_passed():
    outcome = run("def f(): return 1", "assert f() == 1")
    assert (outcome.status, outcome.num_passed, outcome.error) == ("passed", 1, "")


def test_outcomes_come_in_the_order_of_the_programs():
    programs = [Program(f"import time; time.sleep(0.1 * {wait}); x = {wait}", ("assert x == 1",)) for wait in (2, 1, 0)]
    outcomes = run_tests(programs, allow_code_execution=True, limits=LIMITS, workers=3)
    assert [outcome.status for outcome in outcomes] == ["failed", "passed", "failed"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def f(:", "SyntaxError: invalid syntax"),
        ("raise ValueError('first line\\nsecond line')", "ValueError: first line"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        (
            "class E(BaseException):\n    def __str__(self): raise self\nraise E",
            "candidate.E: <exception str() failed>",
        ),
        ("raise ValueError('\x1b[31m')", "ValueError: \\x1b[31m"),
        ("import numpy", "ModuleNotFoundError: No module named 'numpy'"),
        ("import wmtp.errors", "ModuleNotFoundError: No module named 'wmtp'"),
    ],
)
def test_the_first_error_is_told_in_one_line_that_can_be_shown(code, error):
    outcome = run(code, "pass")
    assert (outcome.status, outcome.num_passed, outcome.error) == ("failed", 0, error)


def test_classes_know_their_module_as_in_a_file_of_their_own():
    head = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    code = f"{head}@dataclass\nclass P:\n    x: ClassVar[int] = 1"
    assert run(code, "assert P().x == 1").status == "passed"


def test_nothing_runs_before_the_operator_agrees(tmp_path):
    program = Program(f"open({str(tmp_path / 'ran')!r}, 'w')", ("pass",))
    with pytest.raises(TrustError) as refused:
        run_tests([program], allow_code_execution=False)
    assert "tests run programs that a model or a stranger wrote, and nobody has agreed to that" in str(refused.value)
    assert "allow_code_execution=True (--allow-code-execution)" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_program_without_tests_can_neither_pass_nor_fail():
    with pytest.raises(ValueError, match="without tests"):
        Program("x = 1", ())


def test_a_process_that_does_not_start_gives_no_reward(monkeypatch):
    monkeypatch.setattr("wmtp.evaluation.execution._START", "raise SystemExit(3)")
    with pytest.raises(TrustError, match="did not start: it ended with status 3"):
        run("x" * 1_000_000, "pass")
