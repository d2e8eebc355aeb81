"""Models that score and one that is scored for, written once and copied for each test."""

import shutil

import pytest

from scoring_cases import write_base, write_reference, write_reward


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    write_base(zoo / "base")
    write_reference(zoo / "ref")
    write_reward(zoo / "rm")
    return zoo


@pytest.fixture
def zoo(written, tmp_path):
    return shutil.copytree(written, tmp_path / "zoo")
