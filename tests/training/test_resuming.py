"""A run that was killed at any moment and goes on is, on a CPU, bit for bit the run that was not."""

import pytest

from training.run_files import RunFiles, contents

ENDED = "by signal 9"


@pytest.mark.parametrize(
    ("algorithm", "architecture", "kills"),
    [
        ("baseline-mtp", "gpt2", [("forward", 18), ("file", 31), ("forward", 9)]),
        ("rho1-wmtp", "llama", [("forward", 20), ("file", 30)]),
        # The first two in the stage of value heads.
        ("critic-wmtp", "llama", [("forward", 20), ("file", 12), ("forward", 46), ("file", 12)]),
    ],
)
def test_a_run_that_is_killed_and_goes_on_has_every_bit_of_one_that_is_not(tmp_path, algorithm, architecture, kills):
    files = RunFiles(tmp_path, algorithm, architecture)
    broken = [("broken", number > 0, *kill) for number, kill in enumerate(kills)]
    answers = files.carried_out(("whole", False, "", 0), *broken, ("broken", True, "", 0))
    assert [answer["ended"] for answer in answers] == ["finished", *[ENDED] * len(kills), "finished"]
    whole, last = answers[0], answers[-1]
    assert (last["final"], last["explained"]) == (whole["final"], whole["explained"])
    assert last["seen"]["forward"] < whole["seen"]["forward"]
    expected, found = contents(files.run("whole")), contents(files.run("broken"))
    assert [name for name in {**expected, **found} if expected.get(name) != found.get(name)] == []
    assert {"step-2/training_state/optimizer.safetensors", "final/model.safetensors"} <= set(found)
