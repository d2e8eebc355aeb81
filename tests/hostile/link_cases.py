"""What stands in a directory that is no regular file: links out of it, pipes, directories, sockets."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.bases import llama, own
from hostile.case import CAUSAL, Case, Change, refusals
from hostile.changes import index
from hostile.draft import INDEX, WEIGHTS, Draft, sharded
from hostile.good import tokenizer_files

refused = refusals("links", peer=CAUSAL)
M, C = "metadata.json", "config.json"
SECOND = "model-00002-of-00002.safetensors"
OUT = "outside the checkpoint"


def after(step: Callable[[Path], Any]) -> Change:
    """Do something to the directory when it is written."""
    return lambda draft: draft.after.append(step)


def moved_out(name: str, *, to: str = "outside", absolute: bool = False) -> Change:
    """Leave a link in place of a file, which itself goes outside."""

    def step(directory: Path) -> None:
        outside = directory.parent / to
        outside.mkdir(exist_ok=True)
        (directory / name).rename(outside / name)
        (directory / name).symlink_to(outside / name if absolute else f"../{to}/{name}")

    return after(step)


def linked(name: str, target: str) -> Change:
    """Put a link in place of a file."""

    def step(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(target)

    return after(step)


def _instead(name: str, make: Callable[[Path], Any]) -> Change:
    def step(directory: Path) -> None:
        (directory / name).unlink()
        make(directory / name)

    return after(step)


def _socket(path: Path) -> None:
    # The path of a socket has at most a hundred characters: it is made in a short place, and moved.
    with tempfile.TemporaryDirectory(dir="/tmp") as short, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{short}/s")
        Path(short, "s").rename(path)


def _chain(directory: Path) -> None:
    (directory / "a").symlink_to("b")
    (directory / "b").symlink_to("../outside/model.safetensors")


def _shards_below_a_link(draft: Draft) -> None:
    found = sharded(draft, ("model-00001-of-00002.safetensors", "second.safetensors"))
    data = draft.files.pop("second.safetensors") or b""
    text = json.dumps(found).replace('"second.safetensors"', '"sub/second.safetensors"')
    draft.files[INDEX] = text.encode()

    def step(directory: Path) -> None:
        (directory.parent / "outside").mkdir()
        (directory.parent / "outside" / "second.safetensors").write_bytes(data)
        (directory / "sub").symlink_to("../outside")

    draft.after.append(step)


def _sibling_with_our_prefix(directory: Path) -> None:
    sibling = directory.parent / f"{directory.name}-outside"
    sibling.mkdir()
    (directory / WEIGHTS).rename(sibling / WEIGHTS)
    (directory / WEIGHTS).symlink_to(f"../{sibling.name}/{WEIGHTS}")


def _deep(directory: Path) -> None:
    path = directory
    for _ in range(1500):
        path = path / "d"
        path.mkdir()


def _link_out(name: str, change: Change | None = None, base: Callable[[], Draft] = llama, **how: Any) -> Case:
    changes = (change, moved_out(name)) if change else (moved_out(name),)
    return refused(f"{name} that links out", "StorageError", (name, OUT, "allow_symlinks"), *changes, base=base, **how)


def _not_a_file(
    what: str, make: Callable[[Path], Any], name: str, base: Callable[[], Draft] = llama, **how: Any
) -> Case:
    errors = "StorageError NotFoundError FormatError CheckpointError"
    return refused(f"{what} in place of {name}", errors, name, _instead(name, make), base=base, **how)


CASES = [
    _link_out(M, peer=None),
    _link_out(C),
    _link_out(WEIGHTS),
    _link_out(SECOND, index()),
    _link_out(INDEX, index()),
    _link_out("tokenizer_config.json", tokenizer_files, peer="AutoTokenizer"),
    _link_out("tokenizer.json", tokenizer_files, call="tokenizer", peer=None),
    _link_out("generation_config.json", lambda d: d.files.update({"generation_config.json": b"{}"})),
    _link_out("modeling.py", base=own, peer=None, keywords={"allow_code": {"modeling.py": "sha256:" + "0" * 64}}),
    refused("weights that link to an absolute path", "StorageError", (WEIGHTS, OUT), moved_out(WEIGHTS, absolute=True)),
    refused(
        "weights by a chain of links that leads out",
        "StorageError",
        (WEIGHTS, OUT),
        moved_out(WEIGHTS),
        after(_chain),
        linked(WEIGHTS, "a"),
    ),
    refused("shards below a linked directory", "StorageError", ("sub/second.safetensors", OUT), _shards_below_a_link),
    refused(
        "weights in a directory whose name begins with ours",
        "StorageError",
        (WEIGHTS, OUT),
        after(_sibling_with_our_prefix),
    ),
    refused("a configuration that links to a file of the system", "StorageError", (C, OUT), linked(C, "/etc/hosts")),
    refused(
        "a configuration that links to the environment",
        "StorageError NotFoundError",
        C,
        linked(C, "/proc/self/environ"),
    ),
    refused(
        "a configuration that links to endless zeros",
        "StorageError",
        (C, "regular file|outside"),
        linked(C, "/dev/zero"),
    ),
    refused(
        "endless zeros where links are allowed",
        "StorageError",
        (C, "not a regular file"),
        linked(C, "/dev/zero"),
        keywords={"allow_symlinks": True},
        peer=None,
    ),
    refused(
        "weights that link to endless chance",
        "StorageError FormatError NotFoundError",
        (WEIGHTS,),
        linked(WEIGHTS, "/dev/urandom"),
    ),
    refused("a link to nothing", "NotFoundError StorageError", C, linked(C, "absent.json")),
    refused(
        "weights that link to nothing", "NotFoundError StorageError", WEIGHTS, linked(WEIGHTS, "absent.safetensors")
    ),
    refused("a link to itself", "StorageError NotFoundError", C, linked(C, C)),
    refused(
        "two links to each other", "StorageError NotFoundError", M, linked(M, "other"), linked("other", M), peer=None
    ),
    refused(
        "a link with a terminal escape for a target",
        "StorageError",
        (C, OUT, "\\x1b"),
        after(lambda p: (p.parent / "outside\x1b[2J").write_text("{}")),
        linked(C, "../outside\x1b[2J"),
    ),
    *[_not_a_file("a pipe", os.mkfifo, name) for name in (C, WEIGHTS)],
    _not_a_file("a pipe", os.mkfifo, M, peer=None),
    _not_a_file(
        "a pipe",
        os.mkfifo,
        "modeling.py",
        base=own,
        peer=None,
        keywords={"allow_code": {"modeling.py": "sha256:" + "0" * 64}},
    ),
    *[_not_a_file("a directory", Path.mkdir, name) for name in (C, WEIGHTS)],
    _not_a_file("a directory", Path.mkdir, M, peer=None),
    _not_a_file("a socket", _socket, WEIGHTS),
    refused(
        "a pipe among the shards",
        "StorageError NotFoundError FormatError",
        SECOND,
        index(),
        _instead(SECOND, os.mkfifo),
    ),
    refused(
        "a pipe for the tokenizer settings",
        "StorageError CheckpointError",
        "tokenizer_config.json",
        tokenizer_files,
        _instead("tokenizer_config.json", os.mkfifo),
        peer="AutoTokenizer",
    ),
    refused(
        "a directory for the generation settings",
        "StorageError CheckpointError",
        "generation_config.json",
        after(lambda p: (p / "generation_config.json").mkdir()),
    ),
    refused(
        "a file of the tokenizer that is a pipe",
        "StorageError CheckpointError",
        "tokenizer.json",
        tokenizer_files,
        _instead("tokenizer.json", os.mkfifo),
        call="tokenizer",
        peer=None,
    ),
]


def _loads(sentence: str, *changes: Change, **how: Any) -> Case:
    return refusals("links", peer=CAUSAL)(sentence, "", "", *changes, **how)


CASES += [
    _loads("a pipe that nothing names", after(lambda p: os.mkfifo(p / "log"))),
    _loads("directories nested a thousand deep", after(_deep)),
    _loads("a link out that nothing names", linked("README.md", "/etc/hosts")),
    _loads(
        "a link out that the operator allows",
        moved_out(C, to="elsewhere"),
        keywords={"allow_symlinks": True},
        peer=None,
    ),
]
