"""rho1-wmtp from a recipe to a checkpoint, its reference losses computed before training or while it lasts."""

import json

import pytest
import torch

import wmtp
from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file
from wmtp.errors import DataError, TrainingError
from wmtp.publishing.algorithm_state import read_state
from wmtp.storage.opening import open_store

RECIPE = """
run: {{name: {name}}}
data: {{train: {{files: [data], max_length: 32, packing: {packing}}}}}
train: {{algo: {algo}, learning_rate: 1e-3, max_steps: 4, per_device_train_batch_size: 4,
        gradient_accumulation_steps: 1, logging_steps: 1, optim: sgd}}
"""
SECTION = "rho1: {{keep_ratio: 0.5, online: {online}, selection_mode: {mode}, scope: {scope}}}"


@pytest.fixture
def models(tmp_path):
    model = tiny_mtp("llama", 2, "resblock", {"shared_unembedding": True}, vocab_size=128)
    base = write_mtp_checkpoint(tmp_path / "base", model, fits=["rho1-wmtp", "baseline-mtp"])
    for number in range(4):
        (tmp_path / "data").mkdir(exist_ok=True)
        write_code_file(tmp_path / "data" / f"{number}.py", repeats=number + 1)
    return {"base": [str(base)], "ref": [str(write_llama_checkpoint(tmp_path / "ref", vocab_size=128))]}


def run(tmp_path, models, *, name="run", algo="rho1-wmtp", packing="true", **rho1):
    recipe = RECIPE.format(name=name, packing=packing, algo=algo)
    if algo == "rho1-wmtp":
        recipe += SECTION.format(**{"online": "false", "mode": "token_skip", "scope": "batch"} | rho1)
    (tmp_path / "recipe.yaml").write_text(recipe)
    config = {"paths": {"models": models, "output_dir": str(tmp_path / "runs")}, "tracking": {"report_to": []}}
    (tmp_path / "config.yaml").write_text(json.dumps(config | {"devices": {"device": "cpu"}}))
    return wmtp.train(wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml"))


def parameters(result):
    return torch.cat([parameter.detach().flatten() for parameter in result.model.parameters()])


@pytest.mark.parametrize("packing", ["true", "false"])
def test_reference_losses_give_the_same_model_whether_computed_before_training_or_while(tmp_path, models, packing):
    before = parameters(run(tmp_path, models, name="offline", packing=packing))
    meanwhile = parameters(run(tmp_path, models, name="online", packing=packing, online="true"))
    assert (before - meanwhile).abs().max() < 1e-6
    assert sum(path.is_dir() for path in (tmp_path / "runs" / "scores").glob("nll-*")) == 1


@pytest.mark.parametrize(
    ("mode", "scope"), [("weighted", "batch"), ("horizon", "batch"), ("token_skip", "sequence"), ("weighted", "ema")]
)
def test_every_mode_trains_from_a_recipe_and_its_checkpoint_loads_again(tmp_path, models, mode, scope):
    result = run(tmp_path, models, mode=mode, scope=scope)
    baseline = run(tmp_path, models, name="baseline", algo="baseline-mtp")
    assert (parameters(result) - parameters(baseline)).abs().max() > 1e-6
    ids = torch.arange(20).view(1, 20)
    assert torch.equal(wmtp.load_model(result.final_checkpoint)(ids).logits, result.model(ids).logits)
    assert wmtp.load_metadata(result.final_checkpoint).training_algorithm == "rho1"


def test_a_running_threshold_is_kept_and_goes_on_in_a_further_run(tmp_path, models):
    first = run(tmp_path, models, mode="token_skip", scope="ema")
    again = run(tmp_path, models | {"base": [first.final_checkpoint]}, name="again", mode="token_skip", scope="ema")
    kept, later = (read_state(open_store(each.final_checkpoint))[0] for each in (first, again))
    assert kept["score_histogram"].sum() > 0
    assert later["score_histogram"].sum() > kept["score_histogram"].sum()


def test_a_further_run_may_use_another_mode(tmp_path, models):
    first = run(tmp_path, models, mode="token_skip", scope="ema")
    assert run(tmp_path, models | {"base": [first.final_checkpoint]}, name="again", mode="horizon").steps == 4


def test_a_reference_that_cannot_score_the_length_is_named_before_anything_is_trained(tmp_path, models):
    models["ref"] = [str(write_llama_checkpoint(tmp_path / "short", vocab_size=128, max_position_embeddings=16))]
    with pytest.raises(DataError, match=r"short.*16 positions"):
        run(tmp_path, models)
    assert not (tmp_path / "runs" / "run").exists()


def test_a_run_does_not_take_the_name_of_where_scores_are_kept(tmp_path, models):
    with pytest.raises(TrainingError, match=r"run.name is 'scores', and .*scores is where scores are kept"):
        run(tmp_path, models, name="scores")
