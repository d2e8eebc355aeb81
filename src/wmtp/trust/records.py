"""The operator's record of consent: which bytes, where and when, with a copy of them to compare later files with.

It stands in the operator's own configuration directory, outside every checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from wmtp.errors import StorageError, TrustError
from wmtp.faults import StrictModel, faults_error, model_faults
from wmtp.manifest import sha256_bytes
from wmtp.storage.replace import replace_file
from wmtp.untrusted import MAX_INDEX_BYTES, parse_json_object, show

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_COPY_BYTES = 1 << 20  # twice what a file may have to be agreed to


class ConsentRecord(StrictModel):
    """What was agreed to, beside its hash.

    Attributes:
        file: The file's name in its checkpoint.
        seen_at: The address at which the operator read it.
        recorded: When, as ISO 8601 in UTC.
    """

    file: str
    seen_at: str
    recorded: str


def consent_file() -> Path:
    """Return the user's file of recorded consent: `$XDG_CONFIG_HOME/wmtp/trust.json`."""
    configured = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # A relative one would be looked up in the current directory, which may be a checkpoint's.
    return (configured if configured.is_absolute() else Path.home() / ".config") / "wmtp" / "trust.json"


def recorded_consent() -> dict[str, ConsentRecord]:
    """Return recorded consent, oldest first: `sha256:<hex>` of each file agreed to, with its name, address and when.

    Raises:
        TrustError: If the file cannot be read, or is not what `add_record` writes; names the key.
    """
    path = consent_file()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _no_access(path, error) from error
    found = parse_json_object(data, where=str(path), error=TrustError, max_bytes=MAX_INDEX_BYTES)
    return {digest: _parse_record(path, digest, entry) for digest, entry in found.items()}


def add_record(digest: str, record: ConsentRecord, data: bytes) -> Path:
    """Remember that the operator agreed to these bytes, and keep a copy of them; returns the file of the record.

    Raises:
        TrustError: If the record cannot be read or written.
    """
    with _changing() as path:
        consent = {**recorded_consent(), digest: record}
        copy = _copy_of(digest)
        copy.parent.mkdir(mode=0o700, exist_ok=True)
        _write_privately(copy, data)
        _write_records(path, consent)
    return path


def forget_record(digest: str) -> ConsentRecord:
    """Take consent back; returns what was recorded.

    Raises:
        TrustError: If there is no such consent, or the record cannot be read or written.
    """
    with _changing() as path:
        consent = recorded_consent()
        if digest not in consent:
            raise TrustError(
                f"{path}: no consent is recorded for {show(digest)}", hint="'wmtp trust --list' shows what is"
            )
        forgotten = consent.pop(digest)
        _write_records(path, consent)
        _copy_of(digest).unlink(missing_ok=True)
    return forgotten


def kept_copy(digest: str) -> bytes | None:
    """Return the bytes that were agreed to under this hash, or None where no true copy of them was kept."""
    try:
        with _copy_of(digest).open("rb") as file:
            data = file.read(_MAX_COPY_BYTES)
    except OSError:
        return None
    return data if sha256_bytes(data) == digest else None


def _copy_of(digest: str) -> Path:
    return consent_file().parent / "code" / f"{digest.removeprefix('sha256:')}.py"


def _parse_record(path: Path, digest: str, entry: object) -> ConsentRecord:
    where, hint = f"{path}: the entry {show(digest)}", "remove this entry, then agree again with 'wmtp trust URI'"
    if not _DIGEST.fullmatch(digest):
        raise TrustError(f"{where} is not sha256: with 64 hexadecimal digits", hint=hint)
    if not isinstance(entry, dict):
        raise TrustError(f"{where} is {show(entry)}, expected an object", hint=hint)
    try:
        return ConsentRecord.model_validate(entry)
    except ValidationError as error:
        raise faults_error(model_faults(error, ConsentRecord), where=where, error=TrustError, hint=hint) from error


@contextmanager
def _changing() -> Iterator[Path]:
    """Let one process at a time read the record and write it anew, so that no entry is lost."""
    path = consent_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / "trust.lock").open("ab") as lock:
            # Some network disks have no locks. An entry lost to another one of the same moment is asked for again.
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield path
    except TrustError:
        raise
    except OSError as error:
        raise _no_access(path, error) from error


def _write_records(path: Path, consent: dict[str, ConsentRecord]) -> None:
    document = {digest: record.model_dump() for digest, record in consent.items()}
    _write_privately(path, (json.dumps(document, indent=2) + "\n").encode())


def _write_privately(path: Path, data: bytes) -> None:
    replace_file(path, data)
    path.chmod(0o600)


def _no_access(path: Path, error: OSError) -> TrustError:
    reason = error.problem if isinstance(error, StorageError) else error.strerror
    return TrustError(
        f"{path}: recorded consent cannot be read or written: {reason}",
        hint="check that file and its permissions, or give consent for one run with --allow-code",
    )
