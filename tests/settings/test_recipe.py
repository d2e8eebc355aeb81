import json
import pickle
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from recipe_texts import SMALL, read, refused, write
from wmtp.errors import SettingsError
from wmtp.faults import StrictModel
from wmtp.registry import algorithms
from wmtp.settings.recipe import load_recipe, recipe_json_schema, split_overrides

RHO1 = SMALL.replace("baseline-mtp", "rho1-wmtp")


def test_the_example_of_the_format_is_read_in_full(tmp_path: Path) -> None:
    text = """
run: {name: rho1-code, seed: 42}
data:
  train: {files: ["data/*.jsonl"], format: prompt_completion, prompt: text, completion: code, max_length: 512}
  validation: {files: ["data/valid.jsonl"]}
mtp: {horizon: 4}
train:
  algo: rho1-wmtp
  learning_rate: 2.0e-5
  max_steps: 3000
  per_device_train_batch_size: 2
  gradient_accumulation_steps: 8
  warmup_ratio: 0.03
  lr_scheduler_type: cosine
  max_grad_norm: 1.0
  eval_steps: 200
  save_steps: 500
  save_total_limit: 3
loss: {head_prior: uniform, backend: auto}
rho1: {selection_mode: token_skip, keep_ratio: 0.6, scope: batch}
"""
    recipe = read(tmp_path, text)
    assert recipe.train.learning_rate == 2e-5
    assert recipe.train.warmup == 0.03
    assert recipe.data.train.files == [f"{tmp_path}/data/*.jsonl"]
    assert recipe.data.validation is not None
    assert recipe.data.validation.files == [f"{tmp_path}/data/valid.jsonl"]
    assert (recipe.data.validation.prompt, recipe.data.validation.max_length) == ("text", 512)
    assert recipe.algorithm_section is not None
    assert recipe.algorithm_section.model_dump()["keep_ratio"] == 0.6
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_the_section_of_an_algorithm_may_be_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, RHO1).algorithm_section.model_dump()["keep_ratio"] == 0.7
    assert read(tmp_path, SMALL).algorithm_section is None


def test_a_recipe_written_out_with_its_defaults_reads_as_the_same_recipe(tmp_path: Path) -> None:
    recipe = read(tmp_path, RHO1 + "rho1: {keep_ratio: 0.5}\nloss: {head_prior: {decay: 0.8}}\n")
    again = load_recipe(write(tmp_path / "again.yaml", json.dumps(recipe.to_document())))
    assert again == recipe
    assert recipe.to_document()["rho1"]["keep_ratio"] == 0.5


def test_a_plug_in_brings_its_own_section_and_what_it_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Section(StrictModel):
        strength: float

    class PlugIn(algorithms.get("baseline-mtp")):
        section, section_name = Section, "plug"

    monkeypatch.setitem(algorithms._registered, "plug-in", PlugIn)
    text = SMALL.replace("baseline-mtp", "plug-in")
    assert read(tmp_path, text + "plug: {strength: 2}\n").algorithm_section == Section(strength=2.0)
    assert "plug.strength is missing" in refused(tmp_path, text)
    assert split_overrides(["plug.strength=1"]) == ([], ["plug.strength=1"])


def test_a_section_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, SMALL + "rho1: {}\n") == (
        f"{tmp_path}/r.yaml:7: rho1 is the section of rho1-wmtp, and train.algo is 'baseline-mtp'\n"
        "hint: remove it, or set train.algo: rho1-wmtp"
    )


def test_a_misspelt_section_is_recognised_among_those_of_the_algorithm(tmp_path: Path) -> None:
    assert "r.yaml:7: rho is not a known field (did you mean 'rho1'?)" in refused(tmp_path, RHO1 + "rho: {}\n")


def test_an_unknown_algorithm_is_refused_and_its_section_is_still_checked(tmp_path: Path) -> None:
    text = refused(tmp_path, SMALL.replace("baseline-mtp", "rho1-wmpt") + "rho1:\n  keep_ratio: 2\n")
    assert "r.yaml:5: train.algo is 'rho1-wmpt'; use one of 'baseline-mtp', 'critic-wmtp', 'rho1-wmtp'" in text
    assert "(did you mean 'rho1-wmtp'?)" in text
    assert "r.yaml:8: rho1.keep_ratio is 2: input should be less than or equal to 1" in text


def test_every_fault_of_a_recipe_and_its_overrides_comes_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
run: {name: ../up, sed: 1}
data:
  train: {files: [], format: text}
mtp: {horizon: 0}
train:
  algo: baseline-mtp
  learning_rat: 2e-5
  max_steps: 1e3
  warmup_ratio: no
