"""What a run can go on from, what must not differ unasked, and what is said where it cannot."""

import json
import logging
import shutil

import pytest
import torch

import wmtp
from run_files import RunFiles
from wmtp.errors import TrainingError
from wmtp.publishing.publish import is_complete, verify_published
from wmtp.training.saved_steps import published_steps

CHANGED = "made of something else, so this would be another run"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of four steps that are all saved, and whose end is missing."""
    files = RunFiles(tmp_path_factory.mktemp("runs"), "baseline-mtp", train={"save_steps": 1, "max_steps": 4})
    wmtp.train(*files.settings("first"))
    shutil.rmtree(files.run("first") / "final")
    return files


@pytest.fixture
def run(stopped):
    """Its directory, as good as new."""
    place = stopped.run("again")
    shutil.rmtree(place.parent, ignore_errors=True)
    shutil.copytree(stopped.run("first"), place)
    return place


def go_on(stopped, *allow_change, resume=True, train=None, **sections):
    stopped.write_recipe(train={"save_steps": 1, "max_steps": 4, **(train or {})}, **sections)
    return wmtp.train(*stopped.settings("again"), resume=resume, allow_change=allow_change)


def refusal(stopped, *allow_change, **changes):
    with pytest.raises(TrainingError) as caught:
        go_on(stopped, *allow_change, **changes)
    return caught.value


def damage(step):
    path = step / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_everything_that_differs_is_named_at_once_with_what_was_and_what_is(stopped, run):
    other = {"train": {"learning_rate": 2e-3, "max_steps": 9}, "loss": {"head_prior": {"decay": 0.5}}}
    error = refusal(stopped, "train.max_steps", **other, data={"train": {"files": ["data"], "max_length": 16}})
    assert CHANGED in error.problem
    assert "train.learning_rate: 0.001 -> 0.002" in error.faults
    assert "loss.head_prior.decay: not set -> 0.5" in error.faults
    assert "data.train.max_length: 32 -> 16" in error.faults
    assert not [fault for fault in error.faults if "max_steps" in fault]
    assert [fault for fault in error.faults if fault.startswith("data.train: 'sha256:")]
    assert "--allow-change train.learning_rate" in error.hint
    assert published_steps(run)[-1].name == "step-3"


def test_another_model_and_other_documents_are_named(stopped, run, monkeypatch):
    stopped.write_data(last="x = 1\n" * 9)
    config = stopped.base / "config.json"
    before = config.read_text()
    config.write_text(before + "\n")
    try:
        faults = refusal(stopped).faults
    finally:
        config.write_text(before)
        (stopped.directory / "data" / "last.py").unlink()
    assert {fault.partition(":")[0] for fault in faults} >= {"data.train", "model"}


def test_what_may_differ_counts_from_there_on_and_later_checkpoints_say_so(stopped, run, caplog):
    result = go_on(stopped, "train", train={"learning_rate": 2e-3, "max_steps": 6, "lr_scheduler_type": "constant"})
    assert result.steps == 6
    assert "train.learning_rate was 0.001, and is 0.002 from here on" in caplog.text
    changes = wmtp.load_metadata(result.final_checkpoint).provenance["changes"]
    assert [change["step"] for change in changes] == [3]
    assert changes[0]["values"]["train.learning_rate"] == [0.001, 0.002]


def test_how_often_is_logged_validated_and_saved_may_differ_freely(stopped, run):
    result = go_on(stopped, train={"logging_steps": 1, "eval_steps": 4, "save_total_limit": 1})
    assert result.steps == 4
    assert "changes" not in wmtp.load_metadata(result.final_checkpoint).provenance


def test_a_key_that_does_not_exist_is_refused_with_the_nearest(stopped, run):
    error = refusal(stopped, "train.lerning_rate")
    assert "--allow-change 'train.lerning_rate': a run is not made of that" in error.problem
    assert "train.learning_rate" in error.problem


def test_fewer_steps_than_are_done_are_refused(stopped, run):
    error = refusal(stopped, "train.max_steps", train={"max_steps": 3})
    assert "the checkpoint has done 3 optimizer steps, and the run is to have 3" in error.problem


def test_started_again_without_resume_an_unfinished_run_is_left_alone_and_the_way_on_is_told(stopped, run):
    error = refusal(stopped, resume=False)
    assert "holds a run that is unfinished: step-1, step-2, step-3" in error.problem
    assert "--resume" in error.hint


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(stopped, run):
    shutil.rmtree(run)
    error = refusal(stopped)
    assert "there is no checkpoint to go on from" in error.problem
    assert "leave out --resume" in error.hint


def test_changes_are_allowed_only_where_a_run_goes_on(stopped, run):
    assert "this run is not to go on from a checkpoint" in refusal(stopped, "data", resume=False).problem


def test_a_finished_run_says_so(stopped, run):
    result = go_on(stopped)
    error = refusal(stopped)
    assert "this run is finished: final is its result" in error.problem
    assert result.final_checkpoint in error.hint


def test_damaged_checkpoints_are_named_and_kept_and_the_newest_whole_one_is_taken(stopped, run, caplog):
    damage(run / "step-3")
    (run / "step-2" / "training_state" / "optimizer.safetensors").unlink()
    with caplog.at_level(logging.INFO, logger="wmtp"):
        result = go_on(stopped)
    assert result.steps == 4
    assert f"going on from {run / 'step-1'}" in caplog.text
    assert "step-3: 1 of " in caplog.text
    assert "it is kept as step-2.damaged" in caplog.text
    assert is_complete(run / "step-3")
    assert not is_complete(run / "step-3.damaged")


def test_where_no_checkpoint_is_whole_each_is_named_and_left_where_it_is(stopped, run):
    for step in published_steps(run):
        damage(step)
    error = refusal(stopped)
    assert "none of its 3 checkpoints is whole" in error.problem
    assert len(error.faults) == 3
    assert len(published_steps(run)) == 3


def test_checkpoints_without_the_state_of_the_optimizer_are_small_and_no_run_goes_on_from_them(stopped, tmp_path):
    files = RunFiles(tmp_path, "baseline-mtp", train={"save_steps": 1, "max_steps": 2, "save_optimizer": False})
    wmtp.train(*files.settings("small"))
    step = files.run("small") / "step-1"
    assert not (step / "training_state").exists()
    shutil.rmtree(files.run("small") / "final")
    with pytest.raises(
        TrainingError, match="step-1: holds a model alone, without the state of its optimizer"
    ) as caught:
        wmtp.train(*files.settings("small"), resume=True)
    assert "train.save_optimizer: false" in caught.value.hint


def test_a_checkpoint_of_a_run_loads_as_the_model_that_it_is(stopped, run):
    step, ids = run / "step-3", torch.arange(12).view(1, 12)
    plain = stopped.directory / "plain"
    shutil.copytree(step, plain, ignore=shutil.ignore_patterns("training_state"))
    assert torch.equal(wmtp.load_model(step)(ids).logits, wmtp.load_model(plain)(ids).logits)
    names = {entry.path for entry in verify_published(step).files}
    assert {"training_state/state.json", "training_state/optimizer.safetensors"} < names
    required = wmtp.load_metadata(step).loading_strategy.required_files
    assert not [name for name in required if name.startswith("training_state")]
    json.loads((step / "training_state" / "state.json").read_text())


def test_scores_are_not_computed_again_when_a_run_goes_on(tmp_path, caplog):
    files = RunFiles(tmp_path, "rho1-wmtp", train={"save_steps": 1, "max_steps": 2})
    wmtp.train(*files.settings("run"))
    shutil.rmtree(files.run("run") / "final")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "scores").rglob("*") if path.is_file()}
    with caplog.at_level(logging.INFO, logger="wmtp"):
        wmtp.train(*files.settings("run"), resume=True)
    assert "nll by" in caplog.text
    assert "found in" in caplog.text
    assert "kept in" not in caplog.text
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.parametrize(
    "trained", [{"trainable": "lora", "lora": {"r": 4}}, {"trainable": "heads"}, {"heads_warmup_steps": 3}]
)
def test_a_run_that_trains_a_part_goes_on_with_that_part_bit_for_bit(tmp_path, trained):
    files = RunFiles(tmp_path, "baseline-mtp", train={"save_steps": 2, "max_steps": 4, **trained})
    wmtp.train(*files.settings("first"))
    final = files.run("first") / "final"
    expected = {path.name: path.read_bytes() for path in (*final.rglob("*.safetensors"), final / "README.md")}
    shutil.rmtree(final)
    wmtp.train(*files.settings("first"), resume=True)
    assert {name: next(final.rglob(name)).read_bytes() for name in expected} == expected
