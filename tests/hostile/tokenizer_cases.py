"""Tokenizer files: parsed by other libraries, on first use, after the model has loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hostile.case import Case, Change, refusals
from hostile.changes import config, file
from hostile.draft import Draft
from hostile.good import tokenizer_files

refused = refusals("tokenizer", call="tokenizer", peer="AutoTokenizer")
T, TC = "tokenizer.json", "tokenizer_config.json"
_ANY = "CheckpointError FormatError TrustError StorageError MetadataError"


def _settings(**keys: Any) -> Change:
    def change(draft: Draft) -> None:
        found = json.loads(draft.files[TC] or b"{}")
        draft.files[TC] = json.dumps({**found, **keys}).encode()

    return change


def _document(**keys: Any) -> Change:
    def change(draft: Draft) -> None:
        found = json.loads(draft.files[T] or b"{}")
        draft.files[T] = json.dumps({**found, **keys}).encode()

    return change


def _dropout(draft: Draft) -> None:
    found = json.loads(draft.files[T] or b"{}")
    draft.files[T] = json.dumps({**found, "model": {**found["model"], "dropout": 0.1}}).encode()


def _outside(name: str) -> Change:
    """Put a good tokenizer where none may be read from."""

    def put(directory: Path, data: bytes) -> None:
        (directory.parent / "outside").mkdir()
        (directory.parent / "outside" / name).write_bytes(data)

    def change(draft: Draft) -> None:
        data = draft.files[T] or b""
        draft.after.append(lambda directory: put(directory, data))

    return change


def _case(sentence: str, naming: str | tuple[str, ...], *changes: Change, **how: Any) -> Case:
    return refused(sentence, _ANY, naming, tokenizer_files, *changes, **how)


def _linked_template(directory: Path) -> None:
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "leak.jinja").symlink_to("/etc/hosts")


def _special_tokens(**keys: Any) -> Change:
    return file("special_tokens_map.json", json.dumps({"eos_token": "</s>", **keys}).encode())


CASES = [
    _case("merges that are left out at random", (T, "model.dropout is 0.1"), _dropout),
    *(
        _case(f"a tokenizer class in config.json that is {kind}", "config.json", config(tokenizer_class=kind))
        for kind in ("AutoProcessor", "AutoModelForCausalLM", "AutoTokenizer", "RagTokenizer")
    ),
    *(
        _case(f"special tokens that set {key}", "special_tokens_map.json", _outside(T), _special_tokens(**{key: value}))
        for key, value in (
            ("vocab_file", "../outside/tokenizer.json"),
            ("tokenizer_file", "../outside/tokenizer.json"),
            ("is_local", False),
            ("name_or_path", "someone/model"),
        )
    ),
    _case(
        "an added token at the end of a long way",
        TC,
        _settings(added_tokens_decoder={"500000000": {"content": "<far>"}}),
        peer=None,
    ),
    _case(
        "a chat template that leads outside",
        "additional_chat_templates/leak.jinja",
        lambda d: d.after.append(_linked_template),
        peer=None,
    ),
    _case("a tokenizer that is an error page", T, file(T, b"<html>404</html>")),
    _case("a tokenizer that is a list", T, file(T, b"[]")),
    _case("a tokenizer without a model", T, _document(model=None)),
    _case("a tokenizer of an unknown model", T, _document(model={"type": "Evil"})),
    _case(
        "a tokenizer with ids beyond all numbers",
        T,
        _document(model={"type": "WordLevel", "vocab": {"a": 10**18}, "unk_token": "a"}),
    ),
    _case(
        "a tokenizer with ids below nothing",
        T,
        _document(model={"type": "WordLevel", "vocab": {"a": -1}, "unk_token": "a"}),
    ),
    _case(
        "a tokenizer with a normalizer of garbage",
        T,
        _document(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    ),
    _case(
        "a tokenizer with a normalizer of a longer garbage",
        T,
        _document(normalizer={"type": "Precompiled", "precompiled_charsmap": "/////w" + "A" * 400}),
    ),
    _case(
        "a tokenizer with a pattern that does not compile",
        T,
        _document(
            pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 100}, "behavior": "Isolated", "invert": False}
        ),
    ),
    _case(
        "a tokenizer with merges of tokens that are not there",
        T,
        _document(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}),
    ),
    _case("a tokenizer cut in the middle", T, lambda d: d.files.update({T: (d.files[T] or b"")[:100]})),
    _case(
        "a tokenizer that names a key twice",
        T,
        lambda d: d.files.update({T: b'{"version": "2.0", ' + (d.files[T] or b"")[1:]}),
    ),
    _case(
        "a tokenizer class that does not exist",
        TC,
        _settings(tokenizer_class="EvilTokenizer"),
        file(T, None),
        file("vocab.txt", b"a\nb\n"),
    ),
    _case(
        "a tokenizer class that is a model",
        TC,
        _settings(tokenizer_class="LlamaForCausalLM"),
        file(T, None),
        file("vocab.txt", b"a\nb\n"),
    ),
    _case("a tokenizer class that is a path", TC, _settings(tokenizer_class="os.system")),
    _case("a tokenizer class that is a number", TC, _settings(tokenizer_class=7)),
    _case("added tokens that are no tokens", TC, _settings(added_tokens_decoder={"x": "y"})),
    _case("special tokens that are a number", TC, _settings(unk_token=7)),
    _case(
        "a chosen file by version outside the checkpoint",
        TC,
        _outside("tokenizer.4.0.0.json"),
        _settings(fast_tokenizer_files=["tokenizer.json", "../outside/tokenizer.4.0.0.json"]),
    ),
    _case(
        "a file of the tokenizer named outside the checkpoint",
        TC,
        _outside(T),
        _settings(tokenizer_file="../outside/tokenizer.json"),
        file(T, None),
        file("vocab.txt", b"a\nb\n"),
    ),
    _case(
        "a vocabulary that is binary",
        "vocab",
        file(T, None),
        file("vocab.json", b"\xff\xfe\x00"),
        file("merges.txt", b"\xff"),
    ),
    _case("special tokens in a list", "special_tokens_map.json", file("special_tokens_map.json", b"[]")),
    refused(
        "a tokenizer to be validated that is a list",
        "CheckpointError",
        T,
        tokenizer_files,
        file(T, b"[]"),
        call="validate",
        peer=None,
    ),
    refused(
        "a tokenizer to be validated without added tokens",
        "CheckpointError",
        T,
        tokenizer_files,
        _document(added_tokens=None),
        call="validate",
        peer=None,
    ),
    refused(
        "a tokenizer to be validated whose merges are numbers",
        "CheckpointError",
        T,
        tokenizer_files,
        _document(model={"vocab": {}, "merges": [1]}),
        call="validate",
        peer=None,
    ),
    refused(
        "a tokenizer to be validated whose words are nested",
        "CheckpointError",
        T,
        tokenizer_files,
        _document(model={"vocab": [[["\x1b[2J"], 1, 2]]}),
        call="validate",
        peer=None,
    ),
]
