"""A fourth algorithm: one class in an installed package. Nothing in wmtp knows its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import CODE_LINES

ALGORITHM = '''
from pydantic import Field

from wmtp.algorithms.base import BASE, Algorithm, Role, Score
from wmtp.faults import StrictModel


class QualitySection(StrictModel):
    column: str = Field("quality", description="Key of the data that says how good a document is.")
    sharpness: float = Field(1.0, ge=0, description="How much less a token counts that the reference finds improbable.")


class QualityMTP(Algorithm):
    """Tokens of good documents count, the more the likelier a reference model finds them."""

    name = "quality-mtp"
    training_algorithm = "mtp"
    roles = (BASE, Role("ref", "reference_model", "says which tokens are likely"))
    section = QualitySection
    section_name = "quality"

    def __init__(self, section=None):
        super().__init__(section or QualitySection())
        column = Score("goodness", "column", column=self.settings.column)
        self.scores = (Score("surprise", "nll", role="ref"), column)
        self.seen = None

    def begin(self, scores):
        assert set(scores["goodness"].tolist()) == {0.0, 1.0}

    def weights(self, signals):
        import torch
        from wmtp.models.targets import shift

        surprise, goodness = signals.scores["surprise"], signals.scores["goodness"]
        assert (surprise[signals.learned] > 0).all()
        gate = goodness * torch.exp(-self.settings.sharpness * surprise)
        gates = torch.stack([shift(gate, k, 0.0) for k in range(1, signals.ce.shape[2] + 1)], dim=2)
        counted = signals.prior * signals.valid
        self.seen = gates * counted.sum() / (gates * counted).sum().clamp_min(1e-12)
        return self.seen

    def state(self):
        import torch

        return {"largest": torch.zeros(()) if self.seen is None else self.seen.max()}
'''
CONFIG = """
paths: {models: {base: ./mtp, ref: ./llama}, output_dir: ./runs}
devices: {device: cpu, dtype: float32}
tracking: {report_to: []}
"""
RECIPE = """
run: {name: fourth}
data: {train: {files: good.jsonl, max_length: 48}}
train:
  {algo: quality-mtp, learning_rate: 0.01, max_steps: 3, per_device_train_batch_size: 16,
   gradient_accumulation_steps: 1}
quality: {sharpness: 0.5}
"""
TRAIN = """
import json, wmtp
from wmtp.publishing.algorithm_state import read_state
from wmtp.storage.opening import open_store

result = wmtp.train(wmtp.load_config("config.yaml"), wmtp.load_recipe("recipe.yaml"))
loaded = wmtp.load(result.final_checkpoint)
same = all((a == b).all() for a, b in zip(result.model.parameters(), loaded.model.parameters(), strict=True))
figures, value_head = read_state(open_store(result.final_checkpoint))
print(json.dumps({
    "steps": result.steps, "same": bool(same), "made_by": loaded.metadata.training_algorithm,
    "section": loaded.metadata.provenance["recipe"]["quality"], "largest": float(figures["largest"]),
    "has_value_head": bool(value_head),
}))
"""


@pytest.fixture
def lab(tmp_path):
    """A directory on the path with an installed package, two models, and data that says how good it is."""
    (tmp_path / "my_quality.py").write_text(ALGORITHM)
    information = tmp_path / "my_quality-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-quality\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[wmtp.algorithms]\nquality-mtp = my_quality:QualityMTP\n")
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(vocab_size=98))
    write_llama_checkpoint(tmp_path / "llama")
    for name in ("mtp", "llama"):
        path = tmp_path / name / "metadata.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "algorithm_compatibility": ["quality-mtp"]}))
    lines = [{"text": f"{text}\n# {n}", "quality": n % 2} for n in range(4) for text in CODE_LINES]
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def run_python(lab: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(lab)}
    return subprocess.run(
        [sys.executable, "-B", *words], cwd=lab, capture_output=True, text=True, check=False, env=variables
    )


def plan(lab: Path, *words: str) -> subprocess.CompletedProcess[str]:
    settings = ["plan", "--config", "config.yaml", "--recipe", "recipe.yaml"]
    return run_python(lab, "-m", "wmtp.cli.main", *settings, *words, "--json")


def test_the_plan_names_its_models_and_its_scores(lab):
    done = plan(lab)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert {role: chosen["uri"] for role, chosen in facts["chosen"].items()} == {
        "base": f"{lab}/mtp",
        "ref": f"{lab}/llama",
    }
    assert [(score["name"], score["what"], score["role"]) for score in facts["scores"]] == [
        ("surprise", "nll", "ref"),
        ("goodness", "column", None),
    ]


def test_the_plan_reads_its_section(lab):
    done = plan(lab, "quality.column=goodness")
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert "good.jsonl:1: the key 'goodness' is missing" in error["faults"][0]
    assert error["faults"][0].endswith("keys found: 'text', 'quality'")
    refused = json.loads(plan(lab, "quality.sharpness=-1").stdout)["error"]
    assert refused["problem"].startswith(
        "override quality.sharpness=-1: quality.sharpness is -1: input should be greater"
    )


def test_it_trains_and_its_checkpoint_loads_again(lab):
    done = run_python(lab, "-c", TRAIN)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert facts["steps"] == 3
    assert facts["same"]
    assert facts["made_by"] == "mtp"
    assert facts["section"] == {"column": "quality", "sharpness": 0.5}
    assert facts["largest"] > 1
    assert not facts["has_value_head"]
    assert list((lab / "runs" / "scores").iterdir())
    reported = run_python(lab, "-m", "wmtp.cli.main", "report", "runs/fourth")
    assert reported.returncode == 0, reported.stderr
    page = (lab / "runs" / "fourth" / "report.html").read_text()
    assert '"surprise":"loss of the reference model (nats)"' in page
    assert '"goodness":"quality of the text, as in the data"' in page


def test_without_its_package_its_name_is_unknown(lab):
    settings = ["--config", "config.yaml", "--recipe", "recipe.yaml"]
    # -P: the directory of the test is not on the path, so the package is not installed.
    command = [sys.executable, "-P", "-m", "wmtp.cli.main", "plan", *settings]
    without = subprocess.run(command, cwd=lab, capture_output=True, text=True, check=False)
    assert without.returncode == 1
    assert "train.algo is 'quality-mtp'" in without.stderr
