"""How the operator wants a checkpoint loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wmtp.errors import CheckpointError, TrustError
from wmtp.storage.locked import Lock
from wmtp.storage.store import Access
from wmtp.untrusted import did_you_mean, show

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


class LoadKeywords(Access, total=False):
    """The keyword arguments of everything that loads; `LoadOptions` says what they mean."""

    dtype: str
    device: str | torch.device
    algorithm: str | None
    allow_code: Mapping[str, str] | None
    lock: Lock | None
    mmap: bool


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How the operator wants a checkpoint loaded.

    Attributes:
        dtype: `auto` (as stored), `float32`, `bfloat16` or `float16`.
        device: Any torch device: `cpu`, `cuda`, `cuda:1`, `mps`.
        algorithm: Refuse a model that does not declare itself fit for this algorithm.
        allow_code: Code that may run: `{"modeling.py": "sha256:<hex>"}`. Consent recorded by `wmtp trust` counts too.
        allow_symlinks: Follow links that leave the checkpoint's directory.
        lock: Digests that the files must have: a lock file's path, which pins the whole checkpoint, or
            `{"model.safetensors": "sha256:<hex>"}`, which pins the files that it names.
        cache_dir: Where files from object stores are kept; None: `$WMTP_CACHE`, or `wmtp` in the user's cache
            directory. Local directories are never copied.
        cache: False: keep nothing on disk; weights of an object store go straight into the model's memory.
        mmap: False: read files into private memory, so that changing them later cannot change the model. With a lock
            it is that memory which is verified.
    """

    dtype: str = "auto"
    device: str | torch.device = "cpu"
    algorithm: str | None = None
    allow_code: Mapping[str, str] | None = None
    allow_symlinks: bool = False
    lock: Lock | None = None
    cache_dir: str | Path | None = None
    cache: bool = True
    mmap: bool = True

    @property
    def access(self) -> Access:
        """How the checkpoint's files are got at."""
        return {"allow_symlinks": self.allow_symlinks, "cache": self.cache, "cache_dir": self.cache_dir}

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            hint = f"use one of {', '.join(DTYPES)}{did_you_mean(str(self.dtype), DTYPES)}"
            raise CheckpointError(f"dtype is {show(self.dtype)}", hint)
        consent: object = self.allow_code
        if not isinstance(consent, Mapping | None):
            hint = 'write allow_code={"modeling.py": "sha256:<hex>"}; \'wmtp trust\' shows the file and its hash'
            raise TrustError(f"allow_code is {show(consent)}, consent is given by hash", hint)
