"""What is called on a case, inside the process that was forked for it, and what is said of it afterwards."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import transformers

import wmtp
from hostile.tree import everything_below

_SEARCHED_BYTES = 8 << 20
UNIT = 1_000_000  # additions in Python


def _load(uri: str, keywords: dict[str, Any]) -> Any:
    return wmtp.load(uri, **keywords).model


def _load_tokenizer(uri: str, keywords: dict[str, Any]) -> None:
    assert wmtp.load(uri, **keywords).tokenizer is not None


def _validate(uri: str, keywords: dict[str, Any]) -> None:
    from wmtp.checkpoint.contents import open_checkpoint
    from wmtp.checkpoint.tokenizer import verify_tokenizer
    from wmtp.comparison.deep import verify_bytes

    checkpoint = open_checkpoint(uri, **keywords)
    verify_tokenizer(checkpoint.store, checkpoint.metadata, checkpoint.config)
    verify_bytes(checkpoint)


def _print_receipt(uri: str, keywords: dict[str, Any]) -> None:
    result = wmtp.load(uri, **keywords)
    raise Summary("\n".join([*result.plan.summary(), *result.receipt.summary()]))


def _run_command(uri: str, keywords: dict[str, Any]) -> None:
    from wmtp.cli.main import main

    said, code = io.StringIO(), None
    sys.argv = ["wmtp", *(word.replace("{uri}", uri) for word in keywords["words"])]
    try:
        with redirect_stdout(said), redirect_stderr(said):
            main()
    except SystemExit as end:
        code = end.code
    raise Summary(f"{said.getvalue()}exit status {code}")


def _load_while_changing(uri: str, keywords: dict[str, Any]) -> Any:
    """Prove a plan, then let a co-tenant change a file before it is read; all is put back afterwards."""
    from wmtp.loaders.base import execute, prepare
    from wmtp.settings.loading import LoadOptions

    prepared = prepare(uri, LoadOptions(mmap=keywords["mmap"], lock=keywords.get("lock")))
    path, aside, times = Path(uri, keywords["file"]), Path(uri, "aside"), Path(uri).stat()
    path.rename(aside)
    try:
        _CHANGES[keywords["change"]](path, aside)
        return execute(prepared).model
    finally:
        _remove(path)
        aside.rename(path)
        os.utime(uri, ns=(times.st_atime_ns, times.st_mtime_ns))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


_CHANGES: dict[str, Callable[[Path, Path], Any]] = {
    "removed": lambda _, __: None,
    "cut": lambda path, aside: path.write_bytes(aside.read_bytes()[:3000]),
    "emptied": lambda path, _: path.touch(),
    "turned": lambda path, aside: path.write_bytes(aside.read_bytes()[:-64] + aside.read_bytes()[:-65:-1]),
    "a pipe": lambda path, _: os.mkfifo(path),
    "a directory": lambda path, _: path.mkdir(),
    "a link out": lambda path, _: path.symlink_to("/etc/hosts"),
}


def _from_pretrained(uri: str, keywords: dict[str, Any]) -> Any:
    transformers.utils.logging.disable_progress_bar()
    found = getattr(transformers, keywords.pop("peer")).from_pretrained(uri, **keywords)
    return found if isinstance(found, torch.nn.Module) else None


class Summary(Exception):
    """Carries what a person is shown of a load that went well, to be held to the rules for errors."""


def _hang(uri: str, keywords: dict[str, Any]) -> None:
    while True:
        time.sleep(1)


def _unit(uri: str, keywords: dict[str, Any]) -> None:
    sum(n for n in range(UNIT))


def _burn(uri: str, keywords: dict[str, Any]) -> None:
    for _ in range(keywords["units"]):
        _unit(uri, keywords)
    wmtp.load(uri)


def _eat(uri: str, keywords: dict[str, Any]) -> None:
    eaten = bytearray(keywords["num_bytes"])
    eaten[::4096] = b"x" * len(eaten[::4096])
    wmtp.load(uri)


def _write_then_load(uri: str, keywords: dict[str, Any]) -> None:
    Path(keywords["path"]).write_text("x")
    wmtp.load(uri)


def _read_then_load(uri: str, keywords: dict[str, Any]) -> None:
    Path(keywords["path"]).read_text()
    wmtp.load(uri)


def _print_then_load(uri: str, keywords: dict[str, Any]) -> None:
    print("hello")  # noqa: T201
    wmtp.load(uri)


def _raise(uri: str, keywords: dict[str, Any]) -> None:
    raise {"SystemExit": SystemExit, "KeyError": KeyError}[keywords["error"]](keywords["text"])


def _refuse(uri: str, keywords: dict[str, Any]) -> None:
    raise wmtp.WmtpError(keywords["problem"], keywords["hint"])


def _crash(uri: str, keywords: dict[str, Any]) -> None:
    import ctypes

    ctypes.string_at(0)


def _meddle(uri: str, keywords: dict[str, Any]) -> None:
    torch.set_default_dtype(torch.float64)
    wmtp.load(uri)


def _invent(uri: str, keywords: dict[str, Any]) -> Any:
    return torch.nn.Linear(3, 4, bias=False)


CALLS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "load": _load,
    "tokenizer": _load_tokenizer,
    "validate": _validate,
    "receipt": _print_receipt,
    "command": _run_command,
    "changing": _load_while_changing,
    "metadata": lambda uri, keywords: wmtp.load_metadata(uri, **keywords) and None,
    "from_pretrained": _from_pretrained,
    "unit": _unit,
    # What a runner must notice.
    "hang": _hang,
    "burn": _burn,
    "eat": _eat,
    "write": _write_then_load,
    "read": _read_then_load,
    "print": _print_then_load,
    "raise": _raise,
    "refuse": _refuse,
    "crash": _crash,
    "meddle": _meddle,
    "invent": _invent,
}


def parameters_of(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a state dict would hold, read from the modules: a class may override what tells of them."""
    for start, module in torch.nn.Module.named_modules(model):
        held = {**module._parameters, **module._buffers}
        for name, tensor in held.items():
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield f"{start}.{name}" if start else name, tensor.detach()


def account_of(model: Any, inside: Path, outside: Path) -> dict[str, Any]:
    """Say of each parameter what it holds, and whether those bytes stand in the checkpoint or beside it."""
    own, foreign = _bytes_below(inside), _bytes_below(outside)
    digests, homeless, from_outside = {}, [], []
    for name, tensor in parameters_of(model):
        if tensor.is_meta:
            homeless.append(name)
            continue
        forms = list(_forms(tensor))
        digests[name] = hashlib.sha256(forms[0]).hexdigest()
        if tensor.numel() and not any(form in own for form in forms):
            homeless.append(name)
            if any(form in foreign for form in forms):
                from_outside.append(name)
    return {"parameters": digests, "homeless": homeless, "from_outside": from_outside}


def _forms(tensor: torch.Tensor) -> Iterator[bytes]:
    dtypes = [tensor.dtype, *(torch.bfloat16, torch.float16, torch.float32, torch.float64)]
    for dtype in dtypes if tensor.is_floating_point() else dtypes[:1]:
        yield tensor.to(dtype).contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _bytes_below(directory: Path) -> bytes:
    found = everything_below(directory) if directory.is_dir() else []
    paths = [path for path in found if path.is_file() and not path.is_symlink()]
    return b"".join(path.read_bytes() for path in paths if path.stat().st_size <= _SEARCHED_BYTES)
