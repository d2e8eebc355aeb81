"""diff."""

import json
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from checkpoints import write_custom


@pytest.fixture
def other(llama):
    """A copy of the llama with one value changed."""
    copy = shutil.copytree(llama, llama.parent / "other")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][3] += 0.5
    save_file(tensors, copy / "model.safetensors")
    return copy


def test_diff_shows_what_differs_and_exits_with_0(wmtp, llama, other):
    result = wmtp("diff", llama, other)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[:3] == [f"A: {llama}", f"B: {other}", "tensors: 1 of 21 differ in values"]
    assert "  model.norm.weight, F32 [32]: 1 of 32 values differ, by at most 0.5, relative L2 0.0884" in lines


def test_diff_exits_with_1_only_when_asked_and_when_they_differ(wmtp, llama, other):
    assert wmtp("diff", llama, other, "--exit-code").exit_code == 1
    assert wmtp("diff", llama, llama, "--exit-code").exit_code == 0
    assert wmtp("diff", llama, other, "--headers", "--exit-code").exit_code == 0


def test_diff_prints_one_json_document(wmtp, llama, other):
    facts = json.loads(wmtp("diff", llama, other, "--json").stdout)
    assert (facts["equal"], facts["num_common"], facts["overall"]["num_different"]) == (False, 21, 1)
    assert [tensor["name"] for tensor in facts["tensors"]] == ["model.norm.weight"]


def test_diff_needs_no_consent_and_no_metadata(wmtp, tmp_path):
    write_custom(tmp_path / "toy")
    plain = shutil.copytree(tmp_path / "toy", tmp_path / "plain")
    (plain / "metadata.json").unlink()
    result = wmtp("diff", tmp_path / "toy", plain)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2] == "same tensors, other files; files that differ: 1"
    assert "  metadata.json: only in A, " in result.stdout


def test_diff_of_what_is_not_there_is_an_error(wmtp, llama):
    result = wmtp("diff", llama, llama.parent / "nothing")
    assert result.exit_code == 1
    assert "no such directory" in result.stderr


def test_diff_of_headers_imports_no_torch(llama, other):
    script = "import sys; from wmtp.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    words = [sys.executable, "-c", script, "diff", str(llama), str(other), "--headers"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["equal; values were not read", "False"]
