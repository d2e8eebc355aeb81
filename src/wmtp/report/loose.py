"""Values out of a document of which only the outline was checked: run.json, provenance and receipts of any version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from wmtp.report.texts import visible

UNKNOWN = "—"


def within(document: object, *keys: str) -> Any:
    """Return what stands under keys, one within the other; None where there is nothing."""
    found: Any = document
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def mapping(value: object) -> dict[str, Any]:
    """Return a value that is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> Sequence[Any]:
    """Return a value that is a list, else an empty one."""
    return value if isinstance(value, list) else []


def number(value: object) -> int:
    """Return a value that is a whole number, else 0."""
    return value if isinstance(value, int) else 0


def text_of(value: object) -> str:
    """Return any value as text of which every character is seen."""
    if value is None:
        return UNKNOWN
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
