"""What the tests of the cache share: a server, damage, and where things stand."""

import hashlib
import os
import time

from wmtp.storage.cache import Source, VerifiedCache

DATA = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(DATA).hexdigest()
SOURCE = Source("s3://lab/model", "model.safetensors", len(DATA), '"v1"')


class Server:
    """Gives the bytes of one file, and remembers from where on it was asked for them."""

    def __init__(self, *bodies, chunk_bytes=60_000):
        self.bodies, self.chunk_bytes, self.starts = bodies or (DATA,), chunk_bytes, []

    def __call__(self, start):
        body = self.bodies[min(len(self.starts), len(self.bodies) - 1)]
        self.starts.append(start)
        for position in range(start, len(body), self.chunk_bytes):
            yield memoryview(body)[position : position + self.chunk_bytes]


class BrokenServer(Server):
    """Fails after some bytes."""

    def __init__(self, after, error):
        super().__init__(chunk_bytes=1000)
        self.after, self.error = after, error

    def __call__(self, start):
        for number, chunk in enumerate(super().__call__(start)):
            if number * 1000 >= self.after:
                raise self.error
            yield chunk


def is_fetched_again(root):
    """Nothing is found, and a second run mends it with no cleaning by hand."""
    server = Server()
    if VerifiedCache(root).find(SOURCE) is not None:
        return False
    path = VerifiedCache(root).receive(SOURCE, server, sha256=None)
    assert (path.read_bytes(), path.is_symlink(), VerifiedCache(root).find(SOURCE)) == (DATA, False, path)
    return server.starts == [0]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def left(root):
    """What is in the directory of parts."""
    return names(root / "parts")


def hashed(monkeypatch):
    """The digests that are computed from files from now on."""
    seen, digest = [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: seen.append(file.name) or digest(file, kind))
    return seen


def flip(blob):
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.write(b"\xff")


def flip_and_hide_it(blob):
    before = blob.stat()
    flip(blob)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    blob.chmod(0o444)


def receipt(root):
    return root / "receipts" / f"{SHA256}.json"


def record(root):
    (path,) = root.glob("entries/*/*.json")
    return path


def aged(root, seconds=3600):
    """The cache, as if its files had not been asked for, nor changed, for so long."""
    for path in root.glob("entries/*/*"):
        os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)
    return VerifiedCache(root)
