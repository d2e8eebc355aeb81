"""What a draft says where prediction heads are all there is."""

from __future__ import annotations

from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.errors import CheckpointError
from wmtp.metadata.absent import is_medusa
from wmtp.storage.store import Store


def refuse_medusa(store: Store, config: dict[str, Any]) -> None:
    """Raise CheckpointError for a directory of Medusa heads, which is no model."""
    if is_medusa(config):
        raise CheckpointError(
            f"{store.uri / CONFIG_FILE}: these are Medusa heads alone, without the model that they stand on",
            hint=f"'wmtp validate {store.uri} --for vllm' says whether a server drafts with them; to load them, name"
            " the checkpoint that they were exported from",
        )
