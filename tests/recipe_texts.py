"""Recipes as text, read as a user's file is."""

from __future__ import annotations

from pathlib import Path

import pytest

from wmtp.errors import SettingsError
from wmtp.settings.recipe import Recipe, load_recipe

SMALL = """\
run: {name: r}
data:
  train: {files: a.txt}
train:
  algo: baseline-mtp
  max_steps: 3
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def read(tmp_path: Path, text: str = SMALL, *overrides: str) -> Recipe:
    return load_recipe(write(tmp_path / "r.yaml", text), overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, *overrides)
    return str(caught.value)
