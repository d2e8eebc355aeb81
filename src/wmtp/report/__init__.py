"""One HTML file about runs: what was run, its curves, and which tokens its algorithm weighed how much."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {"write_report": "wmtp.report.write", "XRayOptions": "wmtp.report.xray"}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wmtp.report' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
