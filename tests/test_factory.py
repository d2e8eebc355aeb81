import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import metadata_document
from wmtp.errors import IncompatibleModelError
from wmtp.factory import ComponentFactory, Resolution, create_model_loader, resolve_models
from wmtp.registry import algorithms
from wmtp.settings.config import Config, Models, Paths, Trust
from wmtp.settings.recipe import MTP, Data, Recipe, Run, TrainingData, TrainSection

ALL = ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]


def write_metadata(directory: Path, wmtp_type: str = "base_model", heads: int | None = 4, **fields: object) -> str:
    """A candidate that holds nothing but a metadata.json; heads None: a plain next-token model."""
    strategy: dict[str, object] = {"loader_type": "huggingface", "transformers_class": "AutoModelForCausalLM"}
    if heads is not None:
        strategy = {"loader_type": "custom_mtp", "model_class_name": "MTPForCausalLM"}
        fields.setdefault("mtp", {"n_future_tokens": heads})
    document = metadata_document(strategy, wmtp_type=wmtp_type, **{"algorithm_compatibility": ALL, **fields})
    directory.mkdir()
    (directory / "metadata.json").write_text(json.dumps(document))
    return str(directory)


def tokenizer(digit: str) -> dict[str, object]:
    return {"sha256": digit * 64, "vocab_size": 100}


def config(**roles: list[str]) -> Config:
    return Config(paths=Paths(models=Models.model_validate(roles)))


def recipe(algorithm: str = "baseline-mtp", horizon: int | None = None) -> Recipe:
    return Recipe(
        run=Run(name="r"),
        data=Data(train=TrainingData(files=["a.txt"])),
        mtp=MTP(horizon=horizon),
        train=TrainSection(algo=algorithm, max_steps=1),
    )


def refused(settings: Config, wanted: Recipe) -> IncompatibleModelError:
    with pytest.raises(IncompatibleModelError) as caught:
        resolve_models(settings, wanted)
    return caught.value


