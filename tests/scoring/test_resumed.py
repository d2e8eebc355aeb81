"""Scoring that is interrupted, killed, or done by several processes at once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scoring_cases import LOSS, kept, models_of, rows_of
from wmtp.publishing.publish import is_complete, publish_directory
from wmtp.scoring import kinds, store, work
from wmtp.scoring.nll import token_losses
from wmtp.scoring.scores import score_columns


def column(zoo):
    (found,) = score_columns(rows_of(), [LOSS], models_of(zoo), name="data.train")
    return found


def test_an_interrupted_computation_goes_on_where_it_stopped(zoo, monkeypatch, caplog):
    expected = column(zoo)
    shutil.rmtree(zoo / "scores")
    monkeypatch.setattr(work, "BATCH_TOKENS", 64)
    done = stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        column(zoo)
    assert len(done) == 3
    (parts,) = (zoo / "scores").glob("*.parts")
    assert not kept(zoo)
    later = stop_after(monkeypatch, 1000)
    with caplog.at_level("INFO", logger="wmtp"):
        again = column(zoo)
    assert not set(done) & set(later)
    assert f"resumed after {sum(map(len, done)):,}" in caplog.text
    torch.testing.assert_close(torch.cat(again.values), torch.cat(expected.values), rtol=1e-4, atol=1e-5)
    assert not parts.exists()


def stop_after(monkeypatch, batches):
    """Interrupt the scoring after some batches; returns the texts that were scored."""
    done = []

    def counting(model, texts, device):
        if batches <= counting.calls:
            raise KeyboardInterrupt
        counting.calls += 1
        done.extend(tuple(text.tolist()) for text in texts)
        return token_losses(model, texts, device)

    counting.calls = 0
    monkeypatch.setattr(kinds, "token_losses", counting)
    return done


def test_a_damaged_part_is_computed_again(zoo, monkeypatch, caplog):
    expected = column(zoo)
    shutil.rmtree(zoo / "scores")
    monkeypatch.setattr(work, "BATCH_TOKENS", 64)
    monkeypatch.setattr(work, "PART_SECONDS", 0)
    stop_after(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        column(zoo)
    parts = sorted((zoo / "scores").glob("*.parts/*"))
    data = bytearray(parts[1].read_bytes())
    data[-1] ^= 1
    parts[1].write_bytes(data)
    stop_after(monkeypatch, 1000)
    again = column(zoo)
    torch.testing.assert_close(torch.cat(again.values), torch.cat(expected.values), rtol=1e-4, atol=1e-5)
    assert f"{parts[1]}: damaged, and computed again" in caplog.text


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from wmtp.scoring import store, work
from scoring_cases import LOSS, models_of, rows_of
from wmtp.scoring.scores import score_rows

work.BATCH_TOKENS, work.PART_SECONDS = 64, 0
add = store.ScoreStore.add

def add_then_die(self, first, figures):
    add(self, first, figures)
    add_then_die.count += 1
    if add_then_die.count == 2:
        os.kill(os.getpid(), signal.SIGKILL)

add_then_die.count = 0
store.ScoreStore.add = add_then_die
score_rows(rows_of(), [LOSS], models_of(Path(sys.argv[1])), name="data.train")
"""


def run(code, zoo):
    words = [sys.executable, "-c", code, str(zoo), str(Path(__file__).parents[1])]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_leaves_parts_that_the_next_one_goes_on_from(zoo, caplog):
    process = run(KILLED, zoo)
    assert process.wait() == -9, process.stderr.read()
    assert not kept(zoo)
    assert len(list((zoo / "scores").glob("*.parts/*.safetensors"))) == 2
    with caplog.at_level("INFO", logger="wmtp"):
        found = column(zoo)
    assert "resumed after 128" in caplog.text
    shutil.rmtree(zoo / "scores")
    torch.testing.assert_close(torch.cat(found.values), torch.cat(column(zoo).values), rtol=1e-4, atol=1e-5)


TWO = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from scoring_cases import LOSS, models_of, rows_of
from wmtp.scoring.scores import score_columns
(found,) = score_columns(rows_of(), [LOSS], models_of(Path(sys.argv[1])), name="data.train")
print(found.is_computed, found.mean)
"""


def test_of_two_processes_at_once_one_computes_and_both_have_the_figures(zoo):
    processes = [run(TWO, zoo) for _ in range(2)]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    told = sorted(out.split() for out, _ in answers)
    assert [computed for computed, _ in told] == ["False", "True"]
    assert told[0][1] == told[1][1]
    assert is_complete(kept(zoo)[0])


def test_where_locks_do_nothing_two_processes_still_agree(zoo, monkeypatch):
    published = []

    def after_another(final):
        if not published:
            published.append(final)
            with publish_directory(final) as directory:
                for path in source.iterdir():
                    if path.name != "manifest.json":
                        shutil.copy(path, directory)
        return publish_directory(final)

    source = Path(shutil.copytree(column(zoo).where, zoo / "copy"))
    shutil.rmtree(zoo / "scores")
    monkeypatch.setattr(store, "publish_directory", after_another)
    found = column(zoo)
    assert published
    assert torch.equal(torch.cat(found.values), load_file(source / "scores.safetensors")["scores"])


def test_what_a_killed_process_left_unpublished_is_removed_once_it_is_old(zoo):
    directory = Path(column(zoo).where)
    old, young = (directory.with_name(f"{directory.name}.tmp-{digit * 32}") for digit in "ab")
    for path in (old, young):
        path.mkdir()
    os.utime(old, (1, 1))
    shutil.rmtree(directory)
    column(zoo)
    assert not old.exists()
    assert young.exists()
