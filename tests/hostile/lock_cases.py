"""Locks: files that changed since they were pinned, and locks that vouch for nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.bases import MODELING, llama, own
from hostile.case import Case, Change, refusals
from hostile.changes import index
from hostile.code_cases import TOUCH, neighbour
from hostile.draft import INDEX, WEIGHTS, Draft
from hostile.link_cases import after, moved_out

LOCK = "{directory}/../lock.json"
_PINNED = {"lock": LOCK}
_ZEROS = "sha256:" + "0" * 64
C, M, CODE = "config.json", "metadata.json", "modeling.py"
SHARD = "model-00002-of-00002.safetensors"
refused = refusals("locks", keywords=_PINNED)


def locked(*without: str, at: str = "../lock.json") -> Change:
    """Write a lock of every file that is there by now."""

    def step(directory: Path) -> None:
        paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name not in without)
        entries = [
            {
                "path": str(path.relative_to(directory)),
                "size": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in paths
        ]
        (directory / at).write_text(json.dumps({"files": entries}))

    return after(step)


def _rewritten(name: str, edit: Callable[[bytes], bytes]) -> Change:
    return after(lambda directory: (directory / name).write_bytes(edit((directory / name).read_bytes())))


def _with_lock(document: Any) -> Change:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return after(lambda directory: (directory.parent / "lock.json").write_bytes(data))


def _turned(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _linked_lock(directory: Path) -> None:
    (directory.parent / "lock.json").symlink_to("checkpoint/lock.json")


def _entry(**changed: Any) -> dict[str, Any]:
    return {"files": [{"path": C, "size": 3, "sha256": "0" * 64, **changed}]}


def _second_digest(directory: Path) -> None:
    path = directory.parent / "lock.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({"files": [*_entry()["files"], *found["files"]]}))


def _pinned_to(sentence: str, naming: tuple[str, ...], lock: Any, errors: str = "TrustError") -> Case:
    return refused(sentence, errors, naming, keywords={"lock": lock})


def _changed_later(change: str, mmap: bool) -> Case:
    return refused(
        f"pinned weights that are {change} after the plan {'mapped' if mmap else 'copied'}",
        "IntegrityError StorageError NotFoundError",
        WEIGHTS,
        locked(),
        call="changing",
        keywords={"file": WEIGHTS, "change": change, "mmap": mmap, "lock": LOCK},
    )


CASES = [
    refused(
        "pinned weights with one bit turned",
        "IntegrityError",
        (WEIGHTS, "sha256:"),
        locked(),
        _rewritten(WEIGHTS, _turned),
    ),
    refused(
        "a pinned configuration that says the same in other bytes",
        "IntegrityError",
        (C, "sha256:"),
        locked(),
        _rewritten(C, lambda data: data + b"\n"),
    ),
    refused(
        "pinned metadata that lost a newline",
        "IntegrityError",
        (M, "sha256:"),
        locked(),
        _rewritten(M, lambda data: data.replace(b"\n", b"")),
    ),
    refused(
        "a pinned shard with one bit turned",
        "IntegrityError",
        (SHARD, "sha256:"),
        index(),
        locked(),
        _rewritten(SHARD, _turned),
    ),
    refused(
        "a pinned index with other bytes",
        "IntegrityError",
        (INDEX, "sha256:"),
        index(),
        locked(),
        _rewritten(INDEX, lambda data: data + b" "),
    ),
    refused(
        "a pinned file that is gone",
        "IntegrityError",
        "README.md",
        lambda d: d.files.update({"README.md": b"x"}),
        locked(),
        after(lambda p: (p / "README.md").unlink()),
    ),
    refused(
        "settings added since the lock",
        "IntegrityError",
        ("generation_config.json", "not in the lock"),
        locked(),
        after(lambda p: (p / "generation_config.json").write_text("{}")),
    ),
    refused("weights that the lock leaves out", "IntegrityError", (WEIGHTS, "not in the lock"), locked(WEIGHTS)),
    refused(
        "pinned weights behind a link out",
        "StorageError",
        (WEIGHTS, "outside the checkpoint"),
        locked(),
        moved_out(WEIGHTS),
    ),
    refused(
        "pinned code that nobody agreed to run",
        "TrustError",
        (CODE, "nobody agreed"),
        neighbour(CODE, TOUCH + MODELING),
        locked(),
        base=own,
    ),
    refused(
        "pinned code that changed after somebody agreed",
        "IntegrityError TrustError",
        (CODE, "sha256:"),
        locked(),
        _rewritten(CODE, lambda data: data + b"\n"),
        base=own,
        consent=(CODE,),
    ),
    refused(
        "a lock that lies in the checkpoint",
        "TrustError",
        ("lock.json", "vouch for itself"),
        locked(at="lock.json"),
        keywords={"lock": "{directory}/lock.json"},
    ),
    refused(
        "a lock that is a link into the checkpoint",
        "TrustError",
        ("lock.json", "vouch for itself"),
        locked(at="lock.json"),
        after(_linked_lock),
    ),
    refused("no lock where one is named", "NotFoundError", "lock.json"),
    refused(
        "a lock that is a pipe",
        "NotFoundError StorageError IntegrityError TrustError",
        "lock.json",
        after(lambda p: os.mkfifo(p.parent / "lock.json")),
    ),
    refused(
        "a lock that is a directory",
        "NotFoundError StorageError IntegrityError TrustError",
        "lock.json",
        after(lambda p: (p.parent / "lock.json").mkdir()),
    ),
    refused(
        "a lock that is no JSON",
        "IntegrityError TrustError",
        ("lock.json", "JSON"),
        _with_lock(b"sha256:00  config.json\n"),
    ),
    refused("a lock of nothing", "IntegrityError TrustError", M, _with_lock({"files": []})),
    refused("a lock without files", "IntegrityError TrustError", ("lock.json", "files"), _with_lock({})),
    refused(
        "a lock that names a file outside",
        "IntegrityError TrustError",
        ("lock.json", "'..'"),
        _with_lock(_entry(path="../outside")),
    ),
    refused(
        "a lock with a digest in capitals",
        "IntegrityError TrustError",
        ("lock.json", "sha256"),
        _with_lock(_entry(sha256="AB" * 32)),
    ),
    refused(
        "a lock with a key that stands twice",
        "IntegrityError TrustError",
        ("lock.json", "twice"),
        _with_lock(b'{"files": [], "files": []}'),
    ),
    refused(
        "a lock with terminal escapes",
        "IntegrityError TrustError",
        ("lock.json", "\\x1b"),
        _with_lock({"\x1b[2J": 1, "files": []}),
    ),
    refused(
        "a lock that pins one file to two digests",
        "IntegrityError TrustError",
        ("lock.json", "config.json"),
        locked(),
        after(_second_digest),
    ),
    _pinned_to("a file pinned to another digest", (C, "sha256:000"), {C: _ZEROS}, "IntegrityError"),
    _pinned_to("a file pinned to no digest", (C, "'sha256:zz'"), {C: "sha256:zz"}),
    _pinned_to("a file pinned to true", (C, "true"), {C: True}),
    _pinned_to("a file pinned that is not there", ("absent.json",), {"absent.json": _ZEROS}, "IntegrityError"),
    _pinned_to(
        "a file pinned that lies outside", ("'..'",), {"../outside": _ZEROS}, "TrustError StorageError IntegrityError"
    ),
    _pinned_to("a lock that is true", ("lock",), True),
    *[_changed_later(change, mmap) for change in ("turned", "cut", "removed") for mmap in (True, False)],
]


def _loads(sentence: str, *changes: Change, base: Callable[[], Draft] = llama, **how: Any) -> Case:
    return refusals("locks", base=base, keywords=_PINNED)(sentence, "", "", *changes, **how)


CASES += [
    _loads("a checkpoint as it was pinned", locked()),
    _loads("shards as they were pinned", index(), locked()),
    _loads("code as it was pinned and agreed to", locked(), base=own, consent=(CODE,)),
    _loads("another file beside what was pinned", locked(), after(lambda p: (p / "NOTES.md").write_text("x"))),
]
