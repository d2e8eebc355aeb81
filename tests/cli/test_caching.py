"""cache ls, verify, prune, rm."""

import hashlib
import json
import os
import time

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from wmtp.cli.caching import GROUPS
from wmtp.cli.output import Output
from wmtp.data.store_writer import StoreWriter
from wmtp.data.token_cache import TokenCache
from wmtp.errors import NotFoundError
from wmtp.storage.cache import Source, VerifiedCache
from wmtp.wording import size

LLAMA, GPT = "s3://lab/llama", "hf://org/gpt@main"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A cache with two checkpoints, the second of which was not used for an hour."""
    monkeypatch.setenv("WMTP_CACHE", str(tmp_path / "cache"))
    for uri, name, data in [(LLAMA, "a", b"a" * 2500), (LLAMA, "b", b"b"), (GPT, "a", b"g" * 1000)]:
        source = Source(uri, name, len(data), '"v"')
        VerifiedCache().receive(source, lambda start, data=data: iter([data[start:]]), sha256=None)
        if uri == GPT:
            os.utime(VerifiedCache().records.path(source), (time.time() - 3600,) * 2)
    return tmp_path / "cache"


@pytest.fixture
def cache():
    """Run a command line of the group in this process."""
    return lambda *words, **keywords: CliRunner().invoke(GROUPS["cache"], [str(word) for word in words], **keywords)


def blob(root, data):
    return root / "blobs" / hashlib.sha256(data).hexdigest()


def test_ls_shows_checkpoints_with_files_size_and_last_use(cache, root):
    result = cache("ls")
    header, *rows = [line.split() for line in result.stdout.splitlines()]
    assert (result.exit_code, header) == (0, ["CHECKPOINT", "FILES", "SIZE", "LAST", "USED"])
    assert [row[:4] for row in rows] == [[LLAMA, "2", "2.5", "kB"], [GPT, "1", "1.0", "kB"]]
    assert result.stderr == f"{root}: 2 checkpoints, 3.5 kB\n"


def test_ls_of_no_cache_is_an_empty_list(cache, monkeypatch, tmp_path):
    monkeypatch.setenv("WMTP_CACHE", str(tmp_path / "none"))
    facts = json.loads(cache("ls", "--json").stdout)
    assert facts == {"cache": str(tmp_path / "none"), "size_bytes": 0, "checkpoints": [], "data": []}
    assert not (tmp_path / "none").exists()


def test_ls_counts_shared_bytes_once_in_the_sum(cache, root):
    twin = Source("s3://lab/twin", "a", 2500, '"v"')
    VerifiedCache().receive(twin, lambda start: iter([b"a" * 2500][start:]), sha256=None)
    facts = json.loads(cache("ls", "--json").stdout)
    assert facts["size_bytes"] == 3501
    assert sum(checkpoint["size_bytes"] for checkpoint in facts["checkpoints"]) == 6001
    assert set(facts["checkpoints"][0]) == {"uri", "num_files", "size_bytes", "last_used"}


def test_verify_says_that_all_is_well(cache, root):
    result = cache("verify")
    assert (result.exit_code, result.stdout) == (0, f"{root}: 3.5 kB hashed, 3 files sound, 0 damaged\n")


def test_verify_names_what_is_damaged_removes_it_and_exits_1(cache, root):
    bad = blob(root, b"g" * 1000)
    bad.chmod(0o644)
    bad.write_bytes(b"G" * 1000)
    result = cache("verify")
    assert result.exit_code == 1
    assert f"damaged: sha256:{bad.name}, {GPT}/a: removed, and fetched again when it is wanted\n" in result.stdout
    assert not bad.exists()
    assert json.loads(cache("verify", "--json").stdout)["damaged"] == []


def test_prune_removes_what_was_not_used_for_long(cache, root):
    result = cache("prune", "--unused-for", "30m")
    assert result.stdout.splitlines() == [f"removed 1 file, 1.0 kB, of {GPT}", f"1.0 kB freed in {root}"]
    assert [checkpoint["uri"] for checkpoint in json.loads(cache("ls", "--json").stdout)["checkpoints"]] == [LLAMA]


def test_prune_to_a_size_removes_the_least_recently_used(cache, root):
    facts = json.loads(cache("prune", "--max-size", "2.6kB", "--json").stdout)
    assert ([c["uri"] for c in facts["removed"]], facts["freed_bytes"]) == ([GPT], 1000)
    assert json.loads(cache("prune", "--max-size", "1GB", "--json").stdout)["removed"] == []


def test_prune_alone_removes_only_what_broken_downloads_left(cache, root):
    (root / "parts" / f"{'a' * 64}.{'b' * 32}.part").write_bytes(b"12345")
    facts = json.loads(cache("prune", "--json").stdout)
    assert facts == {"cache": str(root), "removed": [], "data": [], "freed_bytes": 5}


@pytest.mark.parametrize(
    ("option", "text"), [("--unused-for", "30"), ("--unused-for", "-1d"), ("--max-size", "lots"), ("--max-size", "1XB")]
)
def test_a_time_or_size_that_is_none_is_wrong_usage(cache, root, option, text):
    result = cache("prune", option, text)
    assert (result.exit_code, f"'{text}' is no" in result.stderr) == (2, True)


def keep_tokens(name, size, age_seconds):
    """Keep tokens of a file of that name, last asked for so long ago; returns what they take and where they are."""

    def build(directory):
        writer = StoreWriter(directory, [name], (), masks=False)
        tokens = np.zeros(size // 4, "<i4")
        writer.add_tokens(tokens)
        writer.finish()

    path = TokenCache().get(name, [name], build).directory
    os.utime(path / "store.json", (time.time() - age_seconds,) * 2)
    return sum(file.stat().st_size for file in path.iterdir()), path


def test_tokens_of_data_are_listed_with_the_files_that_they_are_from(cache, root):
    num_bytes, path = keep_tokens("corpus/a.jsonl", 8000, 7200)
    result, facts = cache("ls"), json.loads(cache("ls", "--json").stdout)
    row = f"tokens of corpus/a.jsonl 1 {size(num_bytes)}"
    assert " ".join(result.stdout.splitlines()[-1].split()).startswith(row)
    assert result.stderr == f"{root}: 2 checkpoints, 3.5 kB; tokens of data, {size(num_bytes)}\n"
    (kept,) = facts["data"]
    assert (kept["path"], kept["files"], kept["size_bytes"]) == (str(path), ["corpus/a.jsonl"], num_bytes)
    assert facts["size_bytes"] == 3501


def test_tokens_that_nobody_asked_for_go_by_age_and_are_made_again(cache, root):
    num_bytes, old = keep_tokens("old", 8000, 7200)
    _, used = keep_tokens("used", 8000, 7200)
    TokenCache().get("used", ["used"], lambda _: pytest.fail("made again"))
    result = cache("prune", "--unused-for", "1.5h")
    assert result.stdout.splitlines() == [
        f"removed tokens of old, {size(num_bytes)}",
        f"{size(num_bytes)} freed in {root}",
    ]
    assert (old.exists(), used.exists()) == (False, True)
    assert keep_tokens("old", 8000, 0)[1] == old


def test_prune_to_a_size_removes_the_least_recently_used_of_checkpoints_and_tokens(cache, root):
    num_bytes, oldest = keep_tokens("oldest", 4000, 7200)  # GPT's files are an hour old, LLAMA's new
    _, newest = keep_tokens("newest", 4000, 60)
    facts = json.loads(cache("prune", "--max-size", str(num_bytes + 2501), "--json").stdout)
    assert [kept["files"] for kept in facts["data"]] == [["oldest"]]
    assert [checkpoint["uri"] for checkpoint in facts["removed"]] == [GPT]
    assert facts["freed_bytes"] == num_bytes + 1000
    assert (oldest.exists(), newest.exists(), blob(root, b"a" * 2500).exists()) == (False, True, True)


def test_rm_removes_checkpoints_and_keeps_the_others(cache, root):
    result = cache("rm", f"{LLAMA}/")
    assert result.stdout.splitlines() == [f"removed 2 files, 2.5 kB, of {LLAMA}", f"2.5 kB freed in {root}"]
    assert not blob(root, b"b").exists()
    assert blob(root, b"g" * 1000).exists()


def test_rm_of_what_is_not_cached_is_an_error_and_removes_nothing(cache, root):
    result = cache("rm", LLAMA, "s3://lab/lama")
    assert isinstance(result.exception, NotFoundError)
    assert str(result.exception) == (
        f"{root}: nothing is cached of 's3://lab/lama' (did you mean '{LLAMA}'?)\nhint: 'wmtp cache ls' lists what is"
    )
    assert blob(root, b"b").exists()


def test_the_words_of_a_stranger_reach_no_terminal(cache, root):
    evil = Source("s3://lab/\x1b[2Jx\nforged", "n\x1b[0m", 1, '"v"')
    VerifiedCache().receive(evil, lambda start: iter([b"e"][start:]), sha256=None)
    path = blob(root, b"e")
    path.chmod(0o644)
    path.write_bytes(b"E")
    for result in (cache("ls"), cache("verify")):
        assert "\x1b" not in result.stdout
        assert "\nforged" not in result.stdout


def test_the_output_of_the_program_is_used(root):
    program = typer.Typer()
    program.add_typer(GROUPS["cache"], name="cache")

    @program.callback()
    def options(ctx: typer.Context) -> None:
        Output.of(ctx).quiet = True

    assert CliRunner().invoke(program, ["cache", "ls"]).stderr == ""
