"""Consent to run a checkpoint's own code, by hash, and the only way in which such code runs.

Consent comes from the operator: as `allow_code={"modeling.py": "sha256:..."}`, or recorded once by `wmtp trust` in a
file outside every checkpoint. Nothing in a checkpoint, and no environment variable, can grant it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.abc import Loader, MetaPathFinder
from pathlib import Path
from types import ModuleType

from typing_extensions import override

from wmtp.errors import NotFoundError, TrustError
from wmtp.manifest import sha256_bytes
from wmtp.storage.store import Store
from wmtp.untrusted import parse_json_object, show, show_all

_MAX_CODE_BYTES = 4 << 20


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
    def imports(self) -> list[str]:
        """Top-level names that the file imports, its own neighbours with a leading dot; empty if it does not parse."""
        try:
            tree = ast.parse(self.data)
        except (SyntaxError, ValueError):
            return []
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                found.add("." * node.level + (node.module or "").split(".")[0])
        return sorted(found)


def read_code(store: Store, name: str) -> CodeFile:
    """Read a Python file of a checkpoint without running it."""
    return CodeFile(name, store.read_bytes(name, max_bytes=_MAX_CODE_BYTES), str(store.uri / name))


def consent_file() -> Path:
    """Return the user's file of recorded consent: `$XDG_CONFIG_HOME/wmtp/trust.json`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "wmtp" / "trust.json"


def recorded_consent() -> dict[str, dict[str, str]]:
    """Return recorded consent: `sha256:<hex>` of each file agreed to, with its name, address and when.

    Raises:
        TrustError: If the file is not what `record_consent` writes.
    """
    path = consent_file()
    if not path.is_file():
        return {}
    return parse_json_object(path.read_bytes(), where=str(path), error=TrustError)


def record_consent(code: CodeFile) -> Path:
    """Remember that the operator agreed to run exactly these bytes; returns the file of recorded consent."""
    path = consent_file()
    entry = {"file": code.name, "seen_at": code.where, "recorded": datetime.now(UTC).isoformat(timespec="seconds")}
    consent = {**recorded_consent(), code.digest: entry}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(consent, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


def check_consent(code: CodeFile, allow_code: Mapping[str, str]) -> None:
    """Raise TrustError unless the operator agreed to these very bytes."""
    given = allow_code.get(code.name)
    if given == code.digest or (given is None and code.digest in recorded_consent()):
        return
    imports = ", ".join(show_all(code.imports)) or "nothing"
    found = f"it has {code.digest}, consent was given for {show(given)}" if given else "nobody agreed to run it"
    raise TrustError(
        f"{code.where}: this checkpoint builds its model with its own code, and {found}"
        f" ({len(code.data):,} bytes, imports {imports})",
        hint=f"read the file; if you agree to run it: --allow-code {code.name}={code.digest}"
        f" (in Python: allow_code={{{code.name!r}: {code.digest!r}}}), or record it with 'wmtp trust'",
    )


@dataclass
class ConsentedModule:
    """A checkpoint's module that ran with consent.

    Attributes:
        module: The module.
        code: `file: sha256:<hex>` of every file that ran, the module's own neighbours included.
    """

    module: ModuleType
    code: dict[str, str] = field(default_factory=dict)


def run_module(store: Store, name: str, allow_code: Mapping[str, str]) -> ConsentedModule:
    """Run a checkpoint's Python file as a module, if the operator agreed to it.

    The checked bytes are compiled directly: no bytecode is read or written, and the checkpoint's directory is not on
    `sys.path`. `from .blocks import x` finds `blocks.py` beside the file, which needs consent of its own.

    Raises:
        TrustError: Without consent, or when the code raises anything at all.
    """
    code = read_code(store, name)
    check_consent(code, allow_code)
    package = f"wmtp_checkpoint_{hashlib.sha256(code.data).hexdigest()[:16]}"
    neighbours = _NeighbourFinder(store, package, allow_code)
    with _importing(neighbours), broken_promise(code.where):
        module = neighbours.run(code)
    return ConsentedModule(module, neighbours.code)


@contextmanager
def broken_promise(where: str) -> Iterator[None]:
    """Turn whatever consented code raises, `SystemExit` and `KeyboardInterrupt` included, into a TrustError."""
    try:
        yield
    except TrustError:
        raise
    except BaseException as error:
        raise TrustError(
            f"{where}: the code raised {type(error).__name__}: {show(str(error))}",
            hint="this is an error in the checkpoint's own code: mend it there, then agree to the new file",
        ) from error


@contextmanager
def _importing(finder: MetaPathFinder) -> Iterator[None]:
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NeighbourFinder(MetaPathFinder, Loader):
    """Finds the modules of one checkpoint under a package name that nothing else has."""

    def __init__(self, store: Store, package: str, allow_code: Mapping[str, str]) -> None:
        self._store, self._package, self._allow_code = store, package, allow_code
        self._pending: dict[str, CodeFile] = {}
        self.code: dict[str, str] = {}
        for stale in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[stale]
        root = ModuleType(package)
        root.__path__ = []
        sys.modules[package] = root

    def run(self, code: CodeFile) -> ModuleType:
        fullname = f"{self._package}.{code.name.removesuffix('.py').replace('/', '.')}"
        self._pending[fullname] = code
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=code.where)
        module = ModuleType(fullname)
        module.__spec__, module.__package__, module.__file__ = spec, self._package, code.where
        sys.modules[fullname] = module
        self.exec_module(module)
        return module

    @override
    def find_spec(
        self, fullname: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not fullname.startswith(self._package + "."):
            return None
        name = fullname.removeprefix(self._package + ".").replace(".", "/") + ".py"
        try:
            code = read_code(self._store, name)
        except NotFoundError:
            return None
        check_consent(code, self._allow_code)
        self._pending[fullname] = code
        return importlib.machinery.ModuleSpec(fullname, self, origin=code.where)

    @override
    def exec_module(self, module: ModuleType) -> None:
        code = self._pending.pop(module.__name__)
        self.code[code.name] = code.digest
        exec(compile(code.data, code.where, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  consented bytes
