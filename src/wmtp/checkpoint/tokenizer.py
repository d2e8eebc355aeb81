"""A tokenizer's fingerprint: equal for two checkpoints exactly when their tokenizers make the same ids of a text."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from wmtp.errors import CheckpointError, MetadataError
from wmtp.metadata.schema import ModelMetadata, TokenizerInfo
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, parse_json_object

TOKENIZER_FILE = "tokenizer.json"
_VOCABULARIES = (TOKENIZER_FILE, "tokenizer.model", "vocab.json", "vocab.txt")
_COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)


def tokenizer_files(store: Store) -> list[str]:
    """Return the files that loading the checkpoint's tokenizer reads; none when it has no vocabulary."""
    vocabularies = [name for name in _VOCABULARIES if store.has(name)]
    return vocabularies and [*vocabularies, *(name for name in _COMPANIONS if store.has(name))]


def tokenizer_fingerprint(store: Store) -> TokenizerInfo | None:
    """Return the fingerprint of a checkpoint's tokenizer.json, or None when it has none.

    SHA-256 over vocabulary, merges, and added tokens with their ids, in one canonical form: how the file was written
    (order, indentation, merges as text or as pairs) makes no difference. Older tokenizer files have no counterpart of
    all three, so no fingerprint is made of them.

    Raises:
        CheckpointError: If the file is not a tokenizer.
    """
    if not store.has(TOKENIZER_FILE):
        return None
    where = f"{store.uri / TOKENIZER_FILE}"
    data = store.read_bytes(TOKENIZER_FILE, max_bytes=MAX_INDEX_BYTES)
    document = parse_json_object(data, where=where, error=CheckpointError, max_bytes=MAX_INDEX_BYTES)
    try:
        vocabulary, merges = document["model"]["vocab"], document["model"].get("merges") or []
        added = {token["content"]: [token["id"], token["special"]] for token in document["added_tokens"]}
        canonical = {"vocabulary": vocabulary, "merges": [_pair(merge) for merge in merges], "added": added}
        tokens = {*(vocabulary if isinstance(vocabulary, dict) else (token for token, _ in vocabulary)), *added}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where}: not a tokenizer as the tokenizers library writes it ({type(error).__name__}: {error})",
            hint="save it again, with save_pretrained of a fast tokenizer",
        ) from error
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))
    return TokenizerInfo(sha256=hashlib.sha256(text.encode()).hexdigest(), vocab_size=max(len(tokens), 1))


def verify_tokenizer(store: Store, metadata: ModelMetadata) -> None:
    """Raise MetadataError when the tokenizer's fingerprint is not the one that metadata.json declares."""
    declared, found = metadata.tokenizer, tokenizer_fingerprint(store)
    if declared and found and declared.sha256 != found.sha256:
        raise MetadataError(
            f"{store.uri}/metadata.json: tokenizer.sha256 is {declared.sha256},"
            f" that of {TOKENIZER_FILE} is {found.sha256}",
            hint="write the one that was found, if this is the tokenizer that belongs to the weights",
        )


def _pair(merge: Any) -> list[str]:
    # Older files write "a b", newer ones ["a", "b"].
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return [left, right]
