"""plan, train, schema, env, demo."""

import json
import os
import subprocess
import sys

import pytest

from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file
from wmtp.cli.environment import describe_environment

CONFIG = "paths: {models: {base: [./zoo/llama, ./mtp], ref: ./zoo/llama}}\ndevices: {device: cpu}\n"
RECIPE = """\
run: {name: tiny}
data: {train: {files: code.txt, max_length: 16}}
train: {algo: baseline-mtp, max_steps: 1, gradient_accumulation_steps: 1, learning_rate: 1.0e-3}
"""


@pytest.fixture
def settings(tmp_path, llama):
    """The options of a run of one step; the llama is a reference model, offered as a base model too."""
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(vocab_size=98))
    write_code_file(tmp_path / "code.txt")
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return ["--config", tmp_path / "config.yaml", "--recipe", tmp_path / "recipe.yaml"]


def test_plan_says_which_models_and_why_not_the_others(wmtp, settings, tmp_path):
    result = wmtp("plan", *settings)
    assert result.exit_code == 0
    assert f"  base: {tmp_path}/mtp (base_model, llama, 3 heads)" in result.stdout.splitlines()
    assert "wmtp_type is 'reference_model', and this role needs 'base_model'" in result.stdout


def test_plan_counts_bytes_and_memory(wmtp, settings):
    facts = json.loads(wmtp("plan", *settings, "--json").stdout)
    stored = facts["models"]["base"]["stored_bytes"]
    assert stored == 4 * facts["models"]["base"]["num_parameters"]
    assert facts["memory"] == {
        "weights": stored,
        "gradients": stored,
        "optimizer": 2 * stored,
        "other_models": 0,
        "value_head": 0,
        "logits": 0,
    }


def test_overrides_reach_config_and_recipe(wmtp, settings):
    words = ["devices.dtype=bfloat16", "train.optim=sgd"]
    facts = json.loads(wmtp("plan", *settings, *words, "--json").stdout)
    assert facts["memory"]["weights"] == 2 * facts["models"]["base"]["num_parameters"]
    assert facts["memory"]["optimizer"] == 0


def test_no_model_that_fits_is_an_error_with_reasons(wmtp, settings):
    result = wmtp("plan", *settings, "paths.models.base=./zoo/llama", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["problem"].startswith("No compatible model found for baseline-mtp")
    assert len(error["faults"]) == 1


def test_an_unknown_key_names_file_and_line(wmtp, settings, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("max_steps", "max_step"))
    result = wmtp("plan", *settings)
    assert result.exit_code == 1
    assert f"{tmp_path}/recipe.yaml:3" in result.stderr
    assert "did you mean 'max_steps'?" in result.stderr


def test_a_dry_run_stops_after_the_plan(wmtp, settings, tmp_path):
    result = wmtp("train", *settings, "--dry-run")
    assert result.exit_code == 0
    assert "memory while training" in result.stdout
    assert not (tmp_path / "runs").exists()


def test_train_prints_its_result(wmtp, settings, tmp_path):
    result = wmtp("train", *settings, "--json")
    assert result.exit_code == 0
    facts = json.loads(result.stdout)
    assert (facts["steps"], facts["final_checkpoint"]) == (1, f"{tmp_path}/runs/tiny/final")
    assert wmtp("validate", facts["final_checkpoint"], "--deep").exit_code == 0


def test_torchrun_options_behind_two_dashes_become_a_command(wmtp, settings):
    words = ["train", *settings, "run.name=two", "--dry-run", "--", "--nproc-per-node=2", "--nnodes", "1"]
    command = json.loads(wmtp("-q", *words[:-4], "--json", *words[-4:]).stdout)["command"]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--nnodes", "1"]
    own = ["-m", "wmtp.cli.main", "--quiet", "train", *map(str, settings), "run.name=two", "--json"]
    assert command == [*start, *own]


@pytest.mark.slow
def test_two_processes_print_one_result(settings, tmp_path):
    words = ["train", *map(str, settings), "--json", "--", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, "-m", "wmtp.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 1


def test_of_processes_that_fail_the_error_is_said_and_no_traceback(settings):
    words = ["train", *map(str, settings), "mtp.horizon=9", "--", "--nproc-per-node=2"]
    line = [sys.executable, "-m", "wmtp.cli.main", *words]
    threads = {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | threads)
    assert done.returncode == 1
    assert "error: No compatible model found for baseline-mtp" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("ended with exit status 1; what was wrong stands above")


def test_an_option_that_torchrun_cannot_carry_out_is_said_in_a_line(settings):
    words = ["train", *map(str, settings), "--", "--nproc-per-node=many"]
    line = [sys.executable, "-m", "wmtp.cli.main", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error: torchrun: " in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_to_the_one_that_was_started_ends_all_after_their_step(settings, tmp_path):
    words = ["train", *map(str, settings), "train.max_steps=1000", "train.logging_steps=1", "--", "--nproc-per-node=2"]
    line, environment = [sys.executable, "-m", "wmtp.cli.main", *words], os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        said = []
        for told in process.stderr:
            said.append(told)
            if told.startswith("step 1 of 1000"):
                process.terminate()
        process.wait(timeout=300)
    assert process.returncode == 143
    assert f"the same command with --resume goes on from {tmp_path}/runs/tiny/step-" in "".join(said)
    assert "Traceback" not in "".join(said)


@pytest.mark.parametrize("document", ["metadata", "config", "recipe"])
def test_schema_prints_a_json_schema(wmtp, document):
    result = wmtp("schema", document)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_env_shows_versions_and_no_secret(wmtp, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hunter2@host")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    facts = describe_environment()
    assert facts["environment"]["OMP_NUM_THREADS"] == "3"
    assert facts["environment"]["AWS_SECRET_ACCESS_KEY"] == "(set, not shown)"
    assert facts["packages"]["torch"]
    result = wmtp("env")
    assert result.exit_code == 0
    assert "transformers" in result.stdout
    assert "hunter2" not in result.stdout


def test_the_options_of_the_real_demo_belong_together(wmtp, tmp_path):
    result = wmtp("demo", tmp_path / "zoo", "--gguf", "model.gguf")
    assert result.exit_code == 2
    assert "--gguf and --data belong together" in result.stderr
    assert not (tmp_path / "zoo").exists()
