"""A checkpoint's tokenizer: its files, checked, and its fingerprint.

Fingerprints are equal exactly when two tokenizers make the same ids of a text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from wmtp.errors import CheckpointError, MetadataError, TrustError
from wmtp.metadata.schema import ModelMetadata, TokenizerInfo
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_INDEX_BYTES, parse_json_object, refuse_pointer, show, show_all

TOKENIZER_FILE = "tokenizer.json"
_SETTINGS_FILE = "tokenizer_config.json"
_SPECIAL_TOKENS_FILE = "special_tokens_map.json"
_SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_VOCABULARIES = (TOKENIZER_FILE, *_SENTENCEPIECE_FILES, "tekken.json", "vocab.json", "vocab.txt")
_COMPANIONS = (_SETTINGS_FILE, _SPECIAL_TOKENS_FILE, "added_tokens.json", "merges.txt", "chat_template.jinja")
_TEMPLATES = re.compile(r"additional_chat_templates/[^/]+\.jinja")
_MAX_FILE_BYTES = 64 << 20
# Names that end so and are no tokenizers: each of them would build, or fetch, something else.
_TOKENIZER_CLASS = re.compile(
    r"(?!Auto|Rag|Basic|Character|Mecab|Wordpiece|Pil|Torchvision)\w*(?:Tokenizer|TokenizerFast|Backend)", re.ASCII
)
_SPECIAL_TOKENS = re.compile(r"\w+_tokens?", re.ASCII)
_MAX_TOKEN_ID = 1 << 22  # libraries fill the ids before it with placeholders, one by one
# What transformers takes from the settings instead of from its caller.
_CALLERS_KEYS = ("name_or_path", "is_local", "_is_local", "local_files_only", "token", "revision", "_commit_hash")


def tokenizer_files(store: Store) -> list[str]:
    """Return the files that loading the checkpoint's tokenizer reads; none when it has no vocabulary."""
    vocabularies = [name for name in _VOCABULARIES if store.has(name)]
    if not vocabularies:
        return []
    templates = [info.name for info in store.list_files() if _TEMPLATES.fullmatch(info.name)]
    return [*vocabularies, *(name for name in _COMPANIONS if store.has(name)), *templates]


def checked_tokenizer(store: Store, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a checkpoint's tokenizer as a library may read them; none when it has no vocabulary.

    These bytes were checked. config.json is reduced to what picks the tokenizer's class, and the settings lose what
    only a caller may say.

    Args:
        store: The checkpoint's files.
        config: Its config.json.

    Raises:
        CheckpointError: If a file is not strict JSON, has a part that would crash or exhaust the process, or makes
            other tokens of a text each time.
        TrustError: If a class that is named is no tokenizer, or special tokens come with other settings.
    """
    files = {name: store.read_bytes(name, max_bytes=_MAX_FILE_BYTES) for name in tokenizer_files(store)}
    for name, data in files.items():
        refuse_pointer(data, where=store.where(name), error=CheckpointError)
    documents = {
        name: parse_json_object(data, where=store.where(name), error=CheckpointError, max_bytes=_MAX_FILE_BYTES)
        for name, data in files.items()
        if name.endswith(".json")
    }
    settings = documents.get(_SETTINGS_FILE, {})
    for name, kind in (
        (_SETTINGS_FILE, settings.get("tokenizer_class")),
        ("config.json", config.get("tokenizer_class")),
    ):
        _check_class(store.where(name), kind)
    _check_special_tokens(store.where(_SPECIAL_TOKENS_FILE), documents.get(_SPECIAL_TOKENS_FILE, {}))
    _check_ids(store.where(_SETTINGS_FILE), settings.get("added_tokens_decoder"), by_key=True)
    _check_ids(store.where("added_tokens.json"), documents.get("added_tokens.json"), by_key=False)
    _check_tables(store.where(TOKENIZER_FILE), documents.get(TOKENIZER_FILE))
    _check_dropout(store.where(TOKENIZER_FILE), documents.get(TOKENIZER_FILE, {}).get("model"))
    if settings:
        kept = {key: value for key, value in settings.items() if key not in _CALLERS_KEYS}
        files[_SETTINGS_FILE] = json.dumps(kept).encode()
    picks = {key: config[key] for key in ("model_type", "tokenizer_class") if config.get(key) is not None}
    return files and {**files, "config.json": json.dumps(picks).encode()}


def check_sentencepiece(files: Collection[str], *, where: str) -> None:
    """Raise CheckpointError for a vocabulary in sentencepiece's format only, where that is not installed."""
    is_needed = TOKENIZER_FILE not in files and any(name in files for name in _SENTENCEPIECE_FILES)
    if is_needed and find_spec("sentencepiece") is None:
        raise CheckpointError(f"{where}: needs sentencepiece", hint="install it: python -m pip install sentencepiece")


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
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"))  # of keys of two kinds there is no order
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where}: not a tokenizer as the tokenizers library writes it ({type(error).__name__}: {error})",
            hint="save it again, with save_pretrained of a fast tokenizer",
        ) from error
    return TokenizerInfo(sha256=hashlib.sha256(text.encode()).hexdigest(), vocab_size=max(len(tokens), 1))


