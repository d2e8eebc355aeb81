"""A directory of bounded size that nobody else sees, mounted for real in a process that can be spared."""

import json
import subprocess
import sys

import pytest

LINES = """
import errno, json, os, sys
from pathlib import Path
from wmtp.confinement.limits import leave_network
from wmtp.confinement.scratch import mount_scratch
user, group = os.getuid(), os.getgid()
mounted = leave_network(as_stranger=True) and mount_scratch(Path(sys.argv[1]), 100_000, user, group)
found = {"mounted": mounted, "here": os.listdir("."), "kept": 0, "full": False}
while mounted and not found["full"]:
    try: found["kept"] += Path(f"file-{found['kept']}").write_bytes(bytes(10_000))
    except OSError as error: found["full"] = error.errno == errno.ENOSPC
print(json.dumps(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has these file systems")
def test_what_is_written_is_bounded_in_all_and_is_nowhere_afterwards(tmp_path):
    (tmp_path / "seen before").touch()
    command = [sys.executable, "-c", LINES, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    found = json.loads(done.stdout)
    if found["mounted"]:
        assert found["here"] == []
        assert found["full"]
        assert 50_000 <= found["kept"] <= 110_000
    assert [path.name for path in tmp_path.iterdir()] == ["seen before"]
