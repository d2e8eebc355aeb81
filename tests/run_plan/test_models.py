"""What the models of a run rule out by their small files alone, said alike by plan and by train."""

import json

import pytest

from checkpoints import write_llama_checkpoint
from native_files import write_native
from native_models import native
from wmtp.authoring.init import init_metadata

CONFIG = "paths: {models: {base: ./base}, output_dir: ./runs}\ndevices: {device: cpu}\ntracking: {report_to: []}\n"
RECIPE = """
run: {name: tiny}
data: {train: {files: data.jsonl, max_length: 32}}
train: {algo: baseline-mtp, max_steps: 1, per_device_train_batch_size: 2, gradient_accumulation_steps: 1}
"""


@pytest.fixture
def ask(wmtp, tmp_path):
    """Run a command with a Qwen3.5 to train."""
    write_native(tmp_path / "base", "qwen3_5", model=native("qwen3_5", config={"vocab_size": 128}), vocab_size=128)
    init_metadata(tmp_path / "base")
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "data.jsonl").write_text(json.dumps({"text": "def total(values): return sum(values)"}) + "\n")
    return lambda *words: wmtp(
        words[0], "--config", tmp_path / "config.yaml", "--recipe", tmp_path / "recipe.yaml", *words[1:]
    )


def test_plan_dry_run_and_train_refuse_alike_to_pack_documents_that_would_see_each_other(ask, tmp_path):
    plan, dry_run, train = (ask(*words).stderr for words in (("plan",), ("train", "--dry-run"), ("train",)))
    assert plan == dry_run == train
    assert plan == (
        f"error: {tmp_path}/base: documents packed into one row see each other: it has layers of the kind"
        " 'linear_attention', which carry a state from token to token\n"
        "hint: set data.train.packing: false in the recipe, and data.validation.packing where that is given\n"
        "more: wmtp explain TrainingError\n"
    )


def test_what_the_hint_says_is_enough(ask):
    assert ask("plan", "data.train.packing=false").exit_code == 0
    assert ask("train", "data.train.packing=false").exit_code == 0
    apart = ask("plan", "data.train.packing=false", "data.validation={fraction: 0.5, packing: true}")
    assert "documents packed into one row see each other" in apart.stderr


def test_a_reference_is_asked_where_it_scores_the_batches_of_training(ask, tmp_path):
    write_llama_checkpoint(tmp_path / "llama", vocab_size=128)
    for name, wmtp_type in (("llama", "base_model"), ("base", "reference_model")):
        path = tmp_path / name / "metadata.json"
        changes = {"wmtp_type": wmtp_type, "algorithm_compatibility": ["rho1-wmtp"]}
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    models = [f"paths.models.base={tmp_path}/llama", f"paths.models.ref={tmp_path}/base"]
    words = ("plan", *models, "train.algo=rho1-wmtp", "rho1.selection_mode=token_skip")
    assert ask(*words).exit_code == 0
    refused = ask(*words, "rho1.online=true")
    assert f"error: {tmp_path}/base: documents packed into one row see each other" in refused.stderr
