"""explain, completion."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Where a person presses Tab after `wmtp ins`, in words of each shell; $SCRIPT is the file with what was printed.
_ASKED = {
    "bash": 'source "$SCRIPT"; COMP_WORDS=(wmtp ins); COMP_CWORD=1; _wmtp_completion wmtp; echo "${COMPREPLY[@]}"',
    "zsh": 'autoload -Uz compinit; compinit -u -D; source "$SCRIPT"; function _arguments { print -r -- "$@" };'
    " words=(wmtp ins); CURRENT=2; ${_comps[wmtp]}",
    "fish": 'source "$SCRIPT"; complete --do-complete "wmtp ins"',
}


def test_an_error_is_explained_by_its_code_in_whatever_letters(wmtp):
    told = wmtp("explain", "PlanError")
    assert told.exit_code == 0
    assert told.stdout.startswith("PlanError\n\nThe tensors in the files and the parameters of the model do not fit")
    assert "\n    $ wmtp validate models/lacking\n    error: " in told.stdout
    assert "```" not in told.stdout
    assert wmtp("explain", "plan").stdout == wmtp("explain", "planerror").stdout == told.stdout


def test_an_unknown_code_is_refused_with_the_closest_one(wmtp):
    refused = wmtp("explain", "PlnaError")
    assert refused.exit_code == 1
    assert "error: no error has the code 'PlnaError' (did you mean 'PlanError'?)\nhint: 'wmtp explain' lists all" in (
        refused.stderr
    )
    assert "'\\x1b[2J'" in wmtp("explain", "\x1b[2J").stderr


def test_without_a_code_all_are_listed(wmtp):
    lines = wmtp("explain").stdout.splitlines()
    assert lines[0].split() == ["CODE", "WHAT", "IT", "IS"]
    assert {"PlanError", "InternalError"} <= {line.split()[0] for line in lines[1:]}
    assert all(len(line) < 120 for line in lines)
    assert set(json.loads(wmtp("explain", "--json").stdout)) == {line.split()[0] for line in lines[1:]}


def test_a_shell_that_is_not_known_is_wrong_usage(wmtp):
    refused = wmtp("completion", "ksh")
    assert refused.exit_code == 2
    assert "'ksh' is not one of 'bash', 'zsh', 'fish'" in refused.stderr


@pytest.mark.parametrize("shell", _ASKED)
def test_a_shell_that_runs_its_script_completes_a_command(wmtp, shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine, so its completion is not tried: install it to run this test")
    script = tmp_path / "script"
    script.write_text(wmtp("completion", shell).stdout)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(tmp_path), "SCRIPT": str(script), "LANG": "C.UTF-8"}
    done = subprocess.run([shell, "-c", _ASKED[shell]], env=environment, capture_output=True, text=True, check=False)
    assert "inspect" in done.stdout, done.stderr
    assert "validate" not in done.stdout
