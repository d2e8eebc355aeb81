"""The demo's zoo: every exhibit is what its metadata.json says, and its parts do what the demo shows."""

from __future__ import annotations

import pytest
import torch

import wmtp
from wmtp.algorithms.critic_wmtp import LEAST_EXPLAINED
from wmtp.demo.checks import check_equal
from wmtp.demo.completion import complete_line
from wmtp.demo.modes import MODES
from wmtp.demo.thorough import run_thorough
from wmtp.demo.tour import run_tour
from wmtp.demo.zoo import CODE_FILE, EXHIBITS, make_zoo, stdlib_sources
from wmtp.errors import TrainingError, TrustError
from wmtp.manifest import sha256_bytes


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    directory = tmp_path_factory.mktemp("zoo")
    make_zoo(directory)
    return directory


def consent(directory):
    return {CODE_FILE: sha256_bytes((directory / "gpt2-mtp" / CODE_FILE).read_bytes())}


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_every_exhibit_loads_by_its_metadata_alone(zoo, exhibit):
    result = wmtp.load(zoo / exhibit.name, allow_code=consent(zoo))
    assert result.metadata.wmtp_type == exhibit.metadata["wmtp_type"]
    assert result.receipt.kept_initial == result.receipt.left_unused == ()
    assert result.tokenizer("x = 1")["input_ids"]


def test_the_exhibit_with_its_own_code_needs_consent(zoo):
    with pytest.raises(TrustError, match=r"gpt2-mtp/modeling\.py: this checkpoint builds its model with its own code"):
        wmtp.load(zoo / "gpt2-mtp")


def test_all_exhibits_have_one_tokenizer(zoo):
    assert len({wmtp.load_metadata(zoo / exhibit.name).tokenizer.sha256 for exhibit in EXHIBITS}) == 1


def test_the_standard_library_is_enough_to_learn_from():
    assert sum(path.stat().st_size for path in stdlib_sources()) > 1_000_000


def test_a_line_is_completed_up_to_its_end(zoo):
    result = wmtp.load(zoo / "llama-mtp")
    completed = complete_line(result.model, result.tokenizer, "import o", max_new_tokens=5)
    assert completed.startswith("import o")
    assert "\n" not in completed


def test_a_reloaded_model_that_differs_is_noticed(zoo):
    result = wmtp.load(zoo / "llama-mtp")
    told: list[str] = []
    check_equal(result.model, result, told.append)
    assert told[0].endswith("equal those of the trained model in memory, bit for bit")
    other = wmtp.load_model(zoo / "llama-mtp", mmap=False)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(TrainingError, match="its outputs differ"):
        check_equal(other, result, told.append)


@pytest.mark.slow
def test_the_thorough_demo_keeps_its_promises(tmp_path):
    lines: list[str] = []
    result = run_thorough(tmp_path / "zoo", lines.append)
    assert result.steps == 300
    assert any("equal those of the trained model in memory, bit for bit" in line for line in lines)
    assert sum("not base:" in line for line in lines) == 3  # the model that fits nothing, for each algorithm
    assert [line.strip() for line in lines if line.startswith("  -- ")] == [
        f"-- {mode.algorithm}, {mode.name}" for mode in MODES
    ]
    assert sum("loads again, equal to the model in memory" in line for line in lines) == len(MODES)
    assert sum("scored:" in line for line in lines) == len(MODES)
    curves = [line.partition("of functions: ")[2] for line in lines if "value heads explain of the reward" in line]
    assert len(curves) == 3
    # A gate that a slightly other machine would not pass is no promise.
    assert min(max(map(float, curve.split())) for curve in curves) > 5 * LEAST_EXPLAINED
    reference = wmtp.load_metadata(result.run_directory / "reference")
    assert (reference.wmtp_type, reference.algorithm_compatibility) == ("reference_model", ["rho1-wmtp"])
    for name in ("token", "horizon", "return"):
        assert (result.run_directory.parent / f"demo-1-critic-{name}/final/algorithm_state.safetensors").exists()


@pytest.mark.slow
def test_the_short_demo_shows_everything_once(tmp_path):
    lines: list[str] = []
    results = run_tour(tmp_path / "zoo", lines.append, max_steps=24)
    told = "\n".join(lines)
    assert "missing: no tensor for heads.4.layer.mlp.up_proj.weight in model.safetensors" in told
    assert (
        '"key_transforms": {"^heads\\\\.4\\\\.block\\\\.": "heads.4.layer."}' in told
    )  # as it is typed into metadata.json
    assert "gpt2-mtp/modeling.py: this checkpoint builds its model with its own code" in told
    assert str(tmp_path) not in told.partition("== 5.")[0].partition("\n")[2]  # names as a reader knows them
    assert [result.run_directory.name for result in results] == [
        "demo-1",
        "demo-1-rho1-token_skip",
        "demo-1-critic-token",
    ]
    assert told.count("loads again, equal to the model in memory") == 2
    assert (tmp_path / "zoo/report.html").stat().st_size < 3_000_000
