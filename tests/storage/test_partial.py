"""Downloads in progress: what a later process goes on with, and what it does not believe."""

import errno
import hashlib
import os
import subprocess
import sys
import time

import pytest

from wmtp.errors import StorageError
from wmtp.storage.cached import partial
from wmtp.storage.cached.partial import PartFile
from wmtp.storage.cached.sweeping import sweep_parts

KEY = "ab" * 32
DATA = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def _marks_are_near(monkeypatch):
    monkeypatch.setattr(partial, "_MARK_BYTES", 50_000)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def left_behind(directory, data=DATA):
    """A part whose owner is gone."""
    part = PartFile(directory, KEY, len(DATA))
    part.append(data)
    part.close()
    return part.path


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_bytes_are_hashed_as_they_come_and_get_their_final_name_read_only(tmp_path):
    part = PartFile(tmp_path, KEY, len(DATA))
    for start in range(0, len(DATA), 7000):
        part.append(memoryview(DATA)[start : start + 7000])
    assert (part.size, part.sha256()) == (len(DATA), sha256(DATA))
    found = part.finish(tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == DATA
    assert found.st_ino == (tmp_path / "final").stat().st_ino
    assert found.st_mode & 0o777 == 0o444
    assert names(tmp_path) == ["final"]


def test_a_later_process_goes_on_from_the_last_byte_that_was_kept(tmp_path):
    old = left_behind(tmp_path, DATA[:123_457])
    part = PartFile(tmp_path, KEY, len(DATA))
    assert (part.size, part.sha256()) == (123_457, sha256(DATA[:123_457]))
    assert not old.exists()
    part.append(DATA[123_457:])
    part.finish(tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == DATA


def test_after_a_kill_the_marked_bytes_are_gone_on_from(tmp_path):
    script = (
        "import os, sys, pathlib; from wmtp.storage.cached import partial; partial._MARK_BYTES = 50_000\n"
        f"part = partial.PartFile(pathlib.Path(sys.argv[1]), '{KEY}', 256_000)\n"
        "[part.append((bytes(range(256)) * 1000)[s : s + 30_000]) for s in range(0, 150_000, 30_000)]\n"
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -9
    part = PartFile(tmp_path, KEY, len(DATA))
    assert (part.size, part.sha256()) == (120_000, sha256(DATA[:120_000]))


@pytest.mark.parametrize(("damaged_byte", "kept"), [(10, 0), (70_000, 60_000), (130_000, 120_000)])
def test_bytes_that_are_not_what_the_journal_says_are_dropped(tmp_path, damaged_byte, kept):
    first = PartFile(tmp_path, KEY, len(DATA))
    for start in range(0, 180_000, 60_000):
        first.append(DATA[start : start + 60_000])
    first.close()
    with first.path.open("r+b") as file:
        file.seek(damaged_byte)
        file.write(b"\xff\xfe")
    part = PartFile(tmp_path, KEY, len(DATA))
    assert (part.size, part.sha256()) == (kept, sha256(DATA[:kept]))
    part.append(DATA[kept:])
    part.close()
    assert PartFile(tmp_path, KEY, len(DATA)).sha256() == sha256(DATA)


@pytest.mark.parametrize(
    "journal",
    [b"", b"\x00" * 300, b"[]\n", b'{"size": true, "sha256": 3}\n', b'{"size": -1}\n', b"{" * 100_000, b"\xff\n",
     b'{"size":99999999999999999999,"sha256":"' + b"0" * 64 + b'"}\n'],
)  # fmt: skip
def test_a_damaged_journal_means_that_nothing_is_gone_on_from(tmp_path, journal):
    old = left_behind(tmp_path)
    old.with_suffix(".journal").write_bytes(journal)
    part = PartFile(tmp_path, KEY, len(DATA))
    assert part.size == 0
    assert not old.exists()


def test_a_torn_line_costs_only_itself(tmp_path):
    old = left_behind(tmp_path, DATA[:60_000])
    with old.with_suffix(".journal").open("ab") as file:
        file.write(b'{"size":70000,"sha25')
    assert PartFile(tmp_path, KEY, len(DATA)).size == 60_000


def test_a_shorter_part_than_its_journal_says_is_not_gone_on_from(tmp_path):
    os.truncate(left_behind(tmp_path), 100)
    assert PartFile(tmp_path, KEY, len(DATA)).size == 0


def test_a_part_with_a_living_owner_is_neither_copied_nor_removed(tmp_path):
    living = PartFile(tmp_path, KEY, len(DATA))
    living.append(DATA[:60_000])
    assert PartFile(tmp_path, KEY, len(DATA)).size == 0
    assert sweep_parts(tmp_path, older_than_seconds=0) == 0
    assert living.path.exists()


def test_an_owner_whose_part_was_removed_where_locks_lie_still_finishes(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    living = PartFile(tmp_path, KEY, len(DATA))
    living.append(DATA[:60_000])
    other = PartFile(tmp_path, KEY, len(DATA))
    assert (other.size, living.path.exists()) == (60_000, False)
    living.append(DATA[60_000:])
    living.finish(tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == DATA
    assert (tmp_path / "final").stat().st_mode & 0o777 == 0o444
    other.append(DATA[60_000:])
    assert other.sha256() == sha256(DATA)


def test_where_there_are_no_locks_parts_are_copied_and_stay(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    old = left_behind(tmp_path)
    assert PartFile(tmp_path, KEY, len(DATA)).size == len(DATA)
    assert old.exists()


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("/dev/zero"), os.mkfifo, lambda p: p.mkdir()])
def test_what_is_no_file_is_not_gone_on_from(tmp_path, make):
    path = tmp_path / f"{KEY}.{'0' * 32}.part"
    make(path)
    path.with_suffix(".journal").write_text(f'{{"size":5,"sha256":"{sha256(bytes(5))}"}}\n')
    assert PartFile(tmp_path, KEY, len(DATA)).size == 0


def test_a_full_disk_is_an_error_with_the_sizes_and_the_part_is_gone(tmp_path):
    part = PartFile(tmp_path, KEY, 1000)
    part.append(b"x" * 10)
    os.dup2(os.open("/dev/full", os.O_WRONLY), part._file)
    with pytest.raises(StorageError, match=r"No space left on device after 10 of 1,000 bytes \([\d,]+ bytes are free"):
        part.append(b"y" * 10)
    assert names(tmp_path) == []


def test_sweeping_removes_what_nobody_owns_and_spares_what_is_young(tmp_path):
    old = left_behind(tmp_path)
    (tmp_path / "x.tmp").write_bytes(b"1234")
    (tmp_path / f"{KEY}.lock").touch()
    (tmp_path / "stray.journal").touch()
    assert sweep_parts(tmp_path, older_than_seconds=3600) == 0
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    assert sweep_parts(tmp_path, older_than_seconds=3600) == len(DATA) + 4
    assert not old.exists()
    assert names(tmp_path) == []
