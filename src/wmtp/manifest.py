"""Manifest of (path, size, sha256): the one type for locks, caches, `files` in metadata, published checkpoints."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError

from wmtp.errors import ArrivalError, IntegrityError
from wmtp.faults import Fault, FieldFaults, StrictModel, faults_error, model_faults
from wmtp.untrusted import parse_json_object, relative_name_fault, show, show_all

MANIFEST_FILE = "manifest.json"  # what a published checkpoint calls its own

_CHUNK_BYTES = 1 << 20


def _checked_name(name: str) -> str:
    if fault := relative_name_fault(name):
        raise FieldFaults(Fault((), f"is {show(name)}, which {fault}", "name the file relative to the checkpoint"))
    return name


RelativeName = Annotated[str, AfterValidator(_checked_name)]
SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 as 64 lowercase hexadecimal digits.")]


class FileDigest(StrictModel):
    """What one file must be, byte for byte."""

    path: RelativeName
    size: int = Field(ge=0, description="Size in bytes.")
    sha256: SHA256


def refuse_twins(names: Iterable[str]) -> None:
    """Raise FieldFaults when a list of files has a name twice."""
    if twins := [name for name, count in Counter(names).items() if count > 1]:
        raise FieldFaults(Fault((), f"names a file twice: {', '.join(show_all(twins))}"))


def _each_once(files: list[FileDigest]) -> list[FileDigest]:
    refuse_twins(file.path for file in files)
    return files


FileDigests = Annotated[list[FileDigest], AfterValidator(_each_once)]


class Manifest(StrictModel):
    """What a set of files must be, byte for byte."""

    files: FileDigests

    @classmethod
    def of_directory(cls, directory: Path, names: Iterable[str]) -> Self:
        """Hash the named files of a directory; reads each byte once."""
        return cls(files=[digest_file(directory, name) for name in sorted(names)])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a manifest file, strictly; raises what `parse` raises."""
        return cls.parse(path.read_bytes(), where=str(path))

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> Self:
        """Parse the bytes of a manifest file.

        Args:
            data: The whole file.
            where: How errors name it.

        Raises:
            IntegrityError: If it is not a manifest.
        """
        parse_json_object(data, where=where, error=IntegrityError)
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            faults = model_faults(error, cls)
            hint = "fetch or write the checkpoint again, manifest included"
            raise faults_error(faults, where=where, error=IntegrityError, hint=hint) from error

    def verify_directory(self, directory: Path) -> None:
        """Hash every file again and raise IntegrityError, naming each that is missing or differs."""
        self.verify_paths({entry.path: directory / entry.path for entry in self.files}, where=str(directory))

    def verify_paths(self, paths: Mapping[str, Path], *, where: str) -> None:
        """Do the same where each file has a path of its own, whatever that is called.

        Args:
            paths: Where files are, by their name in this manifest; what is not there is missing.
            where: How errors name the whole.
        """
        faults = [fault for entry in self.files if (fault := _difference(paths.get(entry.path), entry))]
        if faults:
            raise IntegrityError(
                f"{where}: {len(faults)} of {len(self.files)} files differ from their manifest",
                hint="fetch or write the checkpoint again; nothing here has been changed",
                faults=faults,
            )


def digest_file(directory: Path, name: str) -> FileDigest:
    """Return size and SHA-256 of `directory/name`, read in chunks."""
    return digest_path(directory / name, name)


def digest_path(path: Path, name: str) -> FileDigest:
    """Return size and SHA-256 of a file that belongs under a name, read in chunks."""
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            size += len(chunk)
    return FileDigest(path=name, size=size, sha256=sha256.hexdigest())


def sha256_bytes(data: bytes) -> str:
    """Return `sha256:<hex>` of data held in memory, the form in which consent and locks are written."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def verify_arrival(where: str, found: str, expected: str) -> None:
    """Raise ArrivalError, with both, unless a file arrived with the digest that is known of it."""
    if found != expected:
        raise ArrivalError(
            f"{where}: it has {found}, {expected} is expected",
            hint="fetch it from where you trust it, or mend the digest that the checkpoint declares",
        )


def verify_digest(where: str, found: str, pinned: str) -> None:
    """Raise IntegrityError, with both, unless a file has the digest that the operator pinned."""
    if found != pinned:
        raise IntegrityError(
            f"{where}: it has {found}, the lock has {pinned}",
            hint="fetch the file again; if it was meant to change, write a new lock with 'wmtp lock'",
        )


def _difference(path: Path | None, entry: FileDigest) -> str | None:
    if path is None or not path.is_file():
        return f"{entry.path} is missing"
    found = digest_path(path, entry.path)
    if found == entry:
        return None
    return f"{entry.path} has sha256 {found.sha256} ({found.size} bytes), expected {entry.sha256} ({entry.size} bytes)"
