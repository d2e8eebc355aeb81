"""The reader of safetensors headers against the safetensors library itself."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy
from hypothesis import event, example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open

from fuzz.documents import damaged
from fuzz.target import fuzz_target
from tensor_files import safetensors_bytes, tensor_entry
from wmtp.checkpoint.headers import read_tensors
from wmtp.checkpoint.tensors import DTYPE_BYTES, TensorInfo
from wmtp.errors import FormatError
from wmtp.storage.opening import open_store

# What wmtp refuses though the library reads it, by the words of the refusal.
STRICTER = (
    "twice in one object",
    "unprintable or longer than 512 bytes",
    "has the dtype ",
    "__metadata__ is ",
    "does not have exactly dtype, shape and data_offsets",
    "which is not a list of at most 64 sizes",
    "is not UTF-8",
    "this is ",
)
SIZES = st.sampled_from([1, 2, 3, 1, 2, 0])
names = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8) | st.sampled_from(
    ["a.weight", "b.weight", "h.0.attn.bias", 'quote"\\', "é" * 256]
)
layouts = st.dictionaries(
    names.filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(sorted(DTYPE_BYTES)), st.lists(SIZES, max_size=3)),
    max_size=4,
)
Entries = list[tuple[str, Any]]


@st.composite
def headers(draw: st.DrawFn) -> tuple[Entries, bytes]:
    """The entries of a sound header, in any order, and the data that they describe."""
    entries, end = [], 0
    for name, (dtype, shape) in draw(layouts).items():
        start, end = end, end + math.prod(shape) * DTYPE_BYTES[dtype]
        entries.append((name, tensor_entry(dtype, shape, start, end)))
    notes = draw(st.none() | st.dictionaries(st.text("abc", max_size=3), st.text("abc", max_size=3), max_size=2))
    if notes is not None:
        entries.append(("__metadata__", notes))
    data = draw(st.binary(min_size=end, max_size=end))
    return list(draw(st.permutations(entries))), data


def file_bytes(entries: Entries, data: bytes, *, padding: bytes = b"", length: int = 0) -> bytes:
    # Member by member: a dict could not repeat a name.
    members = [f"{json.dumps(name)}:{json.dumps(entry)}" for name, entry in entries]
    text = f"{{{','.join(members)}}}".encode() + padding
    return safetensors_bytes(text, data, length=max(len(text) + length, 0))


ODD_VALUES = (
    st.integers(-2, 9)
    | st.sampled_from([2**31, 2**62, 2**63 - 1, 2**63, 2**64, 10**39, -1, True, None, 1.0, "1", "F32", "BF16", "F4"])
    | st.lists(st.integers(-1, 4), max_size=3)
    | st.lists(st.sampled_from([0, 1, 2, 2**32, 2**63 - 1]), min_size=60, max_size=66)
)


@st.composite
def changed_entry(draw: st.DrawFn, entry: dict[str, Any]) -> Any:
    entry = json.loads(json.dumps(entry))
    field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "extra"]))
    held = entry.get(field)
    kind = draw(st.sampled_from(["replace", "item", "remove", "shift"]))
    if kind == "remove":
        entry.pop(field, None)
    elif kind == "item" and isinstance(held, list) and held:
        held[draw(st.integers(0, len(held) - 1))] = draw(ODD_VALUES)
    elif kind == "shift" and "data_offsets" in entry:
        by = draw(st.integers(-4, 4))
        entry["data_offsets"] = [offset + by for offset in entry["data_offsets"]]
    else:
        entry[field] = draw(ODD_VALUES)
    return draw(st.sampled_from([entry, entry, entry, held]))


@st.composite
def changed_entries(draw: st.DrawFn, entries: Entries) -> Entries:
    at, other = draw(st.integers(0, len(entries) - 1)), draw(st.integers(0, len(entries) - 1))
    name, entry = entries[at]
    odd_name = draw(st.text(max_size=4) | st.sampled_from(["", "__metadata__", "n" * 513]))
    changes = {
        "change": [(name, draw(changed_entry(entry)))],
        "drop": [],
        "alias": [(name, entry), ("alias", entries[other][1])],
        "twin": [(name, entry), (name, entries[other][1])],
        "rename": [(odd_name, entry)],
    }
    return entries[:at] + changes[draw(st.sampled_from(["change", *changes]))] + entries[at + 1 :]


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    """A sound file with one change of its structure, of its bytes, or none."""
    entries, data = draw(headers())
    kind = draw(st.sampled_from(["none", *["entries"] * 6, "padding", "data", "length", "damage"]))
    if kind == "entries" and entries:
        return file_bytes(draw(changed_entries(entries)), data)
    if kind == "padding":
        return file_bytes(entries, data, padding=draw(st.text(" \n\t\0\x0b}", max_size=9)).encode())
    if kind == "data":
        return file_bytes(entries, draw(st.sampled_from([data[: len(data) // 2], data[:-1], data + b"\0", data * 2])))
    if kind == "length":
        length = draw(st.integers(-3, 3) | st.sampled_from([-1, 1, 10**8, 2**62]))
        return file_bytes(entries, data, length=length)
    return draw(damaged(file_bytes(entries, data))) if kind == "damage" else file_bytes(entries, data)


@fuzz_target()
@given(headers(), st.sampled_from([b"", b" ", b"   \n"]))
def test_every_sound_file_is_read_as_it_was_laid_out(empty, header, padding):
    (entries, data), directory = header, empty()
    content = file_bytes(entries, data, padding=padding)
    (directory / "model.safetensors").write_bytes(content)
    base = len(content) - len(data)
    expected = [
        TensorInfo(name, e["dtype"], tuple(e["shape"]), "model.safetensors", *(base + at for at in e["data_offsets"]))
        for name, e in entries
        if name != "__metadata__"
    ]
    assert read_tensors(open_store(directory)) == expected


@fuzz_target(300)
@given(mutated_files())
@example(file_bytes([("w", tensor_entry("F64", [2**63 - 1] * 64, 0, 0))], b""))
@example(file_bytes([("w", tensor_entry("U8", [2**62, 2**62, 0], 0, 0))], b""))
@example(safetensors_bytes(b'{"w":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'))
@example(safetensors_bytes(b'{"w":{"dtype":"U8","shape":[1],"data_offsets":[-0,1]}}', b"x"))
@example(file_bytes([("w", tensor_entry("U8", [1], 1, 2))], b"xx"))
@example(file_bytes([("w", tensor_entry("U8", [1], 0, 1)), ("v", tensor_entry("U8", [0], 0, 0))], b"x"))
def test_a_changed_file_is_read_as_the_library_reads_it_or_refused_by_name(empty, content):
    path = empty() / "model.safetensors"
    path.write_bytes(content)
    library = library_tensors(content)
    try:
        tensors = read_tensors(open_store(path.parent))
    except FormatError as error:
        event("refused by both" if library is None else "refused by wmtp alone")
        check_refusal(error, path, must_be_stricter=library is not None)
        return
    event("read")
    check_against_library(content, tensors, library)
    with safe_open(path, framework="np") as file:
        assert sorted(file.keys()) == sorted(tensor.name for tensor in tensors)


def library_tensors(content: bytes) -> dict[str, dict[str, Any]] | None:
    try:
        return dict(deserialize(content))
    except SafetensorError:
        return None


def check_against_library(content: bytes, tensors: list[TensorInfo], library: dict[str, dict[str, Any]] | None) -> None:
    assert library is not None
    assert len(library) == len(tensors)
    for tensor in tensors:
        theirs = library[tensor.name]
        assert (theirs["dtype"], theirs["shape"]) == (tensor.dtype, list(tensor.shape))
        assert bytes(theirs["data"]) == content[tensor.start : tensor.end]
    check_tiling(content, tensors)


def check_tiling(content: bytes, tensors: list[TensorInfo]) -> None:
    base = 8 + struct.unpack("<Q", content[:8])[0]
    times_used = numpy.zeros(len(content) - base, dtype=int)
    for tensor in tensors:
        times_used[tensor.start - base : tensor.end - base] += 1
    assert (times_used == 1).all()


def check_refusal(error: FormatError, path: Path, *, must_be_stricter: bool) -> None:
    assert not must_be_stricter or any(rule in error.problem for rule in STRICTER), error.problem
    assert str(path) in error.problem
    assert error.hint
    assert all(line.isprintable() and line.isascii() for line in str(error).splitlines())
    assert len(str(error)) < 3000
