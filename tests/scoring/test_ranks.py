"""Scoring that several processes of one run share."""

import json
import shutil
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from launched import run_processes, try_processes
from run_files import RunFiles
from scoring_cases import LOSS, MANY, REWARD, kept, models_of, rows_of
from shard_runs import run_shards
from wmtp import train
from wmtp.scoring import work
from wmtp.scoring.scores import score_columns

PROCESS = Path(__file__).with_name("ranks_process.py")


@pytest.fixture
def alone(written, tmp_path, monkeypatch):
    """The zoo after one process has scored everything."""
    monkeypatch.setattr(work, "BATCH_TOKENS", 64)
    zoo = shutil.copytree(written, tmp_path / "alone")
    score_columns(rows_of(MANY), [LOSS, REWARD], models_of(zoo), name="data.train")
    return zoo


def figures(zoo):
    """The bytes of every column that is kept."""
    return {path.name: (path / "scores.safetensors").read_bytes() for path in kept(zoo)}


def told(zoo, how, count):
    return [json.loads((zoo / f"{how}-{rank}.json").read_text()) for rank in range(count)]


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_several_processes_share_the_work_and_write_what_one_writes(zoo, alone, count):
    run_processes(PROCESS, zoo, "whole", count=count)
    assert figures(zoo) == figures(alone)
    assert len(figures(zoo)) == 2
    found = told(zoo, "whole", count)
    columns = [[process[name] for name in ("ref_nll", "reward")] for process in found]
    assert all(column == columns[0] for column in columns)
    assert all(is_computed for is_computed, _, _ in columns[0])
    losses = [[index for name, batch in process["asked"] if name == "ref_nll" for index in batch] for process in found]
    num_texts = len(rows_of(MANY).table.texts)
    assert Counter(chain(*losses)) == Counter(range(num_texts))
    assert max(map(len, losses)) < 2 * num_texts / count
    assert not list((zoo / "scores").glob("*.parts"))
    assert len(uneven_batches_of_all(found)) == 1  # from which each finds out whether texts may share a batch


def uneven_batches_of_all(found):
    """The batches of texts of several lengths whose rewards every process has computed."""
    lengths = [len(text) for text in rows_of(MANY).table.texts]
    rewards = [[batch for name, batch in process["asked"] if name == "reward"] for process in found]
    common = [batch for batch in rewards[0] if all(batch in other for other in rewards)]
    return [batch for batch in common if len({lengths[index] for index in batch}) > 1]


def test_where_one_process_is_killed_nothing_is_half_done_and_any_number_goes_on(zoo, alone, caplog):
    assert try_processes(PROCESS, zoo, "killed").returncode != 0
    assert not kept(zoo)
    (parts,) = (zoo / "scores").glob("*.parts")
    assert list(parts.glob("*.safetensors"))
    with caplog.at_level("INFO", logger="wmtp"):
        score_columns(rows_of(MANY), [LOSS], models_of(zoo), name="data.train")
    assert "resumed after" in caplog.text
    assert figures(zoo).items() <= figures(alone).items()
    assert len(figures(zoo)) == 1


def test_what_one_process_finds_wrong_ends_all_of_them_and_other_data_is_told_before(zoo):
    path = zoo / "ref" / "model.safetensors"
    tensors = load_file(path)
    rare = int(rows_of(MANY[-1:]).table.texts[0][0])  # only the last document has it
    tensors["model.embed_tokens.weight"][rare] = torch.nan
    save_file(tensors, path, {"format": "pt"})
    run_processes(PROCESS, zoo, "broken")
    for process in told(zoo, "apart", 2):
        assert "RANK 0 and 1 would compute different scores: data differ" in process["problem"]
        assert process["asked"] == []
    found = told(zoo, "broken", 2)
    failed = next(rank for rank in range(2) if found[rank]["error"] == "DataError")
    assert f"document {len(rows_of(MANY).table.texts)} of data.train, token 2, is nan" in found[failed]["problem"]
    other = found[1 - failed]
    assert other["error"] == "TrainingError"
    assert f"the process with RANK {failed} could not compute its share of the scores" in other["problem"]
    assert not kept(zoo)


@pytest.mark.slow
def test_a_run_of_two_processes_keeps_the_scores_of_a_run_of_one(tmp_path):
    files = RunFiles(tmp_path, "rho1-wmtp", train={"max_steps": 1})
    train(*files.settings("one"))
    config, recipe = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("config", "recipe"))
    config["paths"]["output_dir"] = str(tmp_path / "two")
    run_shards(tmp_path, config, recipe)
    one, two = (figures(tmp_path / place) for place in ("one", "two"))
    assert one == two
    assert len(one) == 1
