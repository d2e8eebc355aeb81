"""Scores on disk: a directory for each key, parts of one that is being computed, and nothing half done under its name.

scores/<what>-<key>/          scores.safetensors, scores.json (what the key stands for), manifest.json
scores/<what>-<key>.parts/    what an interrupted run has computed so far
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wmtp.errors import DataError, IntegrityError, StorageError
from wmtp.publishing.publish import publish_directory, remove_published, verify_published
from wmtp.storage.cached.locks import taking_turns
from wmtp.storage.replace import replace_file
from wmtp.untrusted import parse_json_object, show

logger = logging.getLogger("wmtp")

FORMAT = 1
FACTS_FILE = "scores.json"
COLUMN_FILE = "scores.safetensors"
_COLUMN = "scores"
# Who holds the lock may be loading a large model, which nobody sees from outside.
_PATIENCE_SECONDS = 3600.0


@dataclass(frozen=True)
class ScoreKey:
    """What figures depend on; when any of it changes they are computed again.

    Attributes:
        what: `nll` or `reward`.
        model: Fingerprint of the scoring model.
        dtype: In which it computes.
        label: Which of its labels is the reward; None where that is not said.
        tokenizer: Of the base model, with which the data was tokenized.
        data: Fingerprint of the rows.
        max_length: Tokens of the longest document.
        quantized: Into how many bits its weights are put; None: none fewer. Figures that were kept before there was
            this are such.
        format: Version of how figures are kept.
    """

    what: str
    model: str
    dtype: str
    label: int | None
    tokenizer: str
    data: str
    max_length: int
    quantized: str | None = None
    format: int = FORMAT

    def facts(self) -> dict[str, Any]:
        """Return what the figures depend on, as plain JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "quantized" or value is not None}

    @property
    def name(self) -> str:
        """The name of its directory."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()
        return f"{self.what}-{digest[:32]}"


class ScoreStore:
    """The place of the figures of one key.

    Args:
        directory: Where scores are kept.
        key: What the figures depend on.
        size: How many figures there are.
    """

    def __init__(self, directory: Path, key: ScoreKey, size: int) -> None:
        self.path = directory / key.name
        self._parts, self._key, self._size = directory / f"{key.name}.parts", key, size

    def read(self) -> Float[Tensor, "figures"] | None:
        """Return the figures; None when there are none, or they are damaged, which the log says.

        Raises:
            DataError: If the directory says that it holds figures of something else.
        """
        if not os.path.lexists(self.path):
            return None
        if self.path.is_symlink() or not self.path.is_dir():
            raise DataError(
                f"{self.path}: is a link or a file, and scores are kept in a directory of their own",
                hint="move it away; the scores are computed again",
            )
        try:
            self._check_facts()
            self._check_digests()
            figures = _column((self.path / COLUMN_FILE).read_bytes(), self.path / COLUMN_FILE)
        except (IntegrityError, OSError) as error:
            logger.warning("%s: damaged, and computed again: %s", self.path, error)
            return None
        return figures if len(figures) == self._size else None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one process at a time compute; the others find its figures afterwards."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f"{self.path.name}.lock")
        with taking_turns(lock, patience_seconds=_PATIENCE_SECONDS, progress=self._part_names):
            yield

    def resumed(self) -> list[Tensor]:
        """Return the parts that an interrupted run left, from the first on, as far as they are whole."""
        parts: list[Tensor] = []
        done = 0
        while (found := self._part_from(done)) is not None:
            parts.append(found)
            done += len(found)
        return parts

    def add(self, first: int, figures: Float[Tensor, "part"]) -> None:
        """Keep a part of the figures, in the order in which they are computed.

        Args:
            first: The place of its first figure in that order.
            figures: The part.
        """
        self._parts.mkdir(parents=True, exist_ok=True)
        data = _bytes(figures)
        replace_file(self._parts / _part_name(first, data), data)

    def publish(self, figures: Float[Tensor, "figures"], about: Mapping[str, Any]) -> None:
        """Keep all figures under their name, and remove the parts.

        Args:
            figures: All of them, in the order of the data.
            about: What else a person may want to know of them.
        """
        with suppress(FileNotFoundError):
            remove_published(self.path)  # damaged, or it would have been read
        try:
            with publish_directory(self.path) as directory:
                (directory / COLUMN_FILE).write_bytes(_bytes(figures))
                facts = {"key": self._key.facts(), **about}
                (directory / FACTS_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        except StorageError:
            # Where locks do nothing, another process may have been as quick.
            if self.read() is None:
                raise
        shutil.rmtree(self._parts, ignore_errors=True)
        self._sweep()

    def _sweep(self) -> None:
        # What a process that was killed while it published left; one that is at work has a younger directory.
        for path in self.path.parent.glob(f"{self.path.name}.tmp-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _PATIENCE_SECONDS:
                    shutil.rmtree(path)

    def _check_facts(self) -> None:
        path = self.path / FACTS_FILE
        document = parse_json_object(path.read_bytes(), where=str(path), error=IntegrityError)
        found, asked = document.get("key"), self._key.facts()
        if not isinstance(found, dict):
            raise IntegrityError(f"{path}: has no key", hint="remove the directory")
        if found != asked:
            different = [name for name in {**asked, **found} if found.get(name) != asked.get(name)]
            raise DataError(
                f"{path}: these are figures of something else than asked for",
                hint="remove the directory, or give it back its own name; what is missing is computed again",
                faults=[f"{name} is {show(found.get(name))}, asked for {show(asked.get(name))}" for name in different],
            )

    def _check_digests(self) -> None:
        if not {COLUMN_FILE, FACTS_FILE} <= {entry.path for entry in verify_published(self.path).files}:
            raise IntegrityError(f"{self.path}: its manifest does not list its files", hint="remove the directory")

    def _part_names(self) -> list[str]:
        with suppress(OSError):  # whoever computes has just ended
            return sorted(path.name for path in self._parts.iterdir())
        return []

    def _part_from(self, first: int) -> Tensor | None:
        # A part's name holds its digest, and its place in the order.
        names = [name for name in self._part_names() if name.startswith(f"{first:012d}-")]
        for path in (self._parts / name for name in names if name.endswith(".safetensors")):
            with suppress(IntegrityError, OSError):
                data = path.read_bytes()
                if path.name == _part_name(first, data) and len(part := _column(data, path)):
                    return part
            logger.warning("%s: damaged, and computed again", path)
        return None


def _part_name(first: int, data: bytes) -> str:
    return f"{first:012d}-{hashlib.sha256(data).hexdigest()[:32]}.safetensors"


def _bytes(figures: Tensor) -> bytes:
    return save({_COLUMN: figures.contiguous()})


def _column(data: bytes, path: Path) -> Tensor:
    try:
        figures = load(data)[_COLUMN]
    except (KeyError, SafetensorError) as error:
        raise IntegrityError(f"{path}: no column of figures", hint="remove it; it is computed again") from error
    if figures.dim() != 1 or figures.dtype != torch.float32 or not figures.isfinite().all():
        raise IntegrityError(f"{path}: not finite figures in fp32", hint="remove it; it is computed again")
    return figures
