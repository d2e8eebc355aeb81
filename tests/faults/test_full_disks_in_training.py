"""A disk that takes no more while a run saves: told in bytes, nothing good is lost, and training may go on."""

from __future__ import annotations

import re
from pathlib import Path

from faults.child import run_with_mounts
from run_files import RunFiles

PROGRAM = """
import logging, pathlib, torch, wmtp
from wmtp.publishing.publish import is_complete, publish_directory
from wmtp.publishing.write import write_shard
from wmtp.training.disk import writing
files, disk = map(pathlib.Path, sys.argv[1:])
torch.set_num_threads(1)
logging.getLogger("wmtp").addHandler(logging.StreamHandler(sys.stdout))
for place, changes in (("stops", []), ("continues", ["train.on_save_error=continue"])):
    config = wmtp.load_config(files / "config.json", [f"paths.output_dir={disk / place}"])
    try:
        wmtp.train(config, wmtp.load_recipe(files / "recipe.json", changes))
        print(place, "to its end")
    except WmtpError as error:
        print(f"{type(error).__name__}: {error}")
    names = sorted(path.name for path in (disk / place / "run").iterdir())
    print(place, "has", names, all(is_complete(path) for path in (disk / place / "run").glob("[sf]*")))
    import shutil; shutil.rmtree(disk / place)
try:
    with writing(disk / "late", 0), publish_directory(disk / "late") as directory:
        write_shard(directory / "model.safetensors", {"w": torch.zeros(1 << 20)})
except WmtpError as error:
    print(f"late: {error}")
print("left", list(disk.iterdir()))
"""


def test_a_full_disk_is_told_in_bytes_and_what_was_saved_is_whole(tmp_path: Path):
    files = RunFiles(tmp_path, "baseline-mtp", train={"save_steps": 1, "max_steps": 5})
    (disk := tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=1300k tmpfs '{disk}'"
    said = run_with_mounts(mount, PROGRAM, str(files.directory), str(disk))
    stopped = re.search(r"StorageError: .*step-(\d): ([\d,]+) bytes are needed to save it, and ([\d,]+) bytes", said)
    assert stopped, said
    step, needed, free = (int(number.replace(",", "")) for number in stopped.groups())
    assert step > 1
    assert free < needed < 1_300_000
    before = [f"step-{number}" for number in range(1, step)]
    assert f"stops has {['run.json', *before]} True" in said
    assert "training goes on without it (train.on_save_error: continue)" in said
    assert "continues to its end" in said
    assert f"continues has {['final', 'run.json', *before]} True" in said
    assert re.search(r"late: .*late: No space left on device; 0 bytes are needed to save it, and [\d,]+ bytes", said)
    assert "left []" in said
