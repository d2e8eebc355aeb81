"""What a draft says of prediction heads that are all there is, or that are no longer there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.families import family_of
from wmtp.checkpoint.native_heads import native_names
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError
from wmtp.serving.counts import declared_counts
from wmtp.serving.medusa import is_medusa
from wmtp.storage.store import Store
from wmtp.untrusted import show


def refuse_medusa(store: Store, config: dict[str, Any]) -> None:
    """Raise CheckpointError for a directory of Medusa heads, which is no model."""
    if is_medusa(config):
        raise CheckpointError(
            f"{store.uri / CONFIG_FILE}: these are Medusa heads alone, without the model that they stand on",
            hint=f"'wmtp validate {store.uri} --for vllm' says whether a server drafts with them; to load them, name"
            " the checkpoint that they were exported from",
        )


def note_stripped(config: dict[str, Any], tensors: Sequence[TensorInfo], notes: list[str]) -> None:
    """Say so where config.json counts native modules and the files hold none, as after a save by transformers."""
    family = family_of(config)
    counts = declared_counts(family, config) if family is not None else {}
    counted = {path: count for path, count in counts.items() if count}
    if counted and not native_names(config, [tensor.name for tensor in tensors]):
        path, count = next(iter(counted.items()))
        notes.append(
            f"mtp: none, though {path} is {show(count)} in {CONFIG_FILE}: no tensor of a native module is there, as"
            " after a save by transformers; the original checkpoint has them"
        )
