"""`wmtp selftest`: a table for people, JSON for programs, and an exit status that says whether all holds."""

import json

import pytest
import torch

from checkpoints import write_mtp_checkpoint
from code_files import write_code
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file
from wmtp.algorithms import weighting


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_mtp_checkpoint(tmp_path_factory.mktemp("zoo") / "model", tiny_mtp("gpt2", vocab_size=112))


def test_without_arguments_a_built_in_model_is_tested(wmtp):
    done = wmtp("selftest")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["model  built in: llama, 4 transformer heads, random weights", "data   random tokens"]
    assert lines[3].split() == ["ORACLE", "COMPARED", "DIFFERENCE", "TOLERANCE"]
    assert lines[-1].startswith("all ")
    assert lines[-1].endswith(" hold")


def test_a_checkpoint_is_tested_on_data_and_the_facts_are_json(wmtp, model, tmp_path):
    done = wmtp("selftest", "--model", model, "--data", write_code_file(tmp_path / "code.py"), "--json")
    facts = json.loads(done.stdout)
    assert done.exit_code == 0
    assert facts["holds"]
    assert facts["model"] == str(model)
    assert facts["data"] == str(tmp_path / "code.py")
    one = facts["findings"][0]
    assert list(one) == ["oracle", "compared", "difference", "tolerance", "note", "outcome"]
    assert {finding["outcome"] for finding in facts["findings"]} == {"ok", "-"}


def test_a_broken_promise_is_shown_and_the_exit_status_is_1(wmtp, model, monkeypatch):
    monkeypatch.setattr(weighting, "head_softmax", lambda _scores, valid, _prior: 2 * torch.ones(valid.shape))
    done = wmtp("selftest", "--model", model)
    assert done.exit_code == 1
    assert any(
        line.startswith("FAIL  mean weight is 1") and "rho1 horizon" in line for line in done.stdout.splitlines()
    )
    failed, _, checked, word = done.stdout.splitlines()[-1].split()
    assert 0 < int(failed) < int(checked)
    assert word == "FAIL"


def test_an_address_where_nothing_is_gives_an_error_that_says_so(wmtp, tmp_path):
    done = wmtp("selftest", "--model", tmp_path / "nowhere")
    assert done.exit_code == 1
    assert f"error: {tmp_path}/nowhere" in done.stderr
    assert "hint: " in done.stderr


def test_data_that_does_not_exist_is_wrong_usage(wmtp, tmp_path):
    done = wmtp("selftest", "--data", tmp_path / "nothing.txt")
    assert done.exit_code == 2
    assert "nothing.txt" in done.stderr


def test_code_of_a_checkpoint_runs_only_with_consent(wmtp, tmp_path, edit_metadata):
    own = write_mtp_checkpoint(tmp_path / "own", tiny_mtp(vocab_size=112))
    consent = write_code(own, "from wmtp.models.mtp import MTPForCausalLM\n\nclass Own(MTPForCausalLM):\n    pass\n")
    names = {"model_class_name": "Own", "custom_module_file": "modeling.py"}
    edit_metadata(own, loading_strategy={"loader_type": "custom_mtp", "required_files": ["config.json"], **names})
    refused = wmtp("selftest", "--model", own)
    assert refused.exit_code == 1
    assert "--allow-code modeling.py=sha256:" in refused.stderr
    agreed = [word for file, digest in consent.items() for word in ("--allow-code", f"{file}={digest}")]
    assert wmtp("selftest", "--model", own, *agreed).exit_code == 0
