"""Values of planned tensors, from pages or from filled memory: the same bits, each byte read once, digests held."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

from wmtp.checkpoint.headers import read_tensors
from wmtp.errors import ArrivalError, IntegrityError
from wmtp.load_plan import reading
from wmtp.load_plan.plan import Assignment
from wmtp.load_plan.weights import planned_values
from wmtp.manifest import sha256_bytes
from wmtp.storage.objects import ObjectStore
from wmtp.storage.opening import open_store
from wmtp.storage.uri import parse_uri

TENSORS = {
    "a": torch.arange(7, dtype=torch.bfloat16),
    "b": torch.arange(12, dtype=torch.float32).view(3, 4),
    "empty": torch.zeros(0, 3),
    "c": torch.arange(5, dtype=torch.int64),
    "d": torch.tensor([True, False, True]),
    "e": torch.linspace(-1, 1, 33, dtype=torch.float64),
}


@pytest.fixture(params=["directory", "memory"])
def store(request, tmp_path):
    """A checkpoint whose weights have a header of odd length, so that nothing is aligned by chance."""
    data = save(TENSORS, {"note": "x" * 3})
    if request.param == "directory":
        (tmp_path / "model.safetensors").write_bytes(data)
        return open_store(tmp_path)
    store = ObjectStore(parse_uri(f"memory://b{uuid.uuid4().hex}/m"), cache=None)
    store.put("model.safetensors", data)
    return store


def assignments(store, *, dtype=None, without=()):
    return [
        Assignment((t.name,), t, dtype if dtype and t.dtype in ("F32", "BF16", "F64") else t.dtype)
        for t in read_tensors(store)
        if t.name not in without
    ]


def values(store, planned, *, mmap=False) -> dict[str, torch.Tensor]:
    return {used.source.name: value for used, value in planned_values(store, planned, device="cpu", mmap=mmap)}


@pytest.mark.parametrize("run_bytes", [1, 40, 1 << 20])
@pytest.mark.parametrize("mmap", [True, False])
def test_every_value_has_the_bits_that_are_stored(store, mmap, run_bytes, monkeypatch):
    monkeypatch.setattr(reading, "_RUN_BYTES", run_bytes)
    found = values(store, assignments(store)[::-1], mmap=mmap)
    assert {name: (value.dtype, value.shape) for name, value in found.items()} == {
        name: (value.dtype, value.shape) for name, value in TENSORS.items()
    }
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


@pytest.mark.parametrize("has_digest", [False, True])
def test_what_is_read_into_private_memory_begins_where_torch_itself_would_put_it(store, has_digest, monkeypatch):
    if has_digest:
        monkeypatch.setattr(type(store), "expected", lambda *_: "sha256:any")
        monkeypatch.setattr(type(store), "confirm", lambda *_: None)
    found = values(store, assignments(store))
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) > 1
    assert {name: value.data_ptr() % 64 for name, value in found.items()} == dict.fromkeys(TENSORS, 0)
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


def test_values_are_cast_and_the_memory_of_what_was_stored_is_let_go(store):
    found = values(store, assignments(store, dtype="F32"))
    assert all(torch.equal(found[name], TENSORS[name].to(torch.float32)) for name in "abe")
    assert found["e"].untyped_storage().nbytes() == 4 * 33


def test_what_is_not_used_is_not_read(store, monkeypatch):
    planned, read = assignments(store, without=("b",)), []
    fill = store.fill

    def watched(pieces):
        for piece in fill(pieces):
            read.append(len(piece.buffer))
            yield piece

    monkeypatch.setattr(store, "fill", watched)
    values(store, planned)
    assert sum(read) == sum(used.source.num_bytes for used in planned)


@pytest.mark.parametrize("store", ["memory"], indirect=True)  # a lock holds directories: tests/loaders/test_locks.py
def test_where_a_digest_is_known_the_whole_file_is_held_to_it(store):
    data = store.read_bytes("model.safetensors", max_bytes=1 << 20)
    store.expect({"model.safetensors": sha256_bytes(data).removeprefix("sha256:")})
    assert torch.equal(values(store, assignments(store, without=("b", "a")))["c"], TENSORS["c"])
    store.expect({"model.safetensors": "0" * 64})
    with pytest.raises(ArrivalError, match=f"has {sha256_bytes(data)}, sha256:{'0' * 64} is expected"):
        values(store, assignments(store))


def test_a_plan_from_a_header_that_is_not_the_verified_one_is_refused(store, monkeypatch):
    other = [replace(used, source=replace(used.source, name=f"other.{used.names[0]}")) for used in assignments(store)]
    monkeypatch.setattr(type(store), "expected", lambda *_: "sha256:any")
    monkeypatch.setattr(type(store), "confirm", lambda *_: None)
    with pytest.raises(IntegrityError, match="its header changed while it was being loaded"):
        values(store, other)
