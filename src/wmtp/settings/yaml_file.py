"""A settings file with its overrides: read once, checked against a typed model, every fault named by file and line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError, ValidationInfo

from wmtp.errors import SettingsError
from wmtp.faults import Fault, model_faults
from wmtp.settings.yaml_text import KeyPath, Origin, compose
from wmtp.untrusted import first_few, plain, refuse_pointer, show

M = TypeVar("M", bound=BaseModel)

_MAX_BYTES = 1 << 20
_GENERAL_HINT = "mend what is named; 'wmtp schema recipe' and 'wmtp schema config' print what each field may be"


@dataclass(frozen=True)
class Override:
    """One `a.b.c=value` of a command line.

    Attributes:
        keys: The path of keys before the first `=`.
        value: The YAML text after it.
    """

    keys: tuple[str, ...]
    value: str

    @classmethod
    def parse(cls, text: str) -> Override:
        """Split an override at its first `=`; raises SettingsError when it is no override."""
        dotted, equals, value = text.partition("=")
        keys = tuple(dotted.strip().split("."))
        if not equals or not all(keys):
            raise SettingsError(
                f"override {show(text)}: not of the form key=value", hint="write it like train.max_steps=100"
            )
        return cls(keys, value)

    @property
    def origin(self) -> Origin:
        """How errors name it."""
        return Origin(sys.maxsize, f"override {plain('.'.join(self.keys))}={plain(self.value)}")


@dataclass
class Document:
    """The content of one YAML file with its overrides, and where each value came from.

    Attributes:
        path: The file.
        value: Its sections.
        origins: The origin of every key and item.
        faults: What is wrong already, before any schema is applied.
    """

    path: Path
    value: dict[str, Any]
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def override(self, override: Override) -> None:
        """Put one override in the place it names, making the sections around it where they are missing."""
        section = self.value
        for end, key in enumerate(override.keys[:-1], start=1):
            if section.get(key) is None:
                section[key] = {}
                self.origins[override.keys[:end]] = override.origin
            section = section[key]
            if not isinstance(section, dict):
                raise SettingsError(
                    f"{override.origin.text}: {'.'.join(override.keys[:end])} is not a section",
                    hint="override the whole value, in YAML: key=[a, b]",
                )
        composed = compose(override.value, lambda _: override.origin, override.keys)
        # What the file says there no longer counts, nor do faults found in it.
        self.origins = {path: at for path, at in self.origins.items() if not _is_below(path, [override.keys])}
        self.faults = [fault for fault in self.faults if not _is_below(fault.path, [override.keys])]
        self.origins |= composed.origins
        self.faults += composed.faults
        section[override.keys[-1]] = composed.value

    def origin(self, path: KeyPath) -> Origin:
        """Return the origin of a value, or of the nearest section around it."""
        known = (self.origins.get(path[:end]) for end in range(len(path), -1, -1))
        return next((origin for origin in known if origin), Origin(1, f"{self.path}:1"))

    def validate(self, model: type[M], amend: Callable[[Fault], Fault] = lambda fault: fault) -> M:
        """Return the document as a typed object.

        Args:
            model: What it must be.
            amend: Rewrites a fault where the caller knows more about it than the model does.

        Raises:
            SettingsError: With every fault of the file and its overrides at once.
        """
        try:
            # As JSON, because pydantic's strict mode is meant for JSON: a list there may fill any sequence.
            parsed = model.model_validate_json(
                json.dumps(self.value), context={"directory": self.path.absolute().parent}
            )
        except ValidationError as error:
            broken = [fault.path for fault in self.faults]
            found = [amend(fault) for fault in model_faults(error, model) if not _is_below(fault.path, broken)]
            raise self._error([*self.faults, *found]) from error
        if self.faults:
            raise self._error(self.faults)
        return parsed

    def _error(self, faults: Sequence[Fault]) -> SettingsError:
        placed = sorted(((self.origin(fault.path), fault) for fault in faults), key=lambda pair: pair[0])
        if len(placed) == 1:
            origin, fault = placed[0]
            return SettingsError(f"{origin.text}: {fault}", hint=fault.hint or _GENERAL_HINT)
        lines = [f"{origin.text}: {fault}" + (f"; {fault.hint}" if fault.hint else "") for origin, fault in placed]
        return SettingsError(f"{self.path}: {len(lines)} faults", hint=_GENERAL_HINT, faults=first_few(lines))


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML file and apply overrides to it, in their order.

    Raises:
        SettingsError: If the file cannot be read or is not YAML with a mapping at the top, or if an override is none.
    """
    path = Path(path)
    composed = compose(_read_text(path), lambda line: Origin(line, f"{path}:{line}"))
    if not isinstance(composed.value, dict):
        what = "is empty" if composed.value is None else "is not a mapping of sections"
        raise SettingsError(f"{path}: {what}", hint="begin from one of the files in recipes/")
    document = Document(path, composed.value, composed.origins, composed.faults)
    for text in overrides:
        document.override(Override.parse(text))
    return document


def beside_file(text: str, info: ValidationInfo, *, quote: Callable[[str], str] = str) -> str:
    """Return a path as seen from the YAML file's own directory, for use in a pydantic validator.

    A model that is built in Python has no such file; the path then stays as it is.

    Args:
        text: The path as written; `~/` is the home directory.
        info: Carries the directory of the file as context.
        quote: Applied to the directory, where the path is more than a path.
    """
    path = Path(text).expanduser() if text.startswith("~/") else Path(text)
    directory = (info.context or {}).get("directory")
    return str(Path(quote(str(directory)), path)) if directory else str(path)


def _is_below(path: KeyPath, roots: Sequence[KeyPath]) -> bool:
    return any(path[: len(root)] == root for root in roots)


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise SettingsError(f"{path}: a directory, not a file", hint="name the YAML file in it") from error
    except OSError as error:
        if path.is_symlink() and not path.exists():
            target = show(str(path.readlink()))
            raise SettingsError(
                f"{path}: a dangling symbolic link: {target}, to which it points, is not there",
                hint="put the file there, or name another",
            ) from error
        near = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        beside = f"; beside it are: {', '.join(near[:8])}" if near else ""
        raise SettingsError(f"{path}: {error.strerror or error}", hint=f"check the path{beside}") from error
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"{path}: larger than {_MAX_BYTES:,} bytes", hint="check that this is the file you meant")
    refuse_pointer(data, where=str(path), error=SettingsError)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: is not UTF-8", hint="save the file as UTF-8") from error
