"""Programs for processes of their own: a kill takes them, a full or read-only disk is theirs alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# Fetches files, and prints where they are or what is wrong with that.
FETCH = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs tests in the background has it ignored
from wmtp.errors import WmtpError
from wmtp.storage.opening import open_store

def fetch(uri, *names):
    try:
        paths = open_store(uri).local_paths(names)
    except WmtpError as error:
        print(f"{type(error).__name__}: {error}")
        return False
    print("fetched", *paths.values())
    return True
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program that may use `fetch`."""
    command = [sys.executable, "-c", FETCH + program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_with_mounts(mounts: str, program: str, *arguments: str) -> str:
    """Run a program that sees its own mounts, made by shell commands; returns what it printed.

    Skips the test where a user may not do so.
    """
    unshare = [shutil.which("unshare") or "unshare", "--user", "--map-root-user", "--mount"]
    if not sys.platform.startswith("linux") or _fails([*unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]):
        pytest.skip("this user may not mount anything, not even alone")
    command = [*unshare, "sh", "-ec", f'{mounts}\nexec "$@"', "sh", sys.executable, "-c", FETCH + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ, check=False)
    return done.stdout + done.stderr


def _fails(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=300).returncode != 0
    except OSError:
        return True
