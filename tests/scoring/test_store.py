"""Scores on disk: reused, computed again when anything changes, resumed, and never half done or damaged."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scoring_cases import (
    DOCUMENTS,
    LOSS,
    REWARD,
    kept,
    models_of,
    rows_of,
    write_reference,
    write_reward,
)
from vanishing import coming_and_going
from wmtp.algorithms.base import Score
from wmtp.errors import DataError
from wmtp.publishing.publish import is_complete
from wmtp.scoring.scores import score_columns, score_rows
from wmtp.scoring.store import ScoreKey, ScoreStore


def column(zoo, rows=None, score=LOSS, **settings):
    (found,) = score_columns(rows or rows_of(), [score], models_of(zoo, **settings), name="data.train")
    return found


def test_what_is_kept_is_a_column_and_what_it_stands_for(zoo):
    found = column(zoo)
    (directory,) = kept(zoo)
    assert found.where == str(directory)
    assert is_complete(directory)
    figures = load_file(directory / "scores.safetensors")["scores"]
    assert torch.equal(figures, torch.cat(found.values))
    facts = json.loads((directory / "scores.json").read_text())
    rows = rows_of()
    assert facts["key"]["data"] == rows.fingerprint()
    told = facts["key"] | facts
    assert (told["what"], told["dtype"], told["max_length"]) == ("nll", "float32", 64)
    assert (told["uri"], told["documents"]) == (str(zoo / "ref"), sum(1 for _ in rows.examples))
    assert not list((zoo / "scores").glob("*.parts")) + list((zoo / "scores").glob("*.lock"))


def test_a_second_run_reads_what_is_kept_without_opening_a_weight(zoo):
    first = column(zoo)
    column(zoo)  # remembers the digests of files that are no longer new
    path = zoo / "ref" / "model.safetensors"
    os.utime(path, (1, 1))
    before = column(zoo)
    # The bytes of the tensors are gone, and size and time are not: only who loads them would notice.
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(len(data) - 4096)
        file.write(b"\xff" * 4096)
    os.utime(path, (1, 1))
    again = column(zoo)
    assert (first.is_computed, before.is_computed, again.is_computed) == (True, False, False)
    assert torch.equal(torch.cat(again.values), torch.cat(first.values))


def test_other_data_other_length_dtype_or_label_is_computed_anew(zoo):
    write_reward(zoo / "rm", num_labels=2)
    label = [Score("reward", "reward", role="rm", label=n) for n in (0, 1)]
    columns = [
        column(zoo),
        column(zoo, rows_of(DOCUMENTS[:-1])),
        column(zoo, rows_of(max_length=32)),
        column(zoo, rows_of(packing=False)),
        column(zoo, devices={"device": "cpu", "dtype": "bfloat16"}),
        column(zoo, score=label[0]),
        column(zoo, score=label[1]),
    ]
    assert all(found.is_computed for found in columns)
    assert len({found.where for found in columns}) == len(columns) == len(kept(zoo))
    assert not column(zoo).is_computed


def test_a_changed_model_is_computed_anew_and_a_moved_one_is_not(zoo):
    first = column(zoo)
    (zoo / "ref").rename(zoo / "elsewhere")
    shutil.copytree(zoo / "elsewhere", zoo / "ref")
    assert not column(zoo).is_computed
    shutil.rmtree(zoo / "ref")
    write_reference(zoo / "ref", initializer_range=0.3)
    changed = column(zoo)
    assert changed.is_computed
    assert changed.mean != first.mean


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_changed_file_beside_the_weights_is_computed_anew(zoo, name):
    column(zoo)
    path = zoo / "ref" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 0.5}))
    assert column(zoo).is_computed


def test_damaged_figures_are_named_and_computed_again(zoo, caplog):
    first = column(zoo)
    path = kept(zoo)[0] / "scores.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    again = column(zoo)
    assert again.is_computed
    assert f"{kept(zoo)[0]}: damaged, and computed again" in caplog.text
    assert torch.equal(torch.cat(again.values), torch.cat(first.values))
    assert is_complete(kept(zoo)[0])


@pytest.mark.parametrize("name", ["scores.json", "scores.safetensors", "manifest.json"])
def test_a_file_that_is_missing_is_as_good_as_damaged(zoo, name, caplog):
    column(zoo)
    (kept(zoo)[0] / name).unlink()
    assert column(zoo).is_computed
    assert "damaged, and computed again" in caplog.text
    assert not column(zoo).is_computed


def test_figures_that_no_digest_holds_are_as_good_as_damaged(zoo, caplog):
    column(zoo)
    path = kept(zoo)[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != "scores.safetensors"]
    path.write_text(json.dumps(manifest))
    assert column(zoo).is_computed
    assert "its manifest does not list its files" in caplog.text


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path.parent)])
def test_a_link_or_a_file_where_scores_are_kept_is_named_before_anything_is_computed(zoo, make):
    place = Path(column(zoo).where)
    shutil.rmtree(place)
    make(place)
    with pytest.raises(DataError, match="is a link or a file, and scores are kept in a directory of their own"):
        column(zoo)
    assert not place.with_name(f"{place.name}.parts").exists()


def test_figures_of_something_else_under_this_name_are_an_error_that_names_both(zoo):
    first, other = column(zoo), column(zoo, rows_of(max_length=32))
    shutil.rmtree(first.where)
    shutil.copytree(other.where, first.where)
    with pytest.raises(DataError, match=r"scores\.json: these are figures of something else") as caught:
        column(zoo)
    assert caught.value.problem.startswith(first.where)
    assert any(fault == "max_length is 32, asked for 64" for fault in caught.value.faults)
    assert any(rows_of().fingerprint() in fault and "data is" in fault for fault in caught.value.faults)


def test_who_waits_for_scores_outlives_the_moment_at_which_their_parts_go(tmp_path):
    key = ScoreKey("nll", model="m", dtype="float32", label=None, tokenizer="t", data="d", max_length=64)
    store = ScoreStore(tmp_path, key, size=1)
    seen = set()
    with coming_and_going(tmp_path / f"{key.name}.parts") as goes_on:
        while goes_on():
            seen.update(store._part_names())
    assert seen <= {"a", "b"}


def test_rows_get_the_same_scores_from_disk_as_when_they_were_computed(zoo):
    first, again = (score_rows(rows_of(), [LOSS, REWARD], models_of(zoo), name="data.train") for _ in range(2))
    one, other = (rows.collate(rows.rows) for rows in (first, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
