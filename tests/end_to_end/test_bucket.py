"""A run whose models are in a bucket: pushed, listed, planned, trained from, pushed again, loaded."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from typer.testing import CliRunner

import wmtp
from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file
from wmtp.cli.main import app

RECIPE = """\
run: {name: tiny}
data: {train: {files: code.txt, max_length: 16}}
train: {algo: baseline-mtp, max_steps: 1, gradient_accumulation_steps: 1, learning_rate: 1.0e-3}
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs one command in a directory of its own, and returns its JSON."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("wmtp")
    handlers, level = logger.handlers, logger.level

    def invoke(*arguments: str) -> dict:
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    yield invoke
    logger.handlers = handlers
    logger.setLevel(level)


def test_from_bucket_to_bucket(run, s3_bucket, tmp_path):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(vocab_size=98))
    write_code_file(tmp_path / "code.txt")
    (tmp_path / "config.yaml").write_text(
        f"paths: {{models: {{base: s3://{s3_bucket}/zoo/mtp}}}}\ndevices: {{device: cpu}}"
    )
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    settings = ["--config", "config.yaml", "--recipe", "recipe.yaml"]

    run("push", "mtp", f"s3://{s3_bucket}/zoo/mtp")
    assert [model["name"] for model in run("ls", f"s3://{s3_bucket}")["models"]] == ["zoo/mtp"]
    weights = (tmp_path / "mtp" / "model.safetensors").stat().st_size
    assert run("plan", *settings)["models"]["base"]["bytes_to_fetch"] == weights

    trained = run("train", *settings)
    assert run("plan", *settings)["models"]["base"]["bytes_to_fetch"] == 0
    run("push", trained["final_checkpoint"], f"s3://{s3_bucket}/runs/tiny")
    here = wmtp.load_model(trained["final_checkpoint"])
    for options in ({}, {"cache": False}):
        there = wmtp.load_model(f"s3://{s3_bucket}/runs/tiny", **options)
        assert all(torch.equal(a, b) for a, b in zip(here.parameters(), there.parameters(), strict=True))
