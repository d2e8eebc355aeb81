"""Headers of safetensors files that lie about the bytes behind them."""

from __future__ import annotations

import json
from typing import Any

from hostile.case import Change
from hostile.container_cases import NORM, refused
from hostile.draft import WEIGHTS, WIDTH, Draft, container, header_of


def _header(edit: Any) -> Change:
    """Edit the header of the good file; the bytes behind it stay."""

    def change(draft: Draft) -> None:
        header = header_of(draft.tensors)
        edited = edit(header)
        draft.files[WEIGHTS] = container(header if edited is None else edited, _data(draft))

    return change


def _entry(**fields: Any) -> Change:
    return _header(lambda header: header[NORM].update(fields))


def _data(draft: Draft) -> bytes:
    return b"".join(tensor.data for tensor in draft.tensors.values())


def _claimed(length: int) -> Change:
    return lambda draft: draft.files.update({WEIGHTS: container(header_of(draft.tensors), _data(draft), length=length)})


def _shifted(draft: Draft) -> None:
    header = header_of(draft.tensors)
    for entry in header.values():
        entry["data_offsets"] = [place + 4 for place in entry["data_offsets"]]
    draft.files[WEIGHTS] = container(header, b"\0\0\0\0" + _data(draft))


def _overlapping(draft: Draft) -> None:
    header = header_of(draft.tensors)
    header[NORM]["data_offsets"] = [0, 4 * WIDTH]
    draft.files[WEIGHTS] = container(header, _data(draft))


def _twins(draft: Draft, name: bytes = NORM.encode()) -> None:
    text = json.dumps(header_of(draft.tensors)).encode()
    twin = b'"' + name + b'": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}'
    draft.files[WEIGHTS] = container(text[:-1] + b", " + twin + b"}", _data(draft))


CASES = [
    refused(
        "a length of the header that overflows",
        "FormatError",
        (WEIGHTS, "18,446,744,073,709,551,615"),
        _claimed((1 << 64) - 1),
    ),
    refused(
        "a length of the header that is negative when signed",
        "FormatError",
        (WEIGHTS, "9,223,372,036,854,775,808"),
        _claimed(1 << 63),
    ),
    refused("a length of the header past the end", "FormatError", (WEIGHTS, "1,000,000"), _claimed(1_000_000)),
    refused(
        "a length of the header that is one short",
        "FormatError",
        WEIGHTS,
        lambda d: _claimed(len(json.dumps(header_of(d.tensors), separators=(",", ":"))) - 1)(d),
    ),
    refused(
        "a length of the header that is one more",
        "FormatError",
        WEIGHTS,
        lambda d: _claimed(len(json.dumps(header_of(d.tensors), separators=(",", ":"))) + 1)(d),
    ),
    refused("a shape of a million sizes", "FormatError", (WEIGHTS, NORM, "shape"), _entry(shape=[1] * 1_000_000)),
    refused(
        "a shape whose product overflows to the right size",
        "FormatError",
        (WEIGHTS, NORM, "[4611686018427387904, 8, 4]"),
        _entry(shape=[1 << 62, 8, 4]),
    ),
    refused("a shape below nothing", "FormatError", (WEIGHTS, NORM, "shape"), _entry(shape=[-8])),
    refused("a shape of two negatives", "FormatError", (WEIGHTS, NORM, "shape"), _entry(shape=[-2, -4])),
    refused("a shape of true", "FormatError", (WEIGHTS, NORM, "shape"), _entry(shape=[8, True])),
    refused("a shape of 8.0", "FormatError", (WEIGHTS, NORM, "shape"), _entry(shape=[8.0])),
    refused("a shape that is text", "FormatError", (WEIGHTS, NORM, "shape"), _entry(shape="8")),
    refused("a shape that needs more bytes than there are", "FormatError", (WEIGHTS, NORM, "bytes"), _entry(shape=[9])),
    refused("a kind of numbers that does not exist", "FormatError", (WEIGHTS, NORM, "F31"), _entry(dtype="F31")),
    refused("a type of complex numbers", "FormatError", (WEIGHTS, NORM, "C64"), _entry(dtype="C64", shape=[4])),
    refused("a type of four bits", "FormatError", (WEIGHTS, NORM, "F4"), _entry(dtype="F4", shape=[64])),
    refused(
        "offsets the wrong way round",
        "FormatError",
        (WEIGHTS, NORM),
        _header(lambda h: h[NORM]["data_offsets"].reverse()),
    ),
    refused(
        "offsets past the end of the file",
        "FormatError",
        (WEIGHTS, "hole"),
        _entry(data_offsets=[1 << 40, (1 << 40) + 32]),
    ),
    refused("offsets below nothing", "FormatError", (WEIGHTS, NORM, "data_offsets"), _entry(data_offsets=[-32, 0])),
    refused("three offsets", "FormatError", (WEIGHTS, NORM, "data_offsets"), _entry(data_offsets=[0, 32, 64])),
    refused("an entry with a field more", "FormatError", (WEIGHTS, NORM), _entry(code="import os")),
    refused("an entry that is null", "FormatError", (WEIGHTS, NORM), _header(lambda h: h.update({NORM: None}))),
    refused(
        "notes that are not text",
        "FormatError",
        (WEIGHTS, "__metadata__"),
        _header(lambda h: h.update(__metadata__={"format": 1})),
    ),
    refused(
        "notes that are a list",
        "FormatError",
        (WEIGHTS, "__metadata__"),
        _header(lambda h: h.update(__metadata__=["pt"])),
    ),
    refused("a hole before the first tensor", "FormatError", (WEIGHTS, "hole"), _shifted),
    refused("two tensors over the same bytes", "FormatError", (WEIGHTS, "overlaps"), _overlapping),
    refused(
        "a hole where a tensor was",
        "FormatError",
        (WEIGHTS, "hole"),
        _header(lambda h: h.pop("model.layers.0.mlp.up_proj.weight") and None),
    ),
    refused("a name that stands twice", "FormatError", (WEIGHTS, NORM, "twice"), _twins),
    refused(
        "a name that stands twice by an escape",
        "FormatError",
        (WEIGHTS, NORM, "twice"),
        lambda d: _twins(d, rb"model.\u006eorm.weight"),
    ),
    refused("a header that is a list", "FormatError", (WEIGHTS, "{"), _header(lambda h: [h])),
    refused(
        "a header with a space in front",
        "FormatError",
        (WEIGHTS, "{"),
        _header(lambda h: b" " + json.dumps(h).encode()),
    ),
    refused(
        "a header with a byte order mark",
        "FormatError",
        (WEIGHTS, "{"),
        _header(lambda h: b"\xef\xbb\xbf" + json.dumps(h).encode()),
    ),
    refused(
        "a header with a second object behind",
        "FormatError",
        (WEIGHTS, "JSON"),
        _header(lambda h: json.dumps(h).encode() + b"{}"),
    ),
    refused(
        "a header with zeros behind",
        "FormatError",
        (WEIGHTS, "JSON"),
        _header(lambda h: json.dumps(h).encode() + b"\0" * 8),
    ),
    refused("a header in UTF 16", "FormatError", (WEIGHTS), _header(lambda h: json.dumps(h).encode("utf-16"))),
]
