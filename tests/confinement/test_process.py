"""A process that is started with nothing and ended with all that it has started."""

import json
import signal
import subprocess

from wmtp.confinement.process import end_process, start_process


def started(code, directory):
    return start_process(["-c", code], str(directory), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def test_it_has_no_secret_no_input_and_a_home_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    process = started("import json, os, sys; print(json.dumps([dict(os.environ), sys.stdin.read()]))", tmp_path)
    environment, given = json.loads(process.communicate(timeout=600)[0])
    assert end_process(process) == 0
    assert "secret" not in environment.values()
    assert "/nowhere" not in environment.values()
    assert environment["HOME"] == str(tmp_path)
    assert given == ""


def test_children_end_with_it_though_it_has_ended_already(tmp_path):
    process = started("import os, time; os.fork() or time.sleep(600)", tmp_path)
    with process.stdout:
        # Not waited for: the parent has ended, and its child keeps the pipe open.
        assert end_process(process) == 0 or process.returncode == -signal.SIGKILL
        assert process.stdout.read() == b""
