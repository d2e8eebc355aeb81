"""Installing wmtp brings no library that is not used."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from wmtp.extras import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULE_NAMES = {"google-re2": "re2", "ruamel.yaml": "ruamel", "pyOpenSSL": "OpenSSL", "mlflow-skinny": "mlflow"}
# Never imported by us, and needed all the same.
NEEDED_BY = {
    "gguf": "transformers, to read GGUF files",
    "pyOpenSSL": "model-signing, which does not declare it",
    "alembic": "MLflow, to keep runs in SQLite, which mlflow-skinny does not declare",
    "sqlalchemy": "MLflow, to keep runs in SQLite, which mlflow-skinny does not declare",
    "trackio": "the Trainer, with tracking.report_to: [trackio]",
    "wandb": "the Trainer, with tracking.report_to: [wandb]",
}
# wmtp[train] within another extra is what stands under that name.
BY_EXTRA = {
    name: [line for line in lines if not line.startswith("wmtp[")]
    for name, lines in PROJECT["optional-dependencies"].items()
}
BROUGHT = [line for name, lines in BY_EXTRA.items() if name not in ("bench", "dev", "docs") for line in lines]


def imported_modules() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def name_of(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement).group()


def module_of(requirement: str) -> str:
    return MODULE_NAMES.get(name := name_of(requirement), name.replace("-", "_"))


IMPORTED = imported_modules()


@pytest.mark.parametrize("requirement", PROJECT["dependencies"] + BROUGHT)
def test_a_library_that_is_installed_is_imported_or_needed_by_one_that_is(requirement):
    name, module = name_of(requirement), module_of(requirement)
    assert (module in IMPORTED) is not (name in NEEDED_BY), f"{name} is brought for nothing, or no longer an exception"
    assert ">=" in requirement, f"{name} has no floor"


def test_whoever_lacks_a_package_is_told_the_extra_that_brings_it():
    ours = {name: set(map(module_of, lines)) for name, lines in BY_EXTRA.items() if name in EXTRAS}
    assert {name: set(packages) for name, packages in EXTRAS.items()} == ours
    assert set(BY_EXTRA) - set(EXTRAS) == {"bench", "dev", "docs"}


def test_every_library_that_is_asked_for_is_pinned_without_its_build_and_torch_to_the_tested_one():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    extras = [line for lines in BY_EXTRA.values() for line in lines]
    asked = {name_of(line).lower() for line in PROJECT["dependencies"] + extras}
    assert asked - pinned == set()
    assert "torch==2.13.0" in lines
