"""`--distributions DIR`: the distributions that `make dist` built; without it they are built for the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--distributions", type=Path, default=None, help="the directory that `make dist` has built into")


@pytest.fixture(scope="session")
def dist(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one wheel and one source distribution."""
    built = request.config.getoption("--distributions")
    if built is None:
        built = tmp_path_factory.mktemp("dist")
        subprocess.run([Path(sys.executable).with_name("uv"), "build", "--quiet", "--out-dir", built, ROOT], check=True)
    return built.resolve()
