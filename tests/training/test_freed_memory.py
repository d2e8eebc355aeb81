"""What a step frees stays with the process, unless its environment says otherwise; each in a process of its own."""

import json
import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator is left alone")

_SCRIPT = """
import json, sys
import torch
from wmtp.training.freed_memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as lines:
        return int(lines.read().split()[1]) * 4096

kept = keep_freed_memory() if "keep" in sys.argv else None
before = resident()
block = torch.ones(64, 1024, 1024)
held = resident() - before
del block
print(json.dumps([kept, held, resident() - before]))
"""


def run(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    words = [sys.executable, "-c", _SCRIPT, *arguments]
    done = subprocess.run(words, env=clean | environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def test_a_freed_block_stays_and_without_that_goes_back():
    kept, held, left = run("keep")
    assert kept is True
    assert min(held, left) > 250e6  # of 268 MB
    _, held, left = run()
    assert held > 250e6
    assert left < 30e6


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_what_the_environment_says_stands(name):
    kept, held, left = run("keep", **{name: "1000000"})
    assert kept is False
    assert held > 250e6
    assert left < 30e6
