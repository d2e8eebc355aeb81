import json
import os
import pty
import sys

import pytest
import typer
from typer.testing import CliRunner

import wmtp
from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import build_tokenizer
from wmtp.cli.main import app


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tokenizer = build_tokenizer()
    made = tiny_mtp("llama", 3, "linear", vocab_size=len(tokenizer))
    return write_mtp_checkpoint(tmp_path_factory.mktemp("zoo") / "mtp", made, tokenizer)


@pytest.fixture(scope="module")
def expected(model):
    return wmtp.generate(model, "def add", max_new_tokens=8).texts[0]


def run(*words, **options):
    return CliRunner().invoke(app, ["generate", *map(str, words)], **options)


def test_the_text_is_on_stdout_and_what_it_took_on_stderr(model, expected):
    done = run(model, "def add", "--max-new-tokens", 8)
    assert done.exit_code == 0, done.output
    assert done.stdout == expected + "\n"
    assert done.stderr.splitlines()[-3].startswith("8 new tokens, ")
    assert "accepted drafts by place: " in done.stderr


@pytest.mark.parametrize("words", [(), ("-",)])
def test_a_prompt_may_come_on_standard_input(words, model, expected):
    assert run(model, *words, "--max-new-tokens", 8, input="def add\n").stdout == expected + "\n"


def test_prompts_of_a_file_are_told_apart(model, expected, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "def add"}\n{"prompt": "for"}\n')
    done = run(model, "--prompts", path, "--max-new-tokens", 8)
    assert done.stdout.startswith(f"--- prompt 1\n{expected}\n--- prompt 2\n")


def test_json_has_rows_and_figures(model, expected):
    options = ("--max-new-tokens", 8, "--compare", "--temperature", "0.0001", "--seed", 5, "--stop", "###", "--json")
    facts = json.loads(run(model, "def add", *options).stdout)
    assert facts["rows"][0]["text"] == expected  # so cold that it is greedy
    assert (facts["seed"], facts["num_drafts"]) == (5, 2)
    assert facts["plain"]["forward_passes"] == 8


def test_refusals_name_the_option_and_what_to_do(model, tmp_path):
    done = run(model, "def", "--drafts", 9)
    assert done.exit_code == 1
    assert (
        done.stderr == "error: drafts is 9, and the model has heads for 2\nhint: ask for 2 or fewer\n"
        "more: wmtp explain GenerationError\n"
    )
    done = run(model, "def", "--top-p", 0.5, "--json")
    assert json.loads(done.stdout)["error"]["problem"].startswith("top_p is 0.5, and without a temperature")
    (tmp_path / "prompts.jsonl").write_text("")
    assert run(model, "def", "--prompts", tmp_path / "prompts.jsonl").exit_code == 2
    done = run(model, "def", "--chat")
    assert "prompt 1: the base model's tokenizer has no chat template\nhint: put its chat_template" in done.stderr


def read_all(reader):
    """What was written to a terminal that is closed by now; its end is an error of Linux, and nothing elsewhere."""
    pieces = []
    try:
        while piece := os.read(reader, 4096):
            pieces.append(piece)
    except OSError:
        pass
    os.close(reader)
    return b"".join(pieces).decode()


def test_on_a_terminal_text_is_shown_as_it_comes(model, expected, monkeypatch, capsys):
    reader, terminal = pty.openpty()
    words = ["generate", str(model), "def add", "--max-new-tokens", "8"]
    with os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        typer.main.get_command(app).main(words, standalone_mode=False)
    monkeypatch.undo()
    assert read_all(reader).replace("\r\n", "\n") == expected + "\n"
    assert "8 new tokens, " in capsys.readouterr().err