def verify_tokenizer(store: Store, metadata: ModelMetadata, config: Mapping[str, Any]) -> None:
    """Check a tokenizer's files, and raise MetadataError when their fingerprint is not what metadata.json declares."""
    checked_tokenizer(store, config)
    declared, found = metadata.tokenizer, tokenizer_fingerprint(store)
    if declared and found and declared.sha256 != found.sha256:
        raise MetadataError(
            f"{store.uri}/metadata.json: tokenizer.sha256 is {declared.sha256},"
            f" that of {TOKENIZER_FILE} is {found.sha256}",
            hint="write the one that was found, if this is the tokenizer that belongs to the weights",
        )


def _check_class(where: str, kind: Any) -> None:
    if kind is not None and not (isinstance(kind, str) and _TOKENIZER_CLASS.fullmatch(kind)):
        raise TrustError(
            f"{where}: tokenizer_class is {show(kind)}, which is no tokenizer",
            hint="name a tokenizer of transformers there, such as 'PreTrainedTokenizerFast'",
        )


def _check_special_tokens(where: str, document: dict[str, Any]) -> None:
    if others := [key for key in document if not _SPECIAL_TOKENS.fullmatch(key)]:
        raise TrustError(
            f"{where}: {', '.join(show_all(others))}: no special tokens, and transformers would take them for settings",
            hint="remove them from the file; it holds the likes of 'eos_token'",
        )


def _check_ids(where: str, tokens: Any, *, by_key: bool) -> None:
    if not isinstance(tokens, dict):
        return
    for key, value in tokens.items():
        given = key if by_key else value
        if not str(given).isdecimal() or int(given) > _MAX_TOKEN_ID:
            raise CheckpointError(
                f"{where}: the added token {show(value if by_key else key)} has the id {show(given)},"
                f" which is no number up to {_MAX_TOKEN_ID:,}",
                hint="copy the tokenizer's files anew from where the checkpoint came from",
            )


def _check_tables(where: str, document: Any) -> None:
    for table in _precompiled_tables(document):
        if not _is_whole(table):
            raise CheckpointError(
                f"{where}: precompiled_charsmap is {show(table)}, which is cut short or damaged",
                hint="copy the tokenizer's files anew from where the checkpoint came from",
            )


def _check_dropout(where: str, model: Any) -> None:
    dropout = model.get("dropout") if isinstance(model, dict) else None
    if dropout:
        raise CheckpointError(
            f"{where}: model.dropout is {show(dropout)}: merges are left out at random, so that a text has other tokens"
            " each time",
            hint='write "dropout": null there: the vocabulary is the same, and a text has the same tokens each time',
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