def test_every_role_of_the_algorithm_gets_its_model_from_metadata_alone(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base")
    ref = write_metadata(tmp_path / "ref", "reference_model", None)
    rm = write_metadata(tmp_path / "rm", "reward_model", None)
    settings = config(base=[base], ref=[ref], rm=[rm])
    picked = {name: resolve_models(settings, recipe(name)).chosen for name in ALL}
    assert {name: {role: found.uri for role, found in chosen.items()} for name, chosen in picked.items()} == {
        "baseline-mtp": {"base": base},
        "rho1-wmtp": {"base": base, "ref": ref},
        "critic-wmtp": {"base": base, "rm": rm},
    }


def test_the_first_candidate_that_fits_is_taken_and_those_before_it_are_explained(tmp_path: Path) -> None:
    reward = write_metadata(tmp_path / "reward", "reward_model", None)
    first = write_metadata(tmp_path / "first")
    second = write_metadata(tmp_path / "second")
    resolution = resolve_models(config(base=[reward, first, second]), recipe(horizon=4))
    assert resolution.describe() == [
        f"base: {first} (base_model, llama, 4 heads)",
        (
            f"not base: {reward}: wmtp_type is 'reward_model', and this role needs 'base_model'; "
            "list it under paths.models.rm, and a base_model here, such as 'wmtp grow' makes of a plain model"
        ),
    ]
    assert resolution.to_dict() == {
        "algorithm": "baseline-mtp",
        "chosen": {
            "base": {"uri": first, "wmtp_type": "base_model", "base_architecture": "llama", "num_heads": 4},
        },
        "rejected": [
            {
                "role": "base",
                "uri": reward,
                "reason": "wmtp_type is 'reward_model', and this role needs 'base_model'",
                "fix": "list it under paths.models.rm, and a base_model here, such as 'wmtp grow' makes of a plain"
                " model",
            }
        ],
    }
    assert pickle.loads(pickle.dumps(resolution)) == resolution
    assert isinstance(json.dumps(resolution.to_dict()), str)


def test_a_base_model_offered_as_reward_model_is_refused(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base")
    error = refused(config(base=[base], rm=[base]), recipe("critic-wmtp"))
    assert str(error) == (
        "No compatible model found for critic-wmtp, in the role of rm\n"
        f"  rm: {base}: wmtp_type is 'base_model', and this role needs 'reward_model'; "
        "list it under paths.models.base, and a reward_model here\n"
        "hint: make one of the changes named above; 'wmtp ls DIRECTORY' shows which models are there"
    )
    assert isinstance(error, ValueError)


def test_a_model_that_does_not_serve_the_algorithm_is_refused_with_the_edit_that_would_change_it(
    tmp_path: Path,
) -> None:
    base = write_metadata(tmp_path / "base", algorithm_compatibility=["baseline-mtp"])
    ref = write_metadata(tmp_path / "ref", "reference_model", None)
    (fault,) = refused(config(base=[base], ref=[ref]), recipe("rho1-wmtp")).faults
    assert fault == (
        f"base: {base}: algorithm_compatibility is ['baseline-mtp'], without 'rho1-wmtp'; "
        f'add "rho1-wmtp" to algorithm_compatibility in {base}/metadata.json, if the model may serve it'
    )


def test_a_base_model_with_fewer_heads_than_the_horizon_is_refused(tmp_path: Path) -> None:
    plain = write_metadata(tmp_path / "plain", heads=None)
    two = write_metadata(tmp_path / "two", heads=2)
    assert refused(config(base=[plain, two]), recipe(horizon=4)).faults == (
        (
            f"base: {plain}: has 1 prediction head(s), and mtp.horizon is 4; "
            f"make one with 'wmtp grow {plain} DST --heads 4', or set mtp.horizon: 1"
        ),
        f"base: {two}: has 2 prediction head(s), and mtp.horizon is 4; set mtp.horizon: 2",
    )


def test_without_a_horizon_a_plain_model_is_a_base_model_too(tmp_path: Path) -> None:
    plain = write_metadata(tmp_path / "plain", heads=None)
    assert resolve_models(config(base=[plain]), recipe()).chosen["base"].uri == plain


def test_a_custom_class_that_does_not_say_its_heads_is_left_to_the_load_plan(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base", heads=4, mtp=None)
    assert resolve_models(config(base=[base]), recipe(horizon=4)).chosen["base"].uri == base


def test_the_horizon_asks_nothing_of_a_reference_model(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base")
    ref = write_metadata(tmp_path / "ref", "reference_model", None)
    assert resolve_models(config(base=[base], ref=[ref]), recipe("rho1-wmtp", 4)).chosen["ref"].uri == ref


def test_a_reference_with_another_tokenizer_than_the_base_model_is_passed_over(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base", tokenizer=tokenizer("a"))
    other = write_metadata(tmp_path / "other", "reference_model", None, tokenizer=tokenizer("b"))
    same = write_metadata(tmp_path / "same", "reference_model", None, tokenizer=tokenizer("a"))
    silent = write_metadata(tmp_path / "silent", "reference_model", None)
    resolution = resolve_models(config(base=[base], ref=[other, same]), recipe("rho1-wmtp"))
    assert resolution.chosen["ref"].uri == same
    assert (
        resolution.rejected[0].reason == "its tokenizer is bbbbbbbbbbbb..., that of the base model is aaaaaaaaaaaa..."
    )
    assert resolution.rejected[0].fix == f"name a model with the tokenizer of {base} under paths.models.ref"
    assert resolve_models(config(base=[base], ref=[silent]), recipe("rho1-wmtp")).chosen["ref"].uri == silent


def test_metadata_that_cannot_be_read_is_the_reason_and_brings_its_own_hint(tmp_path: Path) -> None:
    absent, empty, broken = tmp_path / "absent", tmp_path / "empty", tmp_path / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "metadata.json").write_text("{")
    remote = "az://lab/model"
    faults = refused(config(base=[str(absent), str(empty), str(broken), remote]), recipe()).faults
    assert faults[0].startswith(f"base: {absent}: no such directory; check the path; beside it are: 'broken', 'empty'")
    assert faults[1] == f"base: {empty}: metadata.json: no such file; draft one with 'wmtp init {empty}'"
    assert faults[2].startswith(f"base: {broken}: metadata.json: is not JSON")
    assert faults[3].startswith(f"base: {remote}: az://lab: the environment does not say which")


def test_metadata_with_several_faults_shows_the_first_of_them(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base", training_algorithm="x", base_architecture=3)
    (fault,) = refused(config(base=[base]), recipe()).faults
    assert f"{base}: metadata.json: 2 faults; training_algorithm is 'x'" in fault


def test_roles_that_fail_are_reported_together_and_a_missing_candidate_names_its_key(tmp_path: Path) -> None:
    reward = write_metadata(tmp_path / "reward", "reward_model", None)
    error = refused(config(base=[reward]), recipe("rho1-wmtp"))
    assert error.problem == "No compatible model found for rho1-wmtp, in the role of base, ref"
    assert error.faults[0].startswith(f"base: {reward}: wmtp_type is 'reward_model'")
    assert error.faults[1:] == ("ref: no candidate is configured; name a reference_model under paths.models.ref",)


def test_resolving_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    base = write_metadata(tmp_path / "base")
    (tmp_path / "c.yaml").write_text(f"paths: {{models: {{base: {base}}}}}")
    (tmp_path / "r.yaml").write_text(
        "run: {name: r}\ndata: {train: {files: a}}\ntrain: {algo: baseline-mtp, max_steps: 1}\n"
    )
    code = (
        "import sys, wmtp; wmtp.resolve_models(wmtp.load_config('c.yaml'), wmtp.load_recipe('r.yaml'))\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 0


def test_the_factory_builds_the_algorithm_of_the_recipe_with_its_section() -> None:
    algorithm = algorithms.get("rho1-wmtp")
    section = algorithm.section(keep_ratio=0.5)
    wanted = recipe("rho1-wmtp").model_copy(update={"algorithm_section": section})
    built = ComponentFactory.create_algorithm(wanted)
    assert isinstance(built, algorithm)
    assert built.settings == section


def test_no_algorithm_and_no_strategy_is_named_in_the_factory() -> None:
    source = Path(sys.modules[Resolution.__module__].__file__).read_text()
    assert not [name for name in [*ALL, "custom_mtp", "huggingface", "baseline", "critic", "rho1"] if name in source]


def test_the_loader_for_a_recipe_loads_the_base_model_that_was_picked(tmp_path: Path) -> None:
    import torch

    from checkpoints import write_custom

    consent, model = write_custom(tmp_path / "toy")
    reward = write_metadata(tmp_path / "reward", "reward_model", None)
    models = Models(base=[reward, str(tmp_path / "toy")])
    settings = Config(paths=Paths(models=models), trust=Trust(allow_code=consent))
    loaded = create_model_loader(settings, recipe()).load_model()
    assert torch.equal(loaded.embedding.weight, model.embedding.weight)
    assert settings.paths.models == models
