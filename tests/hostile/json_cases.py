"""JSON that is none, or says two things at once, or was made to burn time and memory."""

from __future__ import annotations

import json
from typing import Any

from hostile.case import CAUSAL, Case, Change, refusals
from hostile.changes import file, index
from hostile.draft import INDEX, Draft
from hostile.good import tokenizer_files

refused = refusals("json")
M, C = "metadata.json", "config.json"
_PEERS = {M: None, "tokenizer_config.json": "AutoTokenizer"}
_ERRORS = {M: "MetadataError", C: "CheckpointError", INDEX: "FormatError"}


def _text(draft: Draft, name: str) -> bytes:
    if (written := draft.files.get(name)) is not None:
        return written
    return json.dumps(draft.metadata if name == M else draft.config).encode()


def _edited(name: str, edit: Any) -> Change:
    return lambda draft: draft.files.update({name: edit(_text(draft, name))})


def _with(raw: bytes) -> Any:
    """Add a key with a raw value to an object."""
    return lambda text: b'{"extra": ' + raw + b", " + text[1:]


_FAULTS: dict[str, tuple[Any, str]] = {
    "with a byte order mark": (lambda t: b"\xef\xbb\xbf" + t, "byte order mark"),
    "in UTF 16": (lambda t: t.decode().encode("utf-16"), "UTF-8"),
    "in UTF 32 without a mark": (lambda t: t.decode().encode("utf-32-le"), "JSON"),
    "in Latin 1": (_with(b'{"a": "caf\xe9"}'), "UTF-8"),
    "with an overlong character": (_with(b'{"a": "\xc0\xaf"}'), "UTF-8"),
    "with a surrogate in bytes": (_with(b'{"a": "\xed\xa0\x80"}'), "UTF-8"),
    "with a lone surrogate": (_with(b'{"a": "\\ud800"}'), "surrogate in a string, at extra.a"),
    "with a lone surrogate for a key": (_with(b'{"\\udfff": 1}'), "surrogate"),
    "with a value that is no number": (_with(b'{"a": NaN}'), "NaN, which is not JSON, at extra.a"),
    "with an infinite value": (_with(b'{"a": -Infinity}'), "Infinity"),
    "with a number that overflows": (_with(b'{"a": 1e999}'), "overflows, at extra.a"),
    "with an integer of five thousand digits": (_with(b'{"a": ' + b"7" * 5000 + b"}"), "5000 digits"),
    "with an integer of half a million digits": (_with(b'{"a": ' + b"7" * 500_000 + b"}"), "digits"),
    "nested a hundred deep": (_with(b'{"a":' * 100 + b"1" + b"}" * 100), "64"),
    "nested two hundred thousand deep": (_with(b"[" * 200_000 + b"]" * 200_000), "nested|arrays"),
    "of brackets that never close": (lambda _: b"[" * 300_000, "nested|arrays"),
    "with a key that stands twice": (_with(b'{"a": 1, "a": 2}'), "'a' twice in one object, at extra.a"),
    "with a key that stands twice by an escape": (
        _with(b'{"a": 1, "\\u0061": 2}'),
        "'a' twice in one object, at extra.a",
    ),
    "with a comma too many": (_with(b'{"a": 1,}'), "JSON"),
    "with a comment": (_with(b'{"a": 1} /* trusted */'), "JSON"),
    "with single quotes": (_with(b"{'a': 1}"), "JSON"),
    "with a second document": (lambda t: t + b"\n{}", "JSON"),
    "with zeros behind": (lambda t: t + b"\0" * 16, "JSON"),
    "cut in the middle": (lambda t: t[: len(t) // 2], "JSON"),
    "with a control character in a text": (_with(b'{"a": "\x1b[31m"}'), "JSON"),
    "with a number in octal": (_with(b'{"a": 010}'), "JSON"),
    "that is a number": (lambda _: b"7", "object"),
    "that is a text": (lambda _: b'"{}"', "object"),
}
_FEW = (
    "with a byte order mark",
    "with a value that is no number",
    "with a key that stands twice by an escape",
    "cut in the middle",
    "nested a hundred deep",
)
_OTHERS = {"generation_config.json": b'{"eos_token_id": 0}', "tokenizer_config.json": None, INDEX: None}


def _case(name: str, what: str, *changes: Change) -> Case:
    edit, word = _FAULTS[what]
    sentence = f"{name} {what}"
    return refused(
        sentence,
        _ERRORS.get(name, "CheckpointError"),
        (name, word),
        *changes,
        _edited(name, edit),
        peer=_PEERS.get(name, CAUSAL),
    )


def _present(name: str) -> Change:
    if name == INDEX:
        return index()
    return tokenizer_files if name == "tokenizer_config.json" else file(name, _OTHERS[name])


CASES = [
    *[_case(name, what) for name in (M, C) for what in _FAULTS],
    *[_case(name, what, _present(name)) for name in _OTHERS for what in _FEW],
    refused("metadata of two megabytes", "StorageError", (M, "1,048,576"), _edited(M, lambda t: t + b" " * (2 << 20))),
    refused(
        "a configuration of two megabytes",
        "StorageError",
        (C, "1,048,576"),
        _edited(C, lambda t: t + b" " * (2 << 20)),
        peer=CAUSAL,
    ),
    refused("a configuration that is empty", "CheckpointError", C, file(C, b""), peer=CAUSAL),
    refused(
        "metadata of half a million empty objects",
        "MetadataError",
        M,
        _edited(M, _with(b"[" + b"{}," * 300_000 + b"1]")),
    ),
    refused(
        "a configuration of half a million quotes", "CheckpointError", C, file(C, b'{"' + b'\\"' * 500_000), peer=CAUSAL
    ),
    refused(
        "keys that all collide in older tables",
        "MetadataError",
        (M, "extras"),
        _edited(
            M, lambda t: b'{"extras": {' + b", ".join(b'"%d": 0' % (n * 2**61) for n in range(20_000)) + b"}, " + t[1:]
        ),
    ),
]
