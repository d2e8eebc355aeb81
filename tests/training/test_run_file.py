import pytest

from wmtp.errors import TrainingError
from wmtp.training.run_file import RUN_FILE, read_run_file


def _hint(directory):
    with pytest.raises(TrainingError, match=r"run\.json: No such file or directory") as caught:
        read_run_file(directory)
    return caught.value.hint


def test_whoever_names_something_near_a_run_is_told_the_run(tmp_path):
    run = tmp_path / "first-run"
    (run / "final").mkdir(parents=True)
    assert _hint(tmp_path).startswith("name the directory of a run, <paths.output_dir>/<run.name>")
    (run / RUN_FILE).write_text("{}")
    assert _hint(tmp_path) == f"name a run in it: {run}"
    assert _hint(run / "final") == f"that is a checkpoint; name the directory of its run: {run}"
