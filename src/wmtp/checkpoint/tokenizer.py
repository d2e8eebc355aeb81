"""A checkpoint's tokenizer: its files, checked, and its fingerprint.

Fingerprints are equal exactly when two tokenizers make the same ids of a text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from wmtp.errors import CheckpointError, MetadataError, TrustError
from wmtp.metadata.schema import ModelMetadata, TokenizerInfo
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, parse_json_object, show

TOKENIZER_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
_TOKENIZER_CLASS = re.compile(r"\w*(?:Tokenizer|TokenizerFast|Backend)", re.ASCII)
_VOCABULARIES = (TOKENIZER_FILE, "tokenizer.model", "vocab.json", "vocab.txt")
_COMPANIONS = (
    _CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)


def tokenizer_files(store: Store) -> list[str]:
    """Return the files that loading the checkpoint's tokenizer reads; none when it has no vocabulary."""
    vocabularies = [name for name in _VOCABULARIES if store.has(name)]
    return vocabularies and [*vocabularies, *(name for name in _COMPANIONS if store.has(name))]


def check_tokenizer(store: Store) -> list[str]:
    """Check the files of a checkpoint's tokenizer before a library reads them, and return their names.

    Raises:
        CheckpointError: If one is not strict JSON, or has a table that would crash the process.
        TrustError: If the class that it names is no tokenizer: transformers would build that instead.
    """
    names = tokenizer_files(store)
    documents = {name: _read_document(store, name) for name in names if name.endswith(".json")}
    kind = documents.get(_CONFIG_FILE, {}).get("tokenizer_class")
    if kind is not None and not (isinstance(kind, str) and _TOKENIZER_CLASS.fullmatch(kind)):
        raise TrustError(
            f"{store.where(_CONFIG_FILE)}: tokenizer_class is {show(kind)}, which is no tokenizer",
            hint="name a tokenizer of transformers there, such as 'PreTrainedTokenizerFast'",
        )
    for table in _precompiled_tables(documents.get(TOKENIZER_FILE)):
        if not _is_whole(table):
            raise CheckpointError(
                f"{store.where(TOKENIZER_FILE)}: precompiled_charsmap is {show(table)}, which is cut short or damaged",
                hint="copy the tokenizer's files anew from where the checkpoint came from",
            )
    return names


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
    where, document = store.where(TOKENIZER_FILE), _read_document(store, TOKENIZER_FILE)
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
    """Check a tokenizer's files, and raise MetadataError when their fingerprint is not what metadata.json declares."""
    check_tokenizer(store)
    declared, found = metadata.tokenizer, tokenizer_fingerprint(store)
    if declared and found and declared.sha256 != found.sha256:
        raise MetadataError(
            f"{store.uri}/metadata.json: tokenizer.sha256 is {declared.sha256},"
            f" that of {TOKENIZER_FILE} is {found.sha256}",
            hint="write the one that was found, if this is the tokenizer that belongs to the weights",
        )


def _read_document(store: Store, name: str) -> dict[str, Any]:
    data = store.read_bytes(name, max_bytes=MAX_INDEX_BYTES)
    return parse_json_object(data, where=store.where(name), error=CheckpointError, max_bytes=MAX_INDEX_BYTES)


def _precompiled_tables(value: Any) -> Iterator[Any]:
    if isinstance(value, dict) and "precompiled_charsmap" in value:
        yield value["precompiled_charsmap"]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        if isinstance(part, dict | list):
            yield from _precompiled_tables(part)


def _is_whole(table: Any) -> bool:
    """Say whether a table has the parts that the tokenizers library takes from it without looking."""
    try:
        data = base64.b64decode(table or "", validate=True)
        length = int.from_bytes(data[:4], "little")
        data[4 + length :].decode("utf-8")
    except (TypeError, ValueError):
        return False
    return not data or (length % 4 == 0 and 4 + length <= len(data))


def _pair(merge: Any) -> list[str]:
    # Older files write "a b", newer ones ["a", "b"].
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return [left, right]
