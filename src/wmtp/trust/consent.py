"""Consent to run a checkpoint's own code, by hash.

Consent comes from the operator: as `allow_code={"modeling.py": "sha256:..."}`, or recorded once by `wmtp trust` in a
file outside every checkpoint. Nothing in a checkpoint, and no environment variable, can grant it.
"""

from __future__ import annotations

import ast
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from wmtp.errors import TrustError
from wmtp.manifest import sha256_bytes
from wmtp.storage.store import Store
from wmtp.trust.records import ConsentRecord, add_record, recorded_consent
from wmtp.untrusted import refuse_pointer, show, show_all

# Parsing takes a thousand times the bytes in memory; the largest modeling file of transformers has 300 KB.
_MAX_CODE_BYTES = 512 << 10


@dataclass(frozen=True)
class CodeFile:
    """A Python file of a checkpoint, read once; these bytes are checked, and these bytes run.

    Attributes:
        name: Its name in the checkpoint.
        data: Its bytes.
        where: Its address, as errors show it.
    """

    name: str
    data: bytes
    where: str

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the bytes."""
        return sha256_bytes(self.data)

    @property
    def address(self) -> str:
        """Where it is, told so that it means the same from any directory."""
        place = self.where if "://" in self.where else str(Path(self.where).absolute())
        return place.encode(errors="backslashreplace").decode()  # a directory's name may be no Unicode

    @property
    def text(self) -> str:
        """The file as UTF-8, whatever encoding it declares: under another one, what runs is not what was read."""
        return self.data.decode("utf-8-sig")

    @property
    def imports(self) -> list[str]:
        """Top-level names that the file imports, its own neighbours with a leading dot; empty if it does not parse."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return []
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                names = [node.module] if node.module else [alias.name for alias in node.names]  # `from . import x`
                found.update("." * node.level + name.split(".")[0] for name in names)
        return sorted(found)

    @property
    def neighbours(self) -> list[str]:
        """The files beside this one that its relative imports would find, whether they are there or not."""
        folder = self.name.rpartition("/")[0]
        beside = [name[1:] for name in self.imports if name.startswith(".") and not name.startswith("..")]
        return [f"{folder}/{name}.py" if folder else f"{name}.py" for name in beside]


def read_code(store: Store, name: str) -> CodeFile:
    """Read a Python file of a checkpoint without running it.

    Raises:
        TrustError: If its name is not ASCII: people copy it, with a hash, into the line by which they agree to run it.
            Or if a Git LFS pointer stands in its place.
        StorageError: If it cannot be read, or is larger than any such file.
    """
    if not name.isascii():
        raise TrustError(
            f"{store.where(name)}: the name of a file that is to run has to be ASCII", hint="give the file another name"
        )
    data = store.read_bytes(name, max_bytes=_MAX_CODE_BYTES)
    refuse_pointer(data, where=store.where(name), error=TrustError)
    return CodeFile(name, data, store.where(name))


def record_consent(code: CodeFile) -> Path:
    """Remember that the operator agreed to run exactly these bytes; returns the file of recorded consent.

    Raises:
        TrustError: If that file cannot be read or written.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return add_record(code.digest, ConsentRecord(file=code.name, seen_at=code.address, recorded=now), code.data)


def check_consent(code: CodeFile, allow_code: Mapping[str, str]) -> None:
    """Raise TrustError unless the operator agreed to these very bytes."""
    given = allow_code.get(code.name)
    if given == code.digest or (given is None and code.digest in recorded_consent()):
        return
    imports = ", ".join(show_all(code.imports)) or "nothing"
    found = f"it has {code.digest}, consent was given for {show(given)}" if given else "nobody agreed to run it"
    # Meant to be copied into a shell, and the name is a stranger's.
    option = shlex.quote(f"{code.name}={code.digest}")
    raise TrustError(
        f"{code.where}: this checkpoint builds its model with its own code, and {found}"
        f" ({len(code.data):,} bytes, imports {imports})",
        hint=f"read the file; if you agree to run it: --allow-code {option}"
        f" (in Python: allow_code={{{code.name!r}: {code.digest!r}}}), or record it with 'wmtp trust'",
    )
