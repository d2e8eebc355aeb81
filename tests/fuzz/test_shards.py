"""The reader of shard indexes against a recomputation from the shards themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st
from safetensors import deserialize

from fuzz.documents import damaged, values
from fuzz.target import fuzz_target
from tensor_files import tensors_as_bytes
from wmtp.checkpoint.headers import read_tensors, read_tensors_and_notes, weight_files
from wmtp.checkpoint.index import INDEX_FILE
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import FormatError, StorageError
from wmtp.storage.opening import open_store

NAMES = ["a", "b", "c.0.w", "c.1.w", "d"]
SHARDS = ["one.safetensors", "two.safetensors", "sub/three.safetensors"]
HOSTILE = [
    *("../one.safetensors", "/one.safetensors", "./one.safetensors", "sub//one.safetensors", ".one.safetensors"),
    *("ONE.safetensors", "one.safetensors/", "one.safetensors\n", "one.bin", "metadata.json", "sub", "", "C:one"),
    *("four.safetensors", "%6fne.safetensors", "\ud800.safetensors", "é.safetensors", "x" * 300 + ".safetensors"),
]
Places = dict[str, str]


@st.composite
def places(draw: st.DrawFn) -> Places:
    """Which shard each tensor is in."""
    held = draw(st.lists(st.sampled_from(NAMES), min_size=draw(st.integers(1, 4)), unique=True))
    return {name: draw(st.sampled_from(SHARDS)) for name in held}


def write_shards(directory: Path, where: Places, *, twice: str = "") -> None:
    (directory / "sub").mkdir()
    for shard in set(where.values()):
        held = [name for name, place in where.items() if shard in (place, twice)]
        (directory / shard).write_bytes(tensors_as_bytes({name: ("F32", [NAMES.index(name)]) for name in held}))


def index_of(where: Places) -> dict[str, Any]:
    return {"metadata": {"total_size": sum(4 * NAMES.index(name) for name in where)}, "weight_map": dict(where)}


@st.composite
def changed_index(draw: st.DrawFn, where: Places) -> bytes:
    index = index_of(where)
    weight_map, name = index["weight_map"], draw(st.sampled_from(sorted(where)))
    kind = draw(
        st.sampled_from(["none", "move", "move", "drop", "unknown", "hostile", "size", "value", "twin", "damage"])
    )
    if kind == "move":
        weight_map[name] = draw(st.sampled_from([*where.values(), *SHARDS]))
    elif kind == "drop":
        del weight_map[name]
    elif kind == "unknown":
        weight_map[draw(st.text("abc.", max_size=3))] = draw(st.sampled_from(SHARDS))
    elif kind == "hostile":
        weight_map[name] = draw(st.sampled_from(HOSTILE) | st.none() | st.integers())
    elif kind == "size":
        index["metadata"] = draw(st.sampled_from([{}, {"total_size": draw(values)}, {"total_parameters": 3}]))
    elif kind == "value":
        index[draw(st.sampled_from(["weight_map", "metadata", "other"]))] = draw(values)
    text = json.dumps(index).encode()
    if kind == "twin":
        text = text.replace(b'"weight_map": {', b'"weight_map": {"%s": "one.safetensors", ' % name.encode())
    return draw(damaged(text)) if kind == "damage" else text


@fuzz_target(60)
@given(places())
def test_every_sound_set_of_shards_is_read_whole(empty, where):
    directory = empty()
    write_shards(directory, where)
    (directory / INDEX_FILE).write_text(json.dumps(index_of(where)))
    tensors = read_tensors(open_store(directory))
    assert {tensor.name: tensor.file for tensor in tensors} == where
    assert weight_files(open_store(directory)) == [INDEX_FILE, *sorted(set(where.values()))]


@fuzz_target(250)
@given(st.data(), places(), st.sampled_from([*[""] * 9, *SHARDS]), st.sampled_from([False] * 4 + [True]))
def test_an_index_is_believed_only_where_it_says_what_the_shards_hold(empty, data, where, twice, one_is_lost):
    directory, text = empty(), data.draw(changed_index(where))
    write_shards(directory, where, twice=twice)
    if one_is_lost:
        (directory / min(where.values())).unlink()
    (directory / INDEX_FILE).write_bytes(text)
    try:
        tensors, notes = read_tensors_and_notes(open_store(directory))
    except (FormatError, StorageError) as error:
        event("refused")
        check_refusal(error, directory)
        return
    event("read")
    check_read(directory, json.loads(text), tensors, notes)


def check_read(directory: Path, index: dict[str, Any], tensors: list[TensorInfo], notes: tuple[str, ...]) -> None:
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    assert {tensor.name: tensor.file for tensor in tensors} == index["weight_map"]
    for shard in set(index["weight_map"].values()):
        theirs = dict(deserialize((directory / shard).read_bytes()))
        assert {t.name: list(t.shape) for t in tensors if t.file == shard} == {
            name: found["shape"] for name, found in theirs.items()
        }
    declared = (index.get("metadata") or {}).get("total_size")
    is_true = declared is None or (declared == sum(t.num_bytes for t in tensors) and not isinstance(declared, bool))
    assert (notes == ()) is is_true


def check_refusal(error: FormatError | StorageError, directory: Path) -> None:
    assert f"{directory}/" in error.problem
    assert error.hint
    assert all(line.isprintable() and line.isascii() for line in str(error).splitlines())
