"""critic-wmtp from a recipe to a checkpoint: the fit of its value head, what is kept, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import wmtp
from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from wmtp.errors import CheckpointError, DataError, TrainingError
from wmtp.publishing.algorithm_state import ALGORITHM_STATE_FILE, read_state
from wmtp.storage.opening import open_store
from wmtp.training import prepared
from wmtp.training.value_stage import fit_values

GOOD, BAD = "def total(values): return sum(values)", "while True: print('again and again')"
RECIPE = """
run: {{name: {name}}}
data: {{train: {{files: [data.jsonl], max_length: 64, packing: {packing}}}}}
train: {{algo: critic-wmtp, learning_rate: 1e-3, max_steps: 3, per_device_train_batch_size: 4,
        gradient_accumulation_steps: 2, logging_steps: 1}}
critic: {{reward_column: passed, stage1_steps: {steps}, value_learning_rate: 1e-2, {section}}}
"""


@pytest.fixture
def base(tmp_path):
    model = tiny_mtp("llama", 2, "resblock", {"shared_unembedding": True}, vocab_size=128)
    return write_mtp_checkpoint(tmp_path / "base", model, fits=["critic-wmtp"])


def write_data(tmp_path, rewards=(1, 0)):
    entries = [{"text": (GOOD, BAD)[i % 2] + f"  # {i}", "passed": rewards[i % 2]} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def run(tmp_path, base, *, name="run", steps=30, section="credit: token", packing="true"):
    recipe = RECIPE.format(name=name, steps=steps, section=section, packing=packing)
    (tmp_path / "recipe.yaml").write_text(recipe)
    paths = {"models": {"base": [str(base)]}, "output_dir": str(tmp_path / "runs")}
    config = {"paths": paths, "devices": {"device": "cpu"}, "tracking": {"report_to": []}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    return wmtp.train(wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize(
    ("section", "packing"),
    [("credit: token", "true"), ("normalize: horizon, folds: 1", "false"), ("credit: return", "true")],
)
def test_value_heads_are_fitted_then_used_and_kept_in_the_checkpoint(tmp_path, base, section, packing):
    write_data(tmp_path)
    result = run(tmp_path, base, section=section, packing=packing)
    assert len(result.explained_variance) == 10
    assert max(result.explained_variance) > 0.5
    figures, heads = read_state(open_store(result.final_checkpoint))
    assert set(figures) == {"reward_figures", "mean_weight"}
    assert heads["states.0.output.weight"].any()
    assert ("tokens.0.output.weight" in heads) is ("return" not in section)
    assert ("states.1.output.weight" in heads) is ("folds: 1" not in section)
    assert wmtp.load_metadata(result.final_checkpoint).training_algorithm == "critic"
    assert not torch.equal(wmtp.load_model(base).trunk.lm_head.weight, result.model.trunk.lm_head.weight)


def test_the_same_seed_gives_the_same_model(tmp_path, base):
    write_data(tmp_path)
    one, other = (read_state(open_store(run(tmp_path, base, name=name).final_checkpoint)) for name in ("one", "other"))
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_the_first_stage_changes_nothing_but_value_heads(tmp_path, base, monkeypatch):
    write_data(tmp_path)
    changed = []

    def fit_and_compare(algorithm, model, *rest):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        explained = fit_values(algorithm, model, *rest)
        changed.extend(name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor))
        return explained

    monkeypatch.setattr(prepared, "fit_values", fit_and_compare)
    run(tmp_path, base)
    assert changed
    assert all(name.startswith("value_heads.") for name in changed)


def test_running_figures_are_those_of_training_not_of_the_fit(tmp_path, base, monkeypatch):
    write_data(tmp_path)
    seen = {}

    def fit_and_look(algorithm, *rest):
        explained = fit_values(algorithm, *rest)
        seen.update(algorithm.state())
        return explained

    monkeypatch.setattr(prepared, "fit_values", fit_and_look)
    result = run(tmp_path, base, section="scope: ema")
    assert not seen["mean_weight"].any()
    assert read_state(open_store(result.final_checkpoint))[0]["mean_weight"].all()


def test_a_further_run_begins_with_the_value_heads_that_the_checkpoint_has(tmp_path, base):
    write_data(tmp_path)
    first = run(tmp_path, base)
    write_data(tmp_path, rewards=(0.9, 0.2))
    again = run(tmp_path, first.final_checkpoint, name="again", steps=0)
    assert again.explained_variance is None
    kept, later = (read_state(open_store(each.final_checkpoint)) for each in (first, again))
    assert torch.allclose(kept[1]["tokens.0.hidden.weight"], later[1]["tokens.0.hidden.weight"], atol=0.1)
    assert torch.equal(kept[0]["reward_figures"], later[0]["reward_figures"])
    assert kept[0]["reward_figures"].tolist() == [40, 0.5, 0.5]


def test_without_value_heads_and_without_a_first_stage_the_run_is_refused(tmp_path, base):
    write_data(tmp_path)
    with pytest.raises(TrainingError, match="has no value heads of this kind from an earlier run, and critic-wmtp is"):
        run(tmp_path, base, steps=0)


def test_heads_of_another_credit_are_left_aside_by_name_and_fitted_anew(tmp_path, base, caplog):
    write_data(tmp_path)
    first = run(tmp_path, base, section="credit: return")
    with pytest.raises(TrainingError, match="has no value heads of this kind from an earlier run"):
        run(tmp_path, first.final_checkpoint, name="none", steps=0)
    again = run(tmp_path, first.final_checkpoint, name="again")
    assert "holds value heads of states in 2 folds; this run needs value heads of states and tokens in 2" in caplog.text
    assert max(again.explained_variance) > 0.5


def test_a_checkpoint_of_the_older_kind_is_read_and_says_what_it_is(tmp_path, base, caplog):
    write_data(tmp_path)
    first = run(tmp_path, base)
    path = tmp_path / "runs" / "run" / "final" / ALGORITHM_STATE_FILE
    kept = load_file(path)
    old = {name.replace("states.0.", ""): kept[name] for name in kept if "states.0." in name}
    save_file(old | {"algorithm.advantage_squares": torch.ones(2, dtype=torch.float64)}, path)
    again = run(tmp_path, first.final_checkpoint, name="again")
    assert "holds the value head of critic-wmtp as it was before credit for tokens" in caplog.text
    assert max(again.explained_variance) > 0.5


@pytest.mark.parametrize("damage", ["missing", "shape", "unknown"])
def test_a_state_that_does_not_fit_is_refused_by_name(tmp_path, base, damage):
    write_data(tmp_path)
    first = run(tmp_path, base)
    path = tmp_path / "runs" / "run" / "final" / ALGORITHM_STATE_FILE
    tensors = load_file(path)
    name = "value_head.tokens.1.output.weight"
    kept = tensors.pop(name)
    changed = {"missing": {}, "shape": {name: torch.ones(1, 5)}, "unknown": {name: kept, "value_head.x": kept + 1}}
    save_file(tensors | changed[damage], path)
    with pytest.raises(CheckpointError, match="the value heads in it do not fit this model"):
        run(tmp_path, first.final_checkpoint, name="again", steps=0)


def damaged(tmp_path, **figures):
    path = tmp_path / "runs" / "run" / "final" / ALGORITHM_STATE_FILE
    save_file(load_file(path) | {f"algorithm.{name}": torch.tensor(figure) for name, figure in figures.items()}, path)


@pytest.mark.parametrize(
    ("figures", "problem"),
    [
        ({"reward_figures": [40.0, 0.5, -0.5]}, "reward_figures are 40 documents, mean 0.5, deviation -0.5"),
        ({"mean_weight": [-1.0, 1.0]}, "a running sum is below 0 or not finite"),
        ({"mean_weight": [1.0]}, "the state of critic-wmtp holds"),
        ({"mean_weight": [1, 1]}, "cannot be restored"),
    ],
)
def test_figures_that_no_run_leaves_are_refused(tmp_path, base, figures, problem):
    write_data(tmp_path)
    first = run(tmp_path, base)
    damaged(tmp_path, **figures)
    with pytest.raises(CheckpointError, match=problem):
        run(tmp_path, first.final_checkpoint, name="again", steps=0)


def test_rewards_in_another_unit_than_value_heads_have_learned_are_refused(tmp_path, base):
    write_data(tmp_path)
    first = run(tmp_path, base)
    write_data(tmp_path, rewards=(150, 100))
    with pytest.raises(TrainingError, match="rewards are 100 to 150, and the value heads of the base model have"):
        run(tmp_path, first.final_checkpoint, name="again", steps=0)


def test_a_mode_that_shares_weight_between_heads_needs_two_of_them(tmp_path):
    model = tiny_mtp("llama", 1, "linear", vocab_size=128)
    single = write_mtp_checkpoint(tmp_path / "single", model, fits=["critic-wmtp"])
    write_data(tmp_path)
    with pytest.raises(TrainingError, match="shares weight between the heads of a position here, and 1 is trained"):
        run(tmp_path, single, section="normalize: horizon")


def test_too_few_documents_for_folds_are_refused_before_anything_is_scored(tmp_path, base):
    (tmp_path / "data.jsonl").write_text('{"text": "x = 1", "passed": 1}\n' * 4)
    with pytest.raises(DataError, match=r"1 different document in it, too few for critic\.folds: 2"):
        run(tmp_path, base)
    assert not (tmp_path / "runs").exists()


def test_equal_rewards_are_refused_before_anything_is_trained(tmp_path, base):
    write_data(tmp_path, rewards=(1, 1))
    with pytest.raises(
        TrainingError, match=r"the column 'passed' of data\.train gives the same reward, 1, to all of the"
    ):
        run(tmp_path, base)
    assert not (tmp_path / "runs" / "run").exists()


def test_value_heads_that_learn_nothing_stop_the_run_before_the_trunk_is_touched(tmp_path, base):
    entries = [{"text": f"value_{i % 7} = {i % 5}", "passed": (i * 7919) % 11 % 2} for i in range(200)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    with pytest.raises(TrainingError, match="noise"):
        run(tmp_path, base, steps=2)
    assert not list((tmp_path / "runs").rglob("final"))


def test_a_missing_reward_is_named_with_its_line(tmp_path, base):
    write_data(tmp_path)
    with (tmp_path / "data.jsonl").open("a") as file:
        file.write('{"text": "x = 1"}\n')
    with pytest.raises(DataError, match=r"data.jsonl:41: the key 'passed' is missing"):
        run(tmp_path, base)


def provenance(result):
    return wmtp.load_metadata(result.final_checkpoint).provenance


def test_a_checkpoint_says_which_rewards_it_was_trained_on(tmp_path, base):
    write_data(tmp_path)
    first, again = (provenance(run(tmp_path, base, name=name)) for name in ("first", "again"))
    assert list(first["scores"]) == ["reward", "fold"]
    assert first["scores"]["reward"].startswith("sha256:")
    assert again["scores"] == first["scores"]
    write_data(tmp_path, rewards=(1, 0.25))
    other = provenance(run(tmp_path, base, name="other"))
    assert other["scores"] != first["scores"]
    assert other["data"] == first["data"]  # the same tokens


def test_a_run_that_ends_in_its_first_stage_leaves_no_directory(tmp_path, base, monkeypatch):
    write_data(tmp_path)
    monkeypatch.setattr("wmtp.algorithms.critic_wmtp.LEAST_EXPLAINED", 1.1)
    with pytest.raises(TrainingError, match="weights would be noise"):
        run(tmp_path, base)
    assert not (tmp_path / "runs" / "run").exists()
    monkeypatch.undo()
    assert run(tmp_path, base).steps == 3


def test_a_run_whose_rewards_tell_nothing_leaves_no_directory(tmp_path, base):
    write_data(tmp_path, rewards=(1, 1))
    with pytest.raises(TrainingError):
        run(tmp_path, base)
    assert not (tmp_path / "runs" / "run").exists()
