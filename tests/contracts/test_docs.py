"""What the documents show is true: links lead somewhere, documents validate, examples run."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

import wmtp
from wmtp.cli.main import app
from wmtp.metadata.file import METADATA_FILE, parse_metadata
from wmtp.models.adapter import trainable

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
EXTENDING = ROOT / "docs/extending.md"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(document: Path, language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(document.read_text()) if found == language]


def named_blocks() -> dict[str, str]:
    return {block.splitlines()[0].removeprefix("# "): block for block in blocks(EXTENDING, "python")}


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file_and_a_heading(document):
    for link in _LINK.findall(_BLOCK.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), f"{document.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{document.name}: {link}"


def test_every_whole_metadata_document_that_is_shown_validates():
    documents = [text for text in blocks(ROOT / "docs/metadata_format.md", "json") if "wmtp_type" in text]
    assert len(documents) >= 4
    for text in documents:
        parse_metadata(text.encode(), where="docs/metadata_format.md")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_python_example_is_python(document):
    for block in blocks(document, "python"):
        compile(block, document.name, "exec")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_exists_with_its_options(document):
    program = typer.main.get_command(app)
    shown = [line for _, block in _BLOCK.findall(document.read_text()) for line in block.splitlines()]
    for line in shown:
        if not line.startswith("wmtp "):
            continue
        _, verb, *words = line.partition("#")[0].partition(" -- ")[0].split()
        command = program.get_command(None, verb)
        assert command is not None, line
        if hasattr(command, "commands"):  # a group: the next word is one of its own
            command = command.commands[words[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def test_the_settings_of_the_readme_are_valid(tmp_path):
    config, recipe = blocks(ROOT / "README.md", "yaml")
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert len(wmtp.load_config(tmp_path / "config.yaml").paths.models.base) == 2
    assert wmtp.load_recipe(tmp_path / "recipe.yaml").train.algo == "baseline-mtp"


@pytest.fixture
def gru(tmp_path):
    """The checkpoint of docs/extending.md, made by following the page."""
    directory = tmp_path / "gru"
    directory.mkdir()
    examples = named_blocks()
    config, metadata = (text for text in blocks(EXTENDING, "json") if "gru_mtp" in text)
    (directory / "modeling.py").write_text(examples["modeling.py"])
    (directory / "config.json").write_text(config)
    (directory / METADATA_FILE).write_text(metadata)
    run_python(examples["write_weights.py"], directory)
    return directory


def run_python(code: str, directory: Path, **environment: str) -> None:
    command = [sys.executable, "-B", "-c", code]
    variables = {**os.environ, "PYTHONPATH": str(directory), **environment}
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=variables)
    assert result.returncode == 0, result.stderr


def consent(directory: Path) -> dict[str, str]:
    return {"modeling.py": "sha256:" + hashlib.sha256((directory / "modeling.py").read_bytes()).hexdigest()}


def test_the_new_kind_of_model_loads_by_its_metadata_alone(gru):
    result = wmtp.load(gru, allow_code=consent(gru))
    assert result.plan.notes == ()
    assert result.model(torch.arange(6).view(1, 6)).shape == (1, 6, 3, 128)


def test_the_loading_example_runs_as_it_stands(gru):
    run_python(named_blocks()["load_it.py"], gru.parent)


def test_the_model_without_logits_gives_the_same_loss(gru):
    inputs = {"input_ids": torch.arange(12).view(2, 6), "labels": torch.arange(12).view(2, 6)}
    with_logits = trainable(wmtp.load_model(gru, allow_code=consent(gru)))(**inputs).ce
    (gru / "modeling.py").write_text(named_blocks()["modeling.py (without logits)"])
    without = trainable(wmtp.load_model(gru, allow_code=consent(gru)))(**inputs).ce
    assert with_logits.shape == (2, 6, 3)
    torch.testing.assert_close(without, with_logits)


def install(directory: Path, **entry_points: str) -> None:
    """Make a directory look like an installed package with entry points."""
    information = directory / "my_lab-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.0\n")
    groups = [f"[wmtp.{group}]\n{line}\n" for group, line in entry_points.items()]
    (information / "entry_points.txt").write_text("\n".join(groups))


def test_an_installed_class_loads_without_consent(gru):
    (gru / "modeling.py").rename(gru.parent / "my_models.py")
    install(gru.parent, model_classes="GRUForMTP = my_models:GRUForMTP")
    document = json.loads((gru / METADATA_FILE).read_text())
    del document["loading_strategy"]["custom_module_file"]
    document["loading_strategy"]["required_files"].remove("modeling.py")
    (gru / METADATA_FILE).write_text(json.dumps(document))
    run_python("import wmtp; assert wmtp.load_model('gru').__module__ == 'my_models'", gru.parent)


def test_the_strategy_example_builds_and_fills_its_model(tmp_path):
    (tmp_path / "strategy.py").write_text(named_blocks()["strategy.py"])
    install(tmp_path, loading_strategies="my_lab_sizes = strategy:SizesStrategy")
    document = json.loads(next(text for text in blocks(EXTENDING, "json") if "remove_prefix" in text))
    document |= {"base_architecture": "bigram", "loading_strategy": {"loader_type": "my_lab_sizes"}}
    document["loading_strategy"]["required_files"] = ["model.safetensors"]
    del document["mtp"]
    code = f"""
import pathlib, torch, wmtp
from safetensors.torch import save_file
from strategy import Bigram
pathlib.Path("model").mkdir()
pathlib.Path("model/config.json").write_text('{{"size": "small"}}')
pathlib.Path("model/metadata.json").write_text({json.dumps(document)!r})
bigram = Bigram(64, 16)
save_file(bigram.state_dict(), "model/model.safetensors")
loaded = wmtp.load_model("model")
assert all(torch.equal(a, b) for a, b in zip(bigram.parameters(), loaded.parameters(), strict=True))
pathlib.Path("model/config.json").write_text('{{"size": "huge"}}')
try:
    wmtp.load_model("model")
except wmtp.WmtpError as error:
    assert "size is 'huge'" in error.problem
else:
    raise AssertionError("a wrong size was accepted")
"""
    run_python(code, tmp_path)


def test_the_algorithm_example_is_found_by_name_and_weighs_as_it_promises(tmp_path):
    (tmp_path / "focal.py").write_text(named_blocks()["focal.py"])
    install(tmp_path, algorithms="focal-mtp = focal:FocalMTP")
    code = """
import sys
from wmtp.registry import algorithms
focal = algorithms.get("focal-mtp")
weigher = focal(focal.section(gamma=1.5))
assert "torch" not in sys.modules
import torch
from wmtp.algorithms.signals import Signals
ce, valid, prior = torch.rand(2, 5, 3) * 4, torch.rand(2, 5, 3) > 0.3, torch.tensor([1.8, 0.9, 0.3])
weights = weigher.weights(Signals(ce * valid, valid, prior, torch.ones(2, 5), {}))
torch.testing.assert_close((prior * weights * valid).sum(), (prior * valid).sum())
assert weights.dtype == torch.float32 and not weights[~valid].any() and (weights >= 0).all()
hard = torch.where(valid, ce, -1).argmax()
assert weights.argmax() == hard
"""
    run_python(code, tmp_path)
