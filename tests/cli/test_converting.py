"""convert."""

import json

import pytest
import torch

from hostile_pickles import save, touching


@pytest.fixture
def pickled(tmp_path):
    return save(tmp_path / "pickled", {"module": {"a": torch.ones(2), "b": torch.zeros(3)}, "step": 1}, "model.pt")


def test_convert_says_what_it_made_and_what_to_do_next(wmtp, pickled, tmp_path):
    result = wmtp("convert", pickled, tmp_path / "made", "--memory-limit", "1GB", "--time-limit", "60")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"{tmp_path / 'made'}: 2 tensors, 20 bytes, in model.safetensors"
    assert lines[1].startswith("opened in a process of its own (")
    assert "60 seconds" in lines[1]
    assert lines[2:] == [
        "the tensors stood under 'module'",
        "dropped, as no tensor of the model: 'step' (beside 'module')",
        "copied: nothing",
        "there was no metadata.json to carry over",
        f"next: wmtp init {tmp_path / 'made'}",
    ]


def test_convert_gives_its_report_as_json(wmtp, pickled, tmp_path):
    report = json.loads(wmtp("convert", pickled, tmp_path / "made", "--key", "module", "--json").stdout)
    assert report["weights"] == ["model.safetensors"]
    assert report["sources"] == ["model.pt"]
    assert report["unwrapped"] == "module"
    assert report["next_step"] == f"wmtp init {tmp_path / 'made'}"


def test_a_pickle_that_asks_for_more_than_weights_is_an_error(wmtp, tmp_path):
    source = save(tmp_path / "evil", {"a": touching(tmp_path / "marker")})
    result = wmtp("convert", source, tmp_path / "made", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "TrustError"
    assert [path.name for path in tmp_path.iterdir()] == ["evil"]


@pytest.mark.parametrize("size", ["much", "0", "-1", "1.5GB", "1 GB", "1gb", ""])
def test_what_is_no_amount_of_memory_is_wrong_usage(wmtp, pickled, tmp_path, size):
    result = wmtp("convert", pickled, tmp_path / "made", f"--memory-limit={size}")
    assert result.exit_code == 2
    assert "is no amount of memory: write bytes, or a number with MB, GB, MiB or GiB" in " ".join(result.stderr.split())
