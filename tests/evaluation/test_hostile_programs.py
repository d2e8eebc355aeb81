"""Programs that try what a program should not: none gets it, and none counts as passed."""

import json
import os
import socket
import sys

import pytest

from wmtp.evaluation import Program, RunLimits, run_tests

PATIENT = RunLimits(wall_seconds=600.0, memory_bytes=100 << 20)
IMPATIENT = RunLimits(seconds=600, wall_seconds=0.3)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has these limits")


def run(code, *tests, limits=PATIENT):
    return run_tests([Program(code, tests or ("pass",))], allow_code_execution=True, limits=limits)[0]


IGNORES_SIGNALS = """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass
"""
CATCHES_ALL = """
while True:
    try:
        while True: pass
    except BaseException: pass
"""
ENDLESS_ERROR = """
class Endless(BaseException):
    def __str__(self):
        while True: pass
raise Endless
"""
FOR_EACH_FILE = """
import os
for fd in range(20):
    try: {act}
    except OSError: pass
os._exit(0)
"""


@pytest.mark.parametrize(
    "code",
    ["import time; time.sleep(600)", "while True: print('x' * 10**6)", IGNORES_SIGNALS, CATCHES_ALL, ENDLESS_ERROR],
)
def test_what_does_not_end_is_ended(code):
    outcome = run(code, limits=IMPATIENT)
    assert (outcome.status, outcome.num_passed) == ("timed out", 0)
    assert outcome.error == "took more time than it may"


def test_tests_that_ran_before_time_was_up_count():
    outcome = run("", "pass", "while True: pass", "pass", limits=RunLimits(seconds=0, wall_seconds=600.0))
    assert (outcome.status, outcome.num_passed) == ("timed out", 1)


@linux
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os\nwhile True: os.fork()", "PermissionError: [Errno 1] Operation not permitted"),
        ("import os\nif os.fork(): os._exit(0)\nos.setsid()", "PermissionError: [Errno 1] Operation not permitted"),
        ("import os, signal; os.killpg(os.getppid(), signal.SIGKILL)", "PermissionError: [Errno 1]"),
        ("import os; os.kill(-1, 9)", "PermissionError: [Errno 1]"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError: [Errno "),
        ("kept = []\nwhile True: kept.append(bytearray(10**7))", "MemoryError"),
        ("bytes(10**11)", "MemoryError"),
    ],
)
def test_what_it_may_not_have_is_refused_by_name(code, error):
    outcome = run(code)
    assert outcome.status == "limited"
    assert outcome.error.startswith(error)


def test_a_large_file_is_refused_and_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = run("with open('file', 'wb') as file:\n    for _ in range(1000): file.write(bytes(10**6))")
    assert outcome.status == "limited"
    assert outcome.error.startswith("OSError: [Errno 2" if outcome.confinement.files_confined else "OSError: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "import os; os._exit(0)",
        "import os, atexit; atexit.register(os._exit, 0); raise SystemExit",
        "import sys; sys.exit(0)",
        FOR_EACH_FILE.format(act="os.close(fd)"),
        FOR_EACH_FILE.format(act='os.write(fd, b\'{"token": "?", "test": 0, "passed": true}\')'),
        FOR_EACH_FILE.format(act="os.write(fd, b'x' * (1 << 21))"),
    ],
)
def test_a_program_that_ends_or_lies_before_its_tests_has_passed_nothing(code):
    outcome = run(code, "assert False", limits=PATIENT)
    assert outcome.num_passed == 0
    assert outcome.status in ("failed", "limited")


def test_an_end_amid_the_tests_leaves_those_before_it():
    outcome = run("def f():\n    import os; os._exit(0)", "pass", "f()", "pass")
    assert (outcome.status, outcome.num_passed) == ("failed", 1)
    assert outcome.error == "ended with status 0 before all tests had run"


def test_a_crash_of_the_interpreter_is_told():
    outcome = run("import ctypes; ctypes.string_at(0)")
    assert (outcome.status, outcome.error) == ("failed", "ended with signal 11 before all tests had run")


@linux
def test_it_reads_no_secret_of_the_parent_exactly_when_files_are_confined(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "secret")
    (tmp_path / "key").write_text("secret")
    own = run("import os", "assert 'HF_TOKEN' not in os.environ")
    assert own.status == "passed"
    for place in (f"/proc/{os.getpid()}/environ", str(tmp_path / "key")):
        outcome = run(f"assert 'secret' not in open({place!r}).read()")
        if outcome.confinement.files_confined:
            assert outcome.status == "limited"
            assert outcome.error.startswith("PermissionError: [Errno 13] Permission denied")


@linux
def test_no_connection_leaves_it():
    with socket.create_server(("127.0.0.1", 0)) as server:
        outcome = run(f"import socket; socket.create_connection({server.getsockname()!r}, 5)")
    if outcome.confinement.network_cut or outcome.confinement.processes_barred:
        assert outcome.status in ("failed", "limited")


@linux
def test_nothing_outside_its_directory_is_written_exactly_when_files_are_confined(tmp_path):
    (tmp_path / "precious").write_text("kept")
    outcome = run(f"import os\nos.chmod({str(tmp_path)!r}, 0o700)\nopen({str(tmp_path / 'precious')!r}, 'w')")
    if outcome.confinement.files_confined:
        assert outcome.status == "limited"
        assert (tmp_path / "precious").read_text() == "kept"


def test_what_held_is_said():
    assert set(json.loads(json.dumps(run("").to_dict()))["confinement"]) == {
        "network_cut", "files_confined", "memory_limited", "processes_barred",
    }  # fmt: skip
