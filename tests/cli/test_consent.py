"""trust: showing a checkpoint's code, and recording consent to it."""

import json

import pytest

from checkpoints import MODELING, write_custom
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


@pytest.fixture
def changed(wmtp, toy):
    """The toy after its first version was agreed to: one import and a trick more, one line less."""
    assert wmtp("trust", toy, "--yes").exit_code == 0
    text = MODELING.replace("import math\n", "import math\nimport socket  # \u202e\n").replace(
        "        # in __init__\n", ""
    )
    (toy / "modeling.py").write_text(text)
    return toy


def test_what_changed_since_the_last_consent_is_shown_before_asking(wmtp, changed):
    result = wmtp("trust", changed, input="y\n")
    lines = result.stdout.splitlines()
    assert lines[2].startswith("agreed to before: sha256:")
    assert f", seen at {changed}/modeling.py, recorded 20" in lines[2]
    assert lines[3] == (
        f"it had {len(MODELING):,} bytes; since then lines added: 1, removed: 1, new imports: socket"
        " (--full shows the whole file)"
    )
    assert "+import socket  # \\u202e" in lines
    assert "-        # in __init__" in lines
    assert "class ToyModel(nn.Module):" not in result.stdout
    assert "recorded modeling.py sha256:" in result.stderr


def test_full_shows_the_whole_file_all_the_same(wmtp, changed):
    shown = wmtp("trust", changed, "--full", input="n\n").stdout
    assert "agreed to before: sha256:" in shown
    assert "class ToyModel(nn.Module):" in shown
    assert "+import socket" not in shown


def test_json_has_the_change_too(wmtp, changed):
    (file,) = json.loads(wmtp("trust", changed, "--json").stdout)["files"]
    assert not file["recorded"]
    change = file["change"]
    assert (change["num_added"], change["num_removed"], change["new_imports"]) == (1, 1, ["socket"])
    assert change["since"]["seen_at"] == f"{changed}/modeling.py"
    assert "+import socket  # \\u202e" in change["diff"]


def test_without_the_kept_copy_the_whole_file_is_shown(wmtp, changed, tmp_path):
    (copy,) = (tmp_path / "home" / "wmtp" / "code").iterdir()
    copy.write_text("tampered")
    shown = wmtp("trust", changed, "--yes").stdout
    assert "no true copy of that file was kept, so the whole file is shown" in shown
    assert "class ToyModel(nn.Module):" in shown


def test_consent_can_be_listed_and_taken_back(wmtp, toy):
    assert wmtp("trust", "--list").stdout == ""
    wmtp("trust", toy, "--yes")
    header, line = wmtp("trust", "--list").stdout.splitlines()
    assert header.split() == ["FILE", "HASH", "SEEN", "AT", "RECORDED"]
    name, digest, place, _ = line.split()
    assert (name, place) == ("modeling.py", f"{toy}/modeling.py")
    assert wmtp("trust", "--forget", digest).stdout == f"consent to modeling.py {digest} is taken back\n"
    assert json.loads(wmtp("trust", "--list", "--json").stdout) == {"consents": []}
    assert "nobody agreed to run it" in wmtp("load", toy).stderr


@pytest.mark.parametrize("words", [[], ["X", "--list"], ["--list", "--forget", "sha256:0"]])
def test_trust_wants_one_thing_to_do(wmtp, words):
    result = wmtp("trust", *words)
    assert result.exit_code == 2
    assert "name one checkpoint, or give one of --list and --forget" in result.stderr
