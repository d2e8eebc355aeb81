"""evaluate."""

import json

import pytest

from answering_models import human_task, write_answering, write_tasks
from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from data_files import write_lines
from tiny_models import tiny_mtp
from tiny_tokenizer import CODE_LINES

ADD = "def add(a, b):\n"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    write_llama_checkpoint(zoo / "plain", max_position_embeddings=128)
    write_mtp_checkpoint(zoo / "heads", tiny_mtp(heads=2, vocab_size=98, max_position_embeddings=128))
    write_lines(zoo / "lines.jsonl", *({"text": line, "code": line} for line in CODE_LINES))
    write_answering(zoo / "answering", {ADD: "    return a + b\n"})
    write_tasks(zoo / "tasks.jsonl", human_task(0, ADD, "add", "assert f(1, 2) == 3"))
    return zoo


def test_tables_are_printed_with_what_was_measured(wmtp, zoo):
    done = wmtp("evaluate", zoo / "heads", zoo / "plain", "--data", zoo / "lines.jsonl", "--max-length", 128)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["MODEL", "HEAD", "LOSS"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        [f"{zoo}/heads", "1"], [f"{zoo}/heads", "2"], [f"{zoo}/plain", "1"],
    ]  # fmt: skip
    assert any("draft of head 2 accepted" in line for line in lines)
    assert any("tokens per forward pass" in line for line in lines)
    assert lines[-2] == f"4 documents, 4 windows, {sum(map(len, CODE_LINES))} targets"
    assert lines[-1] == "in brackets: 95 % of 1,000 draws of documents"
    assert f"{zoo}/heads: {sum(map(len, CODE_LINES)) + 4} tokens in 4 windows" in done.stderr


def test_the_facts_are_json_and_progress_is_not_among_them(wmtp, zoo):
    words = ["--data", zoo / "lines.jsonl", "--resamples", 20, "--seed", 3, "--dtype", "bfloat16", "--packing"]
    done = wmtp("evaluate", zoo / "heads", *words, "--max-length", 128, "--limit", 2, "--json")
    facts = json.loads(done.stdout)
    assert facts["models"][0]["dtype"] == "bfloat16"
    assert (facts["measured"]["documents"], facts["measured"]["packing"]) == (2, True)
    assert facts["resampling"] == {"resamples": 20, "confidence": 0.95, "seed": 3}


def test_keys_of_records_are_named_as_in_a_recipe(wmtp, zoo):
    words = ["--data", zoo / "lines.jsonl", "--format", "prompt_completion", "--max-length", 128]
    words += ["--key", "prompt=text"]
    assert wmtp("evaluate", zoo / "plain", *words, "--key", "completion=code").exit_code == 0
    wrong = wmtp("evaluate", zoo / "plain", *words, "--key", "complete=code")
    assert wrong.exit_code == 1
    assert "error: data: complete is not a known field (did you mean 'completion'?)" in wrong.stderr


def test_a_file_that_is_not_there_is_named_as_it_was_given(wmtp, zoo):
    done = wmtp("evaluate", zoo / "plain", "--data", zoo / "nope.txt")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: data: '{zoo}/nope.txt' matches no file\n")


def test_pass_at_k_is_printed_with_what_came_of_answers(wmtp, zoo):
    words = ["--tasks", zoo / "tasks.jsonl", "--allow-code-execution", "--max-new-tokens", 30]
    done = wmtp("evaluate", zoo / "answering", *words)
    assert done.exit_code == 0, done.output
    head, row, *_ = done.stdout.splitlines()
    assert head.split() == ["MODEL", "PASS@1", "PASSED", "FAILED", "TIMED", "OUT", "LIMITED"]
    assert row.split() == [f"{zoo}/answering", "1.0000", "1", "0", "0", "0"]
    facts = json.loads(wmtp("evaluate", zoo / "answering", *words, "--samples", 2, "--k", "1,2", "--json").stdout)
    assert [each["k"] for each in facts["models"][0]["pass_at"]] == [1, 2]
    assert facts["models"][0]["tasks"][0]["answers"][0]["status"] == "passed"


def test_programs_run_only_with_consent(wmtp, zoo):
    done = wmtp("evaluate", zoo / "answering", "--tasks", zoo / "tasks.jsonl")
    assert done.exit_code == 1
    assert "hint: agree with allow_code_execution=True (--allow-code-execution)" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name what to measure on: --data or --tasks, one of the two"),
        (["--data", "a", "--tasks", "b"], "name what to measure on: --data or --tasks, one of the two"),
        (["--data", "a", "--samples", "2"], "--samples changes nothing with --data: leave it out"),
        (["--tasks", "a", "--packing"], "--packing changes nothing with --tasks: leave it out"),
        (["--data", "a", "--key", "text"], "'text' is not NAME=VALUE, as in prompt=text"),
        (["--tasks", "a", "--k", "one"], "'one' is not a list of numbers, as 1,10"),
    ],
)
def test_wrong_usage_is_told_as_that(wmtp, zoo, words, told):
    done = wmtp("evaluate", zoo / "plain", *words)
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.replace("│", " ").split())


def test_a_model_that_is_not_there_is_named(wmtp, zoo, tmp_path):
    done = wmtp("evaluate", tmp_path / "nowhere", "--data", zoo / "lines.jsonl")
    assert done.exit_code == 1
    assert f"error: {tmp_path}/nowhere" in done.stderr
