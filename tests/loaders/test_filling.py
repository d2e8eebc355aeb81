"""How values get from a file into a model: in place, cast, or read."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import wmtp
from wmtp.errors import StorageError
from wmtp.loaders.base import execute, prepare
from wmtp.settings.loading import LoadOptions


@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "read"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_every_way_of_filling_a_model_from_shards_gives_the_values_of_from_pretrained(saved, dtype, mmap):
    directory, _ = saved("llama", dtype=torch.bfloat16, shards=True)
    loaded = wmtp.load_model(directory, dtype=dtype, mmap=mmap).state_dict()
    expected = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).state_dict()
    assert loaded.keys() == expected.keys()
    for name, values in expected.items():
        assert torch.equal(loaded[name], values), name
        assert loaded[name].dtype == values.dtype, name


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "stays_mapped"), [("auto", True), ("float32", False)])
def test_a_file_stays_mapped_only_while_parameters_live_in_it(saved, dtype, stays_mapped):
    directory, _ = saved("llama", dtype=torch.bfloat16)
    model = wmtp.load_model(directory, dtype=dtype)
    assert (str(directory) in Path("/proc/self/maps").read_text()) is stays_mapped
    del model
    gc.collect()
    assert str(directory) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "read"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_file_cut_short_after_the_plan_was_made_is_refused(saved, dtype, mmap):
    directory, _ = saved("llama", dtype=torch.bfloat16)
    prepared = prepare(directory, LoadOptions(dtype=dtype, mmap=mmap))
    file = directory / "model.safetensors"
    last = max((assignment.source for assignment in prepared.plan.assignments), key=lambda tensor: tensor.end)
    with file.open("r+b") as stream:
        stream.truncate(last.end - 2)
    with pytest.raises(StorageError) as refusal:
        execute(prepared)
    assert refusal.value.problem.startswith(f"{file}: ")
    assert (f"ends within '{last.name}'" if mmap else " expected") in refusal.value.problem
