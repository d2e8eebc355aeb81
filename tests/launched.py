"""Scripts that lie among the tests, run in several processes as torchrun starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parent


def run_processes(script: Path, *arguments: object, count: int = 2) -> None:
    """Run a script in as many processes; they must succeed."""
    ran = try_processes(script, *arguments, count=count)
    assert ran.returncode == 0, ran.stderr


def try_processes(script: Path, *arguments: object, count: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a script in as many processes, and return how they ended."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    places = {"PYTHONPATH": f"{script.parent}:{_TESTS}", "OMP_NUM_THREADS": "1"}
    command += [str(script), *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=900, capture_output=True, text=True, env=os.environ | places)
