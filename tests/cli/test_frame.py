"""How the program starts, speaks and ends, whatever the command."""

import json
import signal
import subprocess
import sys

import pytest

import wmtp as library
from checkpoints import write_llama_checkpoint
from wmtp.errors import NotFoundError

PROGRAM = [sys.executable, "-m", "wmtp.cli.main"]


def run(*words, **keywords):
    return subprocess.run([*PROGRAM, *map(str, words)], capture_output=True, text=True, check=False, **keywords)


@pytest.fixture
def expected(tmp_path):
    """What the library says of a directory that is not there."""
    with pytest.raises(NotFoundError) as caught:
        library.load_metadata(tmp_path / "nothing")
    return caught.value


def test_an_error_is_one_message_on_stderr_and_exit_1(tmp_path, expected):
    done = run("inspect", tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {expected}\nmore: wmtp explain NotFoundError\n"
    assert f"{tmp_path}/nothing: no such directory\nhint: " in done.stderr


def test_with_json_an_error_is_a_document_on_stdout(tmp_path, expected):
    done = run("inspect", tmp_path / "nothing", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    facts = {"problem": expected.problem, "faults": [], "hint": expected.hint}
    assert json.loads(done.stdout) == {"error": {"type": "NotFoundError", "code": "NotFoundError", **facts}}


def test_debug_shows_the_traceback_before_the_error(tmp_path):
    done = run("--debug", "inspect", tmp_path / "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.splitlines()[-3].startswith("error: ")


def test_an_os_error_that_nobody_foresaw_has_a_hint(wmtp, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/some/file")

    monkeypatch.setattr("wmtp.storage.opening.open_store", refuse)
    result = wmtp("ls", "x")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: /some/file: Permission denied\nhint: check the path and its permissions\nmore: wmtp explain WmtpError\n"
    )


def test_what_nobody_foresaw_is_an_internal_error_without_a_traceback():
    script = (
        "import wmtp.storage.opening as opening\n"
        "def broken(*_): raise ZeroDivisionError('by zero')\n"
        "opening.open_store = broken\n"
        "from wmtp.cli.main import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, "ls"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: internal error: ZeroDivisionError: by zero"
    assert "wmtp --debug" in done.stderr
    assert "Traceback" not in done.stderr
    debugged = subprocess.run(
        [sys.executable, "-c", script, "--debug", "ls"], capture_output=True, text=True, check=False
    )
    assert "in broken" in debugged.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["isnpect"], "no such command 'isnpect' (did you mean 'inspect'?)"),
        (["inspect"], "Missing argument"),
        (["ls", "--colour"], "No such option: --colour"),
        (["ls", "--jsno"], "(Possible options: --json)"),
        (["cache", "verfy"], "Did you mean 'verify'?"),
        (["load", "x", "--dtype", "float8"], "float8"),
        (["load", "x", "--allow-code", "modeling.py=yes"], "is not FILE=sha256:HEX"),
    ],
    ids=lambda value: str(value[0]),
)
def test_wrong_usage_exits_with_2(wmtp, words, said):
    result = wmtp(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_an_interrupt_exits_with_130():
    script = "import sys, wmtp.storage.opening as s\ndef wait(*_): raise KeyboardInterrupt\ns.open_store = wait\n"
    script += "from wmtp.cli.main import main\nmain()\n"
    done = subprocess.run([sys.executable, "-c", script, "ls"], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error():
    with subprocess.Popen([*PROGRAM, "schema", "metadata"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert b"Traceback" not in said
    assert process.returncode in (0, 1, -signal.SIGPIPE)


def test_version_and_help(wmtp):
    assert wmtp("--version").stdout == f"wmtp {library.__version__}\n"
    assert "inspect" in wmtp("--help").stdout
    assert "--tensors" in wmtp("inspect", "--help").stdout


def test_quiet_leaves_the_results_and_drops_the_talk(wmtp, tmp_path):
    assert "no metadata.json below" in wmtp("ls", tmp_path).stderr
    assert wmtp("--quiet", "ls", tmp_path).stderr == ""


def test_libraries_that_transformers_imports_stay_silent(tmp_path):
    directory = write_llama_checkpoint(tmp_path / "model")
    done = run("load", directory)
    assert (done.returncode, done.stderr) == (0, "")


def test_shell_completion_knows_commands():
    environment = {
        "_WMTP_COMPLETE": "complete_bash",
        "COMP_WORDS": "wmtp ins",
        "COMP_CWORD": "1",
        "PATH": "/usr/bin:/bin",
    }
    assert run(env=environment).stdout.split() == ["inspect"]