loss: {head_prior: [0, 0]}
"""
    lines = refused(tmp_path, text, "train.optim=adam").splitlines()
    places = [line.strip().removeprefix(f"{tmp_path}/").partition(": ")[::2] for line in lines[1:-1]]
    assert [(place, problem.split(" ")[0]) for place, problem in places] == [
        ("r.yaml:1", "run.name"),
        ("r.yaml:1", "run.sed"),
        ("r.yaml:3", "data.train.files"),
        ("r.yaml:4", "mtp.horizon"),
        ("r.yaml:7", "train.learning_rat"),
        ("r.yaml:8", "train.max_steps"),
        ("r.yaml:9", "train.warmup_ratio"),
        ("r.yaml:10", "loss.head_prior"),
        ("override train.optim=adam", "train.optim"),
    ]
    assert "train.max_steps is 1000.0: input should be a valid integer" in "\n".join(lines)
    assert "train.learning_rat is not a known field (did you mean 'learning_rate'?)" in "\n".join(lines)


def test_the_length_of_a_run_is_given_exactly_once(tmp_path: Path) -> None:
    neither = SMALL.replace("  max_steps: 3\n", "")
    assert "r.yaml:4: train needs either max_steps or num_train_epochs" in refused(tmp_path, neither)
    assert "needs either max_steps or num_train_epochs" in refused(tmp_path, SMALL, "train.num_train_epochs=1")
    assert read(tmp_path, SMALL, "train.max_steps=null", "train.num_train_epochs=0.5").train.num_train_epochs == 0.5


def test_the_warm_up_is_given_as_steps_or_as_a_share(tmp_path: Path) -> None:
    assert read(tmp_path, SMALL).train.warmup == 0
    assert read(tmp_path, SMALL, "train.warmup_steps=20").train.warmup == 20
    assert "has both" in refused(tmp_path, SMALL, "train.warmup_steps=20", "train.warmup_ratio=0.1")


@pytest.mark.parametrize("value", [".inf", ".nan", "1e999", "-1", "2"])
def test_a_number_out_of_its_range_is_refused(tmp_path: Path, value: str) -> None:
    text = refused(tmp_path, SMALL, f"train.learning_rate={value}")
    assert text.startswith(f"override train.learning_rate={value}: train.learning_rate is ")


@pytest.mark.parametrize("prior", ["uniform", "{decay: 0.8}", "[1, 0.5]", "[1, 0]"])
def test_every_form_of_the_head_prior_is_read(tmp_path: Path, prior: str) -> None:
    assert read(tmp_path, SMALL, f"loss.head_prior={prior}").loss.head_prior == YAML(typ="safe").load(prior)


@pytest.mark.parametrize("prior", ["unifrom", "{deca: 1}", "{decay: -1}", "{decay: true}", "[-1, 2]", "[]", ".nan"])
def test_a_head_prior_without_meaning_is_refused_once(tmp_path: Path, prior: str) -> None:
    text = refused(tmp_path, SMALL, f"loss.head_prior={prior}")
    assert "loss.head_prior is " in text.splitlines()[0]
    assert text.endswith("hint: use uniform, {decay: 0.8}, or a list of one weight for each head")


def test_a_head_prior_has_one_weight_for_each_head(tmp_path: Path) -> None:
    text = refused(tmp_path, SMALL, "mtp.horizon=3", "loss.head_prior=[1, 1]")
    assert "loss.head_prior has 2 weights, and mtp.horizon is 3" in text


def test_overrides_reach_every_section(tmp_path: Path) -> None:
    recipe = read(tmp_path, RHO1, 'data.train.files=["x.txt"]', "train.max_steps=10", "rho1.keep_ratio=0.3")
    assert recipe.data.train.files == [f"{tmp_path}/x.txt"]
    assert recipe.train.max_steps == 10
    assert recipe.algorithm_section.model_dump()["keep_ratio"] == 0.3


def test_overrides_are_sent_to_the_file_that_their_first_key_belongs_to() -> None:
    mixed = ["train.max_steps=1", "paths.output_dir=x", "rho1.keep_ratio=1", "devices.device=cpu"]
    assert split_overrides(mixed) == (
        ["paths.output_dir=x", "devices.device=cpu"],
        ["train.max_steps=1", "rho1.keep_ratio=1"],
    )


def test_an_override_of_no_known_section_lists_the_sections() -> None:
    with pytest.raises(SettingsError) as caught:
        split_overrides(["trian.max_steps=1"])
    assert str(caught.value) == (
        "override trian.max_steps=1: 'trian' is a section of neither config.yaml nor recipe.yaml\n"
        "hint: begin with one of paths, devices, tracking, trust, run, data, mtp, train, loss, critic, rho1"
        " (did you mean 'train'?)"
    )


def test_the_json_schema_has_the_sections_of_all_algorithms() -> None:
    schema = recipe_json_schema()
    assert {"run", "data", "train", "rho1", "critic"} <= set(schema["properties"])
    assert schema["required"] == ["run", "data", "train"]
    assert schema["additionalProperties"] is False
    assert "algorithm_section" not in json.dumps(schema)


@pytest.mark.parametrize(
    ("train", "mtp", "fault"),
    [
        ("lora: {r: 2}", "{}", "train.lora is given, and train.trainable is 'all'"),
        ("trainable: heads, heads_warmup_steps: 2", "{}", "heads_warmup_steps is 2, and train.trainable is 'heads'"),
        ("trainable: lora", "{trunk: frozen}", "mtp.trunk is 'frozen', and train.trainable is 'lora': adapters change"),
        ("trainable: heads", "{trunk: detached}", "mtp.trunk is 'detached', and train.trainable is 'heads': no loss"),
        (
            "heads_warmup_steps: 2",
            "{trunk: frozen}",
            "mtp.trunk is 'frozen', and train.heads_warmup_steps is 2: nothing",
        ),
        ("trainable: lora, lora: {target_modules: []}", "{}", "train.lora.target_modules"),
        ("trainable: lora, lora: {r: 0}", "{}", "train.lora.r is 0"),
    ],
)
def test_what_is_trained_is_said_without_contradiction(tmp_path: Path, train: str, mtp: str, fault: str) -> None:
    assert fault in refused(tmp_path, SMALL + f"  {train.replace(', ', chr(10) + '  ', 1)}\nmtp: {mtp}\n")


def test_adapters_without_settings_have_the_usual_ones_written_out(tmp_path: Path) -> None:
    recipe = read(tmp_path, SMALL + "  trainable: lora\n")
    assert recipe.to_document()["train"]["lora"] == {"r": 16, "alpha": 32.0, "dropout": 0.0}
    assert read(tmp_path, SMALL).train.lora is None
