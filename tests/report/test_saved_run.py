"""What a directory of a run says, also of one that is not over."""

import shutil

import pytest

from wmtp.errors import TrainingError
from wmtp.report.saved_run import SavedRun
from wmtp.report.xray import XRayOptions, xray
from wmtp.training.run_file import read_run_file, write_run_file


def test_a_run_that_is_over_has_kept_its_plan_its_log_and_what_it_took(critic_run):
    run = SavedRun.read(critic_run)
    outcome = run.file.result
    assert outcome is not None
    assert outcome.steps == 2
    assert len(outcome.explained_variance) == 10
    assert outcome.peak_bytes > 1 << 20
    assert run.file.plan["cost"]["steps"] == 2
    assert [entry["step"] for entry in run.log if "weight_mean" in entry] == [1, 2]
    assert list(run.checkpoints) == [1, 2]


def test_of_a_run_that_is_not_over_the_log_is_that_of_its_newest_checkpoint(rho1_run, tmp_path):
    shutil.copytree(rho1_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "final")
    facts = read_run_file(rho1_run).model_dump(mode="json", exclude={"result"})
    write_run_file(tmp_path / "run", facts)
    run = SavedRun.read(tmp_path / "run")
    assert run.file.result is None
    assert {entry["step"] for entry in run.log} == {0, 1}
    assert list(run.checkpoints) == [1]
    assert xray(run, XRayOptions(documents=1))["steps"] == [1]


def test_without_any_checkpoint_there_are_no_tokens_to_weigh(rho1_run, tmp_path):
    shutil.copy(rho1_run / "run.json", tmp_path)
    run = SavedRun.read(tmp_path)
    assert run.log
    assert run.provenance == run.receipt == {}
    with pytest.raises(TrainingError, match="has no checkpoint; steps with one: none") as refused:
        xray(run, XRayOptions())
    assert "--no-xray" in refused.value.hint


@pytest.mark.parametrize(("at_most", "steps"), [(8, [1, 2, 3, 5, 8, 9, 13]), (3, [1, 5, 13]), (1, [1, 13])])
def test_steps_are_spread_over_the_run_with_the_last_among_them(rho1_run, tmp_path, at_most, steps):
    file = read_run_file(rho1_run)
    run = SavedRun(tmp_path, "run", file, dict.fromkeys((1, 2, 3, 5, 8, 9, 13), tmp_path))
    assert list(run.chosen((), at_most)) == steps
