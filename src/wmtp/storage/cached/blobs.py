"""Files of the cache by their digest, and the receipts that say that they were hashed."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from contextlib import suppress
from functools import cache
from io import BufferedReader
from pathlib import Path

from wmtp.faults import StrictModel
from wmtp.manifest import SHA256
from wmtp.storage.cached.kept import is_believed, open_kept, read_kept, remove_anything, write_kept
from wmtp.storage.cached.partial import PartFile

_SETTLED_SECONDS = 120  # the system writes to the disk what is older than half a minute
_logger = logging.getLogger(__name__)


class Receipt(StrictModel):
    """What a blob was when it was last hashed; while it is still that, it need not be hashed again.

    The device is left out: its number changes when a disk is mounted anew.

    Attributes:
        boot: The boot of the machine in which the bytes were hashed.
        synced: Whether they were on the disk by then. Otherwise a power loss may have taken them, so that the receipt
            ends with the boot.
    """

    sha256: SHA256
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    boot: str
    synced: bool

    @classmethod
    def of(cls, sha256: str, found: os.stat_result, *, synced: bool) -> Receipt:
        """Return the receipt of a blob whose bytes have just been hashed."""
        return cls(
            sha256=sha256,
            size=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
            inode=found.st_ino,
            boot=boot_id(),
            synced=synced,
        )

    def is_of(self, sha256: str, found: os.stat_result) -> bool:
        """Say whether a blob is what was hashed then."""
        now = Receipt.of(sha256, found, synced=self.synced)
        return self == (now if not self.synced else now.model_copy(update={"boot": self.boot}))


class Blobs:
    """The directories `blobs/` and `receipts/` of a cache.

    Args:
        root: The cache.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.directory, self.receipts = root, root / "blobs", root / "receipts"
        self._parts = root / "parts"
        self._known: dict[str, Receipt] = {}

    def path(self, sha256: str) -> Path:
        """Return where the blob with that digest is, or would be."""
        return self.directory / sha256

    def has(self, sha256: str, size_bytes: int) -> bool:
        """Say whether something of that size is there, without a look at its bytes."""
        found = self._stat(sha256)
        return found is not None and stat.S_ISREG(found.st_mode) and found.st_size == size_bytes

    def is_intact(self, sha256: str, size_bytes: int) -> bool:
        """Say whether a blob is there, whole and unchanged; one that is damaged is dropped.

        Reads its bytes only when no receipt holds.
        """
        if not self.has(sha256, size_bytes) or (found := self._stat(sha256)) is None:
            return False
        return self._has_receipt(sha256, found) or self.verify(sha256)

    def verify(self, sha256: str) -> bool:
        """Hash a blob again: drop it when it is not what its name says, else bring it to the disk and say so."""
        try:
            file = open_kept(self.path(sha256))
        except OSError:
            return False
        with file:
            before = os.fstat(file.fileno())
            if _digest(file) == sha256:
                self._record(sha256, before, synced=_sync(file.fileno()))
                return True
            # Somebody may have put a good one in its place since.
            if (now := self._stat(sha256)) is not None and os.path.samestat(now, before):
                _logger.warning("%s: damaged, and used no more", self.path(sha256))
                self.drop(sha256)
        return False

    def publish(self, part: PartFile) -> Path:
        """Give a complete part, whose digest is what it must be, its place.

        Raises:
            OSError: If that cannot be done.
        """
        sha256 = part.sha256()
        final, must_sync = self.path(sha256), not boot_id()
        if self.has(sha256, part.size) and self._has_receipt(sha256, final.lstat()):
            part.discard()  # models may have the same bytes mapped: two copies in memory help nobody
            return final
        self._record(sha256, part.finish(final, sync=must_sync), synced=must_sync)
        return final

    def drop(self, sha256: str) -> int:
        """Remove a blob and its receipt; returns the bytes that this gave back. Who has it open keeps what it has."""
        found = self._stat(sha256)
        self._known.pop(sha256, None)
        with suppress(OSError):
            remove_anything(self.receipts / f"{sha256}.json")
        try:
            remove_anything(self.path(sha256))
        except OSError:
            return 0
        return found.st_size if found else 0

    def _stat(self, sha256: str) -> os.stat_result | None:
        try:
            return self.path(sha256).lstat()
        except OSError:
            return None

    def _has_receipt(self, sha256: str, found: os.stat_result) -> bool:
        known = self._known.get(sha256)
        if known and known.is_of(sha256, found):
            return True
        if not is_believed(found, self.root):
            return False
        receipt = read_kept(self.receipts / f"{sha256}.json", Receipt, self.root)
        if receipt is None or not receipt.is_of(sha256, found):
            return False
        self._known[sha256] = receipt
        if not receipt.synced and time.time() - found.st_ctime > _SETTLED_SECONDS:
            self._settle(sha256, found)
        return True

    def _settle(self, sha256: str, found: os.stat_result) -> None:
        """Make a receipt of this boot one for good, once that costs no waiting."""
        with suppress(OSError), open_kept(self.path(sha256)) as file:
            if os.path.samestat(os.fstat(file.fileno()), found) and _sync(file.fileno()):
                self._record(sha256, found, synced=True)

    def _record(self, sha256: str, found: os.stat_result, *, synced: bool) -> None:
        receipt = self._known[sha256] = Receipt.of(sha256, found, synced=synced)
        with suppress(OSError):  # a cache that may only be read: this process remembers it
            write_kept(self.receipts / f"{sha256}.json", receipt.model_dump_json().encode(), self._parts)


@cache
def boot_id() -> str:
    """Return what tells this boot of the machine from others; empty where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _digest(file: BufferedReader) -> str:
    try:
        return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # a damaged disk
        return f"unreadable: {error.strerror}"


def _sync(descriptor: int) -> bool:
    try:
        os.fsync(descriptor)
    except OSError:
        return False
    return True
