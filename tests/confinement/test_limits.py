"""The limits of a process, set for real in one that can be spared."""

import json
import signal
import socket
import subprocess
import sys

import pytest

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has these limits")


def spared(*lines: str) -> subprocess.CompletedProcess:
    code = "\n".join(["import json, os", "from wmtp.confinement.limits import *", *lines])
    return subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=600)


@linux
def test_memory_beyond_the_limit_is_refused_and_below_it_given():
    done = spared(
        "print(apply_limits(Limits(100_000_000, 60, 1000)))",
        "kept = bytearray(50_000_000)",
        "try: bytearray(60_000_000)",
        "except MemoryError: print('no more')",
        "release_reserve()",
        "print(len(bytearray(60_000_000)))",
    )
    assert done.stdout.split("\n")[:3] == ["True", "no more", "60000000"]


@linux
def test_the_network_is_cut_off_exactly_when_it_is_said_to_be():
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = spared(
            "import socket",
            "cut = leave_network()",
            f"try: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); reached = True",
            "except OSError: reached = False",
            "print(json.dumps([cut, reached]))",
        )
    cut, reached = json.loads(done.stdout)
    assert reached is not cut


@linux
def test_writing_and_running_are_confined_exactly_when_they_are_said_to_be(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "precious").write_text("kept")
    done = spared(
        f"os.chdir({str(tmp_path)!r}); leave_network()",
        "confined = confine_files([Path('own')])",
        "def works(act):",
        "    try: act()",
        "    except OSError: return False",
        "    return True",
        "Path('own/file').write_text('1'); Path('own/file').write_text('2'); Path('own/file').unlink()",
        "acts = [lambda: open('precious', 'a'), lambda: os.truncate('precious', 0), lambda: open('new', 'w'),",
        "    lambda: os.symlink('a', 'b'), lambda: os.mkdir('c'), lambda: os.unlink('precious'),",
        "    lambda: os.execv('/bin/true', ['true'])]",
        "print(json.dumps([confined, [works(act) for act in acts[: 7 if confined else 0]]]))",
    )
    confined, worked = json.loads(done.stdout)
    assert worked == [False] * 7 * confined
    assert (tmp_path / "precious").read_text() == "kept"


@linux
def test_reading_is_confined_exactly_when_it_is_said_to_be(tmp_path):
    for name in ("own", "given", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    done = spared(
        f"os.chdir({str(tmp_path)!r}); leave_network(as_stranger=True)",
        "confined = confine_files([Path('own')], [Path('given'), Path('is not there')])",
        "def read(name):",
        "    try: return Path(name, 'file').read_text()",
        "    except PermissionError: return None",
        "print(json.dumps([confined, [read(name) for name in ('own', 'given', 'other')]]))",
    )
    confined, found = json.loads(done.stdout)
    assert found == ["own", "given", None if confined else "other"]


def test_a_file_grows_to_the_limit_and_no_further():
    done = spared(
        "import tempfile",
        "apply_limits(Limits(10**9, 60, 1000))",
        "file = tempfile.TemporaryFile(buffering=0)",
        "print(file.write(bytes(2000)))",
        "file.write(bytes(1))",
    )
    assert done.stdout == "1000\n"
    assert "OSError: [Errno 27] File too large" in done.stderr


@linux
def test_no_process_can_be_started_and_no_core_is_left():
    done = spared(
        "import resource",
        "os.getuid() or os.setuid(65534)  # root is exempt",
        "apply_limits(Limits(10**9, 60, 1000))",
        "print(resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 256)",
        "os.fork()",
    )
    assert done.stdout == "(0, 0) True\n"
    assert "BlockingIOError" in done.stderr


def test_time_ends_with_a_signal_of_its_own():
    done = spared("apply_limits(Limits(10**9, 1, 1000))", "while True: pass")
    assert done.returncode == -signal.SIGXCPU
