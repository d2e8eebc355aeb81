"""Files under the name of safetensors that are something else, are damaged, or lie about themselves."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from hostile.case import CAUSAL, Change, refusals
from hostile.changes import file, weights
from hostile.draft import WEIGHTS, WIDTH, Draft, container, header_of, safetensors

refused = refusals("containers", peer=CAUSAL)
NORM = "model.norm.weight"
_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
_PAGE = b"<!DOCTYPE html>\n<html><head><title>401</title></head><body>Sign in to download this file</body></html>\n"
_S3_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>' + b" " * 64
_GGUF = b"GGUF\x03\0\0\0" + b"\x02\0\0\0\0\0\0\0" * 9
_NUMPY = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }" + b" " * 60 + b"\n"
_HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 88
_GZIP = b"\x1f\x8b\x08\x00" + b"\x11" * 90
_ELF = b"\x7fELF\x02\x01\x01" + b"\0" * 90


def _archive() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        archive.writestr("archive/version", b"3\n")
    return held.getvalue()


def _bytes(edit: Any) -> Change:
    return lambda draft: draft.files.update({WEIGHTS: edit(safetensors(draft.tensors))})


def _sparse(size: int, start: bytes) -> Change:
    def cut(directory: Any) -> None:
        with (directory / WEIGHTS).open("wb") as stream:
            stream.write(start)
            stream.truncate(size)  # a hole: no disk is used

    return lambda draft: draft.after.append(cut)


def _foreign(what: str, shown: str, data: bytes) -> Any:
    return refused(what, "FormatError", (WEIGHTS, shown), weights(data))


def _larger_than_memory(dtype: str) -> Change:
    """A vocabulary that agrees with a file of some gigabytes, which is nothing but a hole."""
    rows = 60_000_000

    def change(draft: Draft) -> None:
        draft.config["vocab_size"] = rows
        header, end = header_of(draft.tensors), 0
        for name, entry in header.items():
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                entry |= {"dtype": dtype, "shape": [rows, WIDTH]}
            length = {"F32": 4, "BF16": 2}[entry["dtype"]]
            for size in entry["shape"]:
                length *= size
            entry["data_offsets"] = [end, end + length]
            end += length
        start = container(header)
        _sparse(len(start) + end, start)(draft)

    return change


CASES = [
    _foreign("a pointer of Git LFS", "Git LFS pointer", _POINTER),
    _foreign("a pointer of Git LFS behind a byte order mark", "Git LFS pointer", b"\xef\xbb\xbf" + _POINTER),
    _foreign("a page that asks to sign in", "HTML or XML page", _PAGE),
    _foreign("an error of an object store", "HTML or XML page", _S3_ERROR),
    _foreign("an archive", "zip archive", _archive()),
    _foreign("a pickle by its first byte", "Python pickle", b"\x80\x04\x95" + b"\0" * 90),
    _foreign("a GGUF file", "GGUF file", _GGUF),
    _foreign("zeros", "zeros", b"\0" * 4096),
    _foreign("an array of numpy", "claims", _NUMPY),
    _foreign("a file of Keras", "claims", _HDF5),
    _foreign("a compressed file", "claims", _GZIP),
    _foreign("a program", "claims", _ELF),
    _foreign("an empty file", "0", b""),
    _foreign("seven bytes", "7", b"\x02\0\0\0\0\0\0"),
    _foreign("a length and nothing else", "8", b"\x02\0\0\0\0\0\0\0"),
    _foreign(
        "an error in JSON", WEIGHTS, b'{"error": "Entry not found", "status": 404, "message": "no such revision"}'
    ),
    refused(
        "a header larger than allowed",
        "FormatError",
        (WEIGHTS, "100,000,001"),
        _sparse(200_000_000, (100_000_001).to_bytes(8, "little") + b"{"),
    ),
    refused(
        "a header of nothing but a hole",
        "FormatError",
        (WEIGHTS, "header"),
        _sparse(60_000_000, (50_000_000).to_bytes(8, "little") + b'{"a'),
    ),
    refused(
        "a header of brackets without end",
        "FormatError",
        (WEIGHTS, "nested deeper"),
        weights(container(b'{"a":' + b"[" * 500_000)),
    ),
    refused(
        "a header of one endless name",
        "FormatError",
        (WEIGHTS, "512"),
        weights(container(b'{"' + b"x" * 20_000_000 + b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}')),
    ),
    refused(
        "a header of quotes and backslashes",
        "FormatError",
        (WEIGHTS, "JSON"),
        weights(container(b'{"' + b'\\"' * 5_000_000)),
    ),
    refused(
        "a file cut after its header",
        "FormatError",
        (WEIGHTS, "cut short"),
        _bytes(lambda b: b[: 8 + int.from_bytes(b[:8], "little")]),
    ),
    refused("a file cut within its header", "FormatError", WEIGHTS, _bytes(lambda b: b[:100])),
    refused("a file without its last byte", "FormatError", (WEIGHTS, "cut short"), _bytes(lambda b: b[:-1])),
    refused("a file with a byte appended", "FormatError", (WEIGHTS, "appended"), _bytes(lambda b: b + b"\0")),
    refused("a file with an archive appended", "FormatError", (WEIGHTS, "appended"), _bytes(lambda b: b + _archive())),
    refused("a file twice in one", "FormatError", (WEIGHTS, "appended"), _bytes(lambda b: b + b)),
    refused("no weights at all", "NotFoundError FormatError", WEIGHTS, file(WEIGHTS, None)),
    refused(
        "a file larger than memory", "StorageError CheckpointError", WEIGHTS, _larger_than_memory("F32"), peer=None
    ),
    refused(
        "a file larger than memory once it is cast",
        "StorageError CheckpointError",
        WEIGHTS,
        _larger_than_memory("BF16"),
        keywords={"dtype": "float32"},
        peer=None,
    ),
]
