"""Whether a reference model is better than the model to train: their losses on the same tokens, as they are kept.

Losses are measured by `wmtp score`, and read by `wmtp plan`, which loads no model and imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wmtp.checkpoint.contents import Checkpoint
from wmtp.data.fault_list import FaultList
from wmtp.data.files import LeftOut, find_files, without_remote
from wmtp.faults import StrictModel
from wmtp.settings.data import Data, Reading
from wmtp.storage.replace import replace_file
from wmtp.untrusted import plain

DIRECTORY = "references"
_FORMAT = 1


class ReferenceLosses(StrictModel):
    """Losses of a reference and of the base model on the same tokens, before anything is trained.

    Attributes:
        score: The score that the reference gives.
        reference: Its address.
        base: That of the model to train.
        data: What was measured on: `data.validation`, or `data.train` where there is no validation.
        documents: How many of them.
        tokens: How many tokens to learn these have.
        reference_loss: Mean loss of the reference on those, in nats.
        base_loss: That of the next-token head of the base model.
    """

    score: str
    reference: str
    base: str
    data: str
    documents: int
    tokens: int
    reference_loss: float
    base_loss: float

    @property
    def is_better(self) -> bool:
        """Whether the reference has the lower loss."""
        return self.reference_loss < self.base_loss

    def lines(self) -> Iterator[str]:
        """Yield both losses in a line, and in another what follows where the reference is not better."""
        losses = f"reference {self.reference_loss:.4f}, base model {self.base_loss:.4f} nats a token"
        yield f"{self.score} on {self.tokens:,} tokens of {self.documents:,} documents of {self.data}: {losses}"
        if not self.is_better:
            models = f"{plain(self.reference)} is not better than the base model {plain(self.base)}"
            yield (
                f"warning: the reference {models}: what it ranks highest is not what can be learned, and equal weights"
                " (baseline-mtp) may do better; train the reference longer, on clean data, or name another"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return {**self.model_dump(mode="json"), "is_better": self.is_better}


def losses_file(
    directory: Path, base: Checkpoint, reference: Checkpoint, data: Data, *, bits: str | None = None
) -> Path:
    """Return the file that keeps the losses of two models on the data of a recipe.

    Its name depends on both addresses, on size and version of their weights, on the recipe's section, and on size and
    time of the files that this names: when any of these changes, the losses are measured again.

    Args:
        directory: Where scores are kept.
        base: The model to train.
        reference: The reference.
        data: The recipe's section.
        bits: Into how many the reference's weights are put; None: none fewer than they are loaded in.
    """
    models = [[checkpoint.where, _weights(checkpoint)] for checkpoint in (base, reference)]
    sources = [("data.train", data.train), ("data.validation", data.validation)]
    files = [
        found
        for field, source in sources
        if source is not None
        for part in source.parts
        for found in _files(part, field)
    ]
    key = [_FORMAT, models, data.model_dump(mode="json"), files, *([] if bits is None else [bits])]
    return directory / DIRECTORY / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"


def read_losses(path: Path) -> ReferenceLosses | None:
    """Return the losses that a file keeps; None where there is none, or it is damaged."""
    try:
        return ReferenceLosses.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def keep_losses(path: Path, losses: ReferenceLosses) -> None:
    """Write the losses into their file.

    Raises:
        StorageError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, losses.model_dump_json(indent=1).encode() + b"\n")


def _weights(checkpoint: Checkpoint) -> list[list[Any]]:
    infos = [checkpoint.store.stat(name) for name in sorted({tensor.file for tensor in checkpoint.tensors})]
    return [[info.name, info.size_bytes, info.version] for info in infos]


def _files(source: Reading, field: str) -> list[list[Any]]:
    # What is wrong with the files, reading them says. Of what is elsewhere the address stands for it.
    local = without_remote(source)
    paths = [file.path for file in find_files(local, FaultList(field), LeftOut(), field=field)]
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths if path.is_file()]
