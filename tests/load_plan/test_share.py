"""Reading of made parameters only the rows that one of several processes keeps."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from made_models import save_model, values_of
from wmtp.load_plan.filling import assign_tensors
from wmtp.load_plan.share import Share, blank
from wmtp.loaders.base import execute, prepare
from wmtp.settings.loading import LoadOptions


def load_share(directory, rank, count, **options):
    share = Share(rank, count)
    loaded = execute(prepare(directory, LoadOptions(**options)), partial(assign_tensors, share=share))
    return share, values_of(loaded.model)


def num_read():
    """Bytes that this process has asked the system for, by calls that read."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_process_has_the_experts_that_it_keeps_and_no_others(tmp_path, kind, count):
    expected = save_model(tmp_path, kind)
    for rank in range(count):
        share, found = load_share(tmp_path, rank, count)
        assert share.in_memory
        for name, value in expected.items():
            rows = share.rows(len(value)) if name in share.in_memory else range(len(value))
            kept = torch.zeros_like(value)
            kept[rows.start : rows.stop] = value[rows.start : rows.stop]
            assert torch.equal(found[name], kept)
        made = [value for name, value in expected.items() if name in share.in_memory]
        assert share.num_bytes == sum(len(share.rows(len(value))) * value[0].nbytes for value in made)


def test_all_rows_are_divided_among_all_processes():
    for length in range(7):
        for count in (1, 2, 3, 5):
            rows = [Share(rank, count).rows(length) for rank in range(count)]
            assert [row for each in rows for row in each] == list(range(length))
            assert [len(each) for each in rows if each] == [len(chunk) for chunk in torch.zeros(length).chunk(count)][
                : length or 0
            ]


@pytest.mark.skipif(sys.platform != "linux", reason="what is read is counted in /proc")
def test_experts_of_other_processes_are_not_read(tmp_path):
    save_model(tmp_path, "mixtral", hidden_size=256, intermediate_size=256)
    load_share(tmp_path, 0, 2)
    before = num_read()
    share, _ = load_share(tmp_path, 1, 2)
    small = 1 << 18  # configuration, headers
    assert share.num_bytes <= num_read() - before < share.num_bytes + small
    assert share.num_bytes > 8 * small


def test_what_is_cast_is_read_whole_and_counted(tmp_path):
    expected = save_model(tmp_path, "mixtral", torch.bfloat16)
    share, found = load_share(tmp_path, 0, 2, dtype="float32")
    assert share.in_memory >= set(expected)
    whole = [name for name in expected if "experts" not in name]
    assert all(torch.equal(found[name], expected[name].float()) for name in whole)
    experts = sum(value.nbytes for name, value in expected.items() if name not in whole)
    assert share.num_bytes == sum(expected[name].nbytes for name in whole) + experts / 2


def test_rows_that_nothing_is_written_to_are_zero():
    found = blank((3, 5), torch.bfloat16)
    found[1] = 1
    assert torch.equal(found, torch.tensor([[0.0] * 5, [1.0] * 5, [0.0] * 5], dtype=torch.bfloat16))
    assert blank((0, 4), torch.float32).shape == (0, 4)
