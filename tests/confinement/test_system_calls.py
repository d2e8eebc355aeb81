"""Refused system calls, in a process that can be spared: none of what follows works, and the rest does."""

import json
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="calls have these numbers on Linux on these machines",
)
LINES = """
import json, os, resource, socket, threading
from wmtp.confinement.system_calls import bar_processes
barred = bar_processes()
acts = {
    "fork": os.fork,
    "fork with a terminal": os.forkpty,
    "thread": threading.Thread(target=int).start,
    "program": lambda: os.execv("/bin/true", ["true"]),
    "signal to the parent": lambda: os.kill(os.getppid(), 0),
    "signal to its group": lambda: os.killpg(os.getpgid(os.getppid()), 0),
    "limit of the parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    "socket": socket.socket,
    "pair of sockets": socket.socketpair,
    "priority of the parent": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
}
def works(act):
    try: act()
    except (OSError, RuntimeError): return False
    return True
worked = [name for name, act in acts.items() if works(act)]
print(json.dumps([barred, worked, os.path.exists(os.devnull)]))
"""


def test_processes_signals_and_sockets_are_refused_for_root_too():
    done = subprocess.run([sys.executable, "-c", LINES], check=True, capture_output=True, text=True, timeout=600)
    assert json.loads(done.stdout) == [True, [], True]
