"""Python files of a checkpoint: writing them with their consent, running them, and being refused."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from wmtp.errors import TrustError
from wmtp.manifest import sha256_bytes
from wmtp.storage.opening import open_store
from wmtp.trust.running import ConsentedModule, run_module


def write_code(directory: Path, source: str | bytes, name: str = "modeling.py") -> dict[str, str]:
    """Write a file; returns the consent that it needs."""
    data = source if isinstance(source, bytes) else source.encode()
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(data)
    return {name: sha256_bytes(data)}


def run_code(directory: Path, consent: Mapping[str, str], name: str = "modeling.py") -> ConsentedModule:
    """Run a file as loading would."""
    return run_module(open_store(directory), name, consent)


def code_refusal(directory: Path, consent: Mapping[str, str] | None = None, name: str = "modeling.py") -> TrustError:
    """Return the refusal to run a file, after making sure that it left nothing behind."""
    before, modules = sorted(directory.rglob("*")), set(_own_modules())
    with pytest.raises(TrustError) as caught:
        run_code(directory, consent or {}, name)
    assert sorted(directory.rglob("*")) == before
    assert set(_own_modules()) <= modules
    return caught.value


def _own_modules() -> list[str]:
    return [name for name in sys.modules if name.startswith("wmtp_checkpoint_")]
