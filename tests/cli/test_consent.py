"""trust: showing a checkpoint's code, and recording consent to it."""

import json

import pytest

from toy_checkpoint import MODELING, write_custom
from wmtp.cli.consent import _visible


@pytest.fixture
def toy(tmp_path):
    write_custom(tmp_path / "toy")
    return tmp_path / "toy"


def test_trust_shows_the_code_and_records_consent_when_told_yes(wmtp, toy, tmp_path):
    result = wmtp("trust", toy, input="y\n")
    assert result.exit_code == 0
    assert "imports math, torch" in result.stdout
    assert "class ToyModel(nn.Module):" in result.stdout
    recorded = json.loads((tmp_path / "home" / "wmtp" / "trust.json").read_text())
    assert [entry["file"] for entry in recorded.values()] == ["modeling.py"]
    assert wmtp("load", toy).exit_code == 0


@pytest.mark.parametrize("answer", ["n\n", ""], ids=["no", "no answer at all"])
def test_without_a_yes_nothing_is_recorded(wmtp, toy, tmp_path, answer):
    assert wmtp("trust", toy, input=answer).exit_code == 1
    assert not (tmp_path / "home").exists()
    assert wmtp("load", toy).exit_code == 1


def test_consent_is_to_these_bytes_only(wmtp, toy):
    assert wmtp("trust", toy, "--yes").exit_code == 0
    with (toy / "modeling.py").open("a") as file:
        file.write("# one more line\n")
    result = wmtp("load", toy)
    assert result.exit_code == 1
    assert "nobody agreed to run it" in result.stderr


def test_every_python_file_beside_the_module_is_shown(wmtp, toy):
    (toy / "modeling.py").write_text(MODELING.replace("import math", "import math\n\nfrom .blocks import helper"))
    (toy / "blocks.py").write_text("def helper():\n    return 1\n")
    (toy / "write_weights.py").write_text("raise SystemExit('nothing imports this')\n")
    facts = json.loads(wmtp("trust", toy, "--yes", "--json").stdout)
    assert [(file["name"], file["recorded"]) for file in facts["files"]] == [("modeling.py", True), ("blocks.py", True)]
    assert wmtp("load", toy).exit_code == 0


def test_json_alone_records_nothing(wmtp, toy, tmp_path):
    result = wmtp("trust", toy, "--json")
    assert result.exit_code == 0
    (file,) = json.loads(result.stdout)["files"]
    assert (file["recorded"], file["code"]) == (False, MODELING)
    assert not (tmp_path / "home").exists()


def test_a_long_file_is_cut_with_a_count_but_no_line_is(wmtp, toy):
    (toy / "modeling.py").write_text("x = 1\n" * 20 + "y = '" + "z" * 500 + "'\n")
    shown = wmtp("trust", toy, "--lines", "5", "--yes").stdout
    assert "... and 17 more lines: --lines 22 shows them" in shown
    assert "z" * 500 in wmtp("trust", toy, "--yes").stdout


@pytest.mark.parametrize("trick", ["\r", "\x1b[1A", "\u202e", "\u200b", "\x0c", "\x85", "é"])
def test_what_a_terminal_would_obey_is_escaped(trick):
    assert _visible(f"a{trick}b\tc") == f"a{ascii(trick)[1:-1]}b\tc"


def test_a_model_without_code_needs_no_consent(wmtp, llama):
    result = wmtp("trust", llama)
    assert (result.exit_code, result.stdout) == (0, "this checkpoint runs no code of its own\n")
