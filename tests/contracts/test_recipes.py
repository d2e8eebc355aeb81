import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from wmtp.registry import algorithms
from wmtp.settings.config import Config, load_config
from wmtp.settings.recipe import RecipeFields, TrainSection, load_recipe

ROOT = Path(__file__).parents[2]
RECIPES = [
    "baseline_mtp",
    "critic_column",
    "critic_horizon",
    "critic_wmtp",
    "rho1_horizon",
    "rho1_online",
    "rho1_tokenskip",
    "rho1_wmtp",
]


def field_paths(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every field of a model and of the models in it, as `section.field`."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = next((m for m in (field.annotation, *get_args(field.annotation)) if _is_model(m)), None)
        found |= field_paths(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}"}
    return found


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def section_paths() -> set[str]:
    known = [algorithms.get(name) for name in algorithms.names()]
    return {path for a in known if a.section for path in field_paths(a.section, f"{a.section_name}.")}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_parses(name: str) -> None:
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml")
    assert name.startswith(recipe.train.algo.partition("-")[0])


def test_no_recipe_escapes_this_test() -> None:
    found = {path.name for path in (ROOT / "recipes").iterdir()}
    assert found == {*(f"{name}.yaml" for name in RECIPES), "config.example.yaml"}


def section(name: str) -> dict[str, Any]:
    return load_recipe(ROOT / "recipes" / f"{name}.yaml").algorithm_section.model_dump()


def test_the_rho1_recipes_differ_in_how_they_select() -> None:
    found = {name: section(f"rho1_{name}") for name in ("tokenskip", "wmtp", "horizon", "online")}
    modes = {name: values["selection_mode"] for name, values in found.items()}
    assert modes == {"tokenskip": "token_skip", "wmtp": "weighted", "horizon": "horizon", "online": "token_skip"}
    assert [name for name, values in found.items() if values["online"]] == ["online"]


def test_the_critic_recipes_differ_in_how_they_weigh_and_where_rewards_come_from() -> None:
    found = {name: section(f"critic_{name}") for name in ("wmtp", "horizon", "column")}
    assert {name: values["normalize"] for name, values in found.items()} == {
        "wmtp": "batch",
        "horizon": "horizon",
        "column": "batch",
    }
    assert {name: values["reward_column"] for name, values in found.items() if values["reward_column"]} == {
        "column": "tests_passed"
    }


def test_the_example_config_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMTP_MODELS", "s3://lab/models")
    config = load_config(ROOT / "recipes" / "config.example.yaml")
    assert config.paths.models.rm == ["s3://lab/models/mistral-reward"]


def test_the_sections_and_fields_of_both_files_are_what_we_promised() -> None:
    assert field_paths(Config) == {
        "paths.models.base",
        "paths.models.ref",
        "paths.models.rm",
        "paths.output_dir",
        "paths.cache_dir",
        "devices.device",
        "devices.dtype",
        "devices.quantize.ref",
        "devices.quantize.rm",
        "tracking.report_to",
        "tracking.experiment",
        "tracking.mlflow_uri",
        "trust.allow_code",
    }
    reading = {"files", "format", "text", "prompt", "completion", "messages", "template"}
    source = {*reading, "max_length", "packing"}
    assert field_paths(RecipeFields) - {f"train.{name}" for name in TrainSection.model_fields} == {
        *(f"data.train.{name}" for name in source),
        *(f"data.train.sources.{name}" for name in [*reading, "weight"]),
        *(f"data.validation.{name}" for name in [*source, "fraction"]),
        "data.num_proc",
        "run.name",
        "run.seed",
        "run.export_next_token",
        "mtp.horizon",
        "mtp.trunk",
        *(f"train.lora.{name}" for name in ("r", "alpha", "dropout", "target_modules")),
        "loss.head_prior",
        "loss.backend",
    }


def test_every_field_of_both_files_is_documented() -> None:
    text = (ROOT / "docs" / "recipe_format.md").read_text()
    documented = set(re.findall(r"^\| `([a-z_0-9]+\.[^`]+)` \|", text, re.MULTILINE))
    fields = field_paths(Config) | field_paths(RecipeFields) | section_paths()
    # Validation has the fields of train and one of its own; each of several sources has those of one, and a weight.
    of_train = ("data.validation.", "data.train.sources.")
    fields = {path for path in fields if not path.startswith(of_train)} | {"data.validation.fraction"}
    fields |= {"data.train.sources"}
    assert fields <= documented
    assert documented - fields <= {"data.validation"}


def test_training_keys_are_named_as_in_transformers() -> None:
    from transformers import TrainingArguments
    from transformers.trainer_utils import SchedulerType
    from transformers.training_args import OptimizerNames

    ours = set(TrainSection.model_fields)
    # transformers 5 folds warmup_ratio into warmup_steps, where a number below 1 is a share.
    assert ours - set(TrainingArguments.__dataclass_fields__) == {
        *("algo", "warmup_ratio"),
        *("trainable", "heads_warmup_steps", "lora", "sharding"),
        *("save_optimizer", "on_save_error"),
    }
    fields = TrainSection.model_fields
    assert set(get_args(fields["lr_scheduler_type"].annotation)) <= {item.value for item in SchedulerType}
    assert set(get_args(fields["optim"].annotation)) <= {item.value for item in OptimizerNames}
