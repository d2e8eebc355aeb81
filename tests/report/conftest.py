"""Runs whose reports are made."""

from __future__ import annotations

import pytest

from saved_runs import train_saved


@pytest.fixture(scope="session")
def rho1_run(tmp_path_factory):
    section = {"scope": "batch", "selection_mode": "token_skip", "keep_ratio": 0.5}
    return train_saved(tmp_path_factory.mktemp("rho1"), "rho1-wmtp", rho1=section)


@pytest.fixture(scope="session")
def critic_run(tmp_path_factory):
    return train_saved(tmp_path_factory.mktemp("critic"), "critic-wmtp", critic={"scope": "batch", "stage1_steps": 10})
