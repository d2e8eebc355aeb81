"""Full disks, caches that may only be read, and caches of others."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from cached_files import DATA, SHA256, SOURCE, Server, flip, hashed, is_fetched_again, left, receipt, record
from wmtp.errors import StorageError
from wmtp.storage.cache import Source, VerifiedCache


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cached(root):
    """The blob of a cache that has one file."""
    return VerifiedCache(root).receive(SOURCE, Server(), sha256=SHA256)


def test_no_room_is_said_before_the_first_request(root):
    server, huge = Server(), Source("s3://lab/model", "huge", 1 << 60, '"v"')
    with pytest.raises(
        StorageError, match=r"no room for s3://lab/model/huge: 1,152,921,504,607,895,552 bytes are need"
    ):
        VerifiedCache(root).receive(huge, server, sha256=None)
    assert (server.starts, left(root)) == ([], [])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_leaves_nothing_and_the_next_one_succeeds(root, monkeypatch, number):
    real, written = os.write, []

    def write(descriptor, data):
        written.append(len(data))
        if len(written) > 3:
            raise OSError(number, os.strerror(number))
        return real(descriptor, data)

    monkeypatch.setattr("wmtp.storage.cached.partial.os.write", write)
    with pytest.raises(StorageError, match=f"{os.strerror(number)} after 180,000 of 512,000 bytes") as caught:
        VerifiedCache(root).receive(SOURCE, Server(), sha256=SHA256)
    assert (left(root), "WMTP_CACHE" in caught.value.hint) == ([], True)
    monkeypatch.undo()
    assert is_fetched_again(root)


def test_a_small_disk_that_fills_up_in_the_middle(tmp_path):
    script = textwrap.dedent(
        """
        import os, sys; from pathlib import Path
        from wmtp.errors import StorageError; from wmtp.storage.cache import Source, VerifiedCache
        root, size = Path(sys.argv[1]), 6 << 20
        def chunks(start):
            for position in range(start, size, 1 << 16):
                if position == 2 << 20:
                    (root.parent / "hog").write_bytes(bytes(4 << 20))
                yield b"x" * (1 << 16)
        source, cache = Source("s3://b/m", "w", size, "v"), VerifiedCache(root)
        try:
            cache.receive(source, chunks, sha256=None)
        except StorageError as error:
            print(error)
        print(os.listdir(root / "parts"), cache.find(source))
        try:
            cache.receive(source, chunks, sha256=None)
        except StorageError as error:
            print(error)
        (root.parent / "hog").unlink()
        print(cache.receive(source, lambda start: iter([b"x" * (size - start)]), sha256=None).stat().st_size == size)
        """
    )
    mount = f"mount -t tmpfs -o size=8m none {tmp_path} && exec {sys.executable} -c '{script}' {tmp_path}/cache"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    first, _, gone, second, _, last = done.stdout.splitlines()
    assert "No space left on device after" in first
    assert "of 6,291,456 bytes (" in first
    assert gone == "[] None"
    assert "no room for s3://b/m/w: 7,340,032 bytes are needed, " in second
    assert last == "True", done.stderr


@pytest.fixture
def shared():
    """A directory that other users can come to."""
    directory = Path(tempfile.mkdtemp(prefix="wmtp-cache-"))
    directory.chmod(0o755)
    yield directory
    for path in [directory, *directory.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(directory)


STRANGER = """
import os, sys; from pathlib import Path
from wmtp.errors import StorageError; from wmtp.storage.cache import Source, VerifiedCache
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
cache, size = VerifiedCache(Path(sys.argv[1])), int(sys.argv[2])
print(cache.find(Source("s3://lab/model", "model.safetensors", size, '"v1"')))
try:
    print(cache.receive(Source("s3://lab/model", "b", 1, '"v1"'), lambda start: iter([b"b"]), sha256=None))
except StorageError as error:
    print(error)
"""


def as_stranger(root):
    """What a user sees who may not write to the cache."""
    if os.geteuid() != 0:
        for path in [*root.rglob("*"), root]:
            if path.is_dir():
                path.chmod(0o555)
    words = [sys.executable, "-c", STRANGER, str(root), str(len(DATA))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_cache_that_may_only_be_read_gives_what_it_has_and_says_why_not_more(shared):
    path = VerifiedCache(shared / "cache").receive(SOURCE, Server(), sha256=None)
    found, problem, hint = as_stranger(shared / "cache")
    assert found == str(path)
    assert problem.startswith(f"{shared}/cache: the cache cannot be written: ")
    assert problem.endswith("Permission denied")
    assert hint == "hint: name a directory of yours in WMTP_CACHE, or keep nothing with --no-cache"


def test_in_a_cache_that_may_only_be_read_a_damaged_file_is_not_given_out(shared):
    path = VerifiedCache(shared / "cache").receive(SOURCE, Server(), sha256=None)
    flip(path)
    assert as_stranger(shared / "cache")[0] == "None"
    assert path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only the super-user can give files away")
@pytest.mark.parametrize("which", ["record", "blob", "receipt"])
def test_what_another_user_slipped_into_the_cache_is_not_believed(root, cached, which, monkeypatch):
    os.chown({"record": record(root), "blob": cached, "receipt": receipt(root)}[which], 65534, 65534)
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == (None if which == "record" else cached)
    assert len(seen) == (which != "record")


def test_what_everybody_may_write_to_is_not_believed(root, cached, monkeypatch):
    record(root).chmod(0o666)
    assert VerifiedCache(root).find(SOURCE) is None
    record(root).chmod(0o644)
    cached.chmod(0o666)
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == cached
    assert len(seen) == 1


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_no_file_can_be_written_by_everybody_and_a_private_umask_is_kept(root, umask):
    before = os.umask(umask)
    try:
        path = VerifiedCache(root).receive(SOURCE, Server(), sha256=None)
    finally:
        os.umask(before)
    modes = [file.stat().st_mode for file in root.rglob("*") if file.is_file()]
    assert not any(mode & (stat.S_IWOTH | umask) for mode in modes)
    assert path.stat().st_mode & 0o777 == 0o444 & ~umask


@pytest.mark.parametrize("place", ["", "blobs", "receipts", "entries", "parts"])
def test_a_file_in_a_directorys_place_is_an_error_that_names_the_cache(root, place):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text("x")
    with pytest.raises(StorageError, match=f"{root}: the cache cannot be written: .*: (File exists|Not a directory)"):
        VerifiedCache(root).receive(SOURCE, Server(), sha256=None)
