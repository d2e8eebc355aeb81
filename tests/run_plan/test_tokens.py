"""How many tokens a run has, as planned, beside those that its data then has."""

import json

import pytest

from checkpoints import write_llama_checkpoint
from servers.hub import Repository, hub_server
from servers.seaweed import upload_directory
from tiny_tokenizer import CODE_LINES, build_tokenizer
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.data.tokenized import Tokenizing, tokenized
from wmtp.errors import DataError
from wmtp.run_plan.data import estimate_data
from wmtp.run_plan.tokens import TokenCounter, sampled_characters
from wmtp.settings.data import Data

CHAT = [{"role": "user", "content": "add 1 and 2"}, {"role": "assistant", "content": "def add(a, b):\n    return 3"}]


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    return TokenCounter.of(open_checkpoint(write_llama_checkpoint(tmp_path_factory.mktemp("tokens") / "llama")))


def lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def estimated(counter, *files, **fields):
    return estimate_data(Data.model_validate({"train": {"files": list(map(str, files)), **fields}}), [], counter)


def counted(*files, **fields):
    data = Data.model_validate({"train": {"files": list(map(str, files)), **fields}})
    store = tokenized(data.train, "data.train", {}, Tokenizing(build_tokenizer())).store
    return len(store), len(store.tokens)


def test_small_data_is_counted_to_the_last_token(counter, tmp_path):
    texts = [tmp_path / f"{number}.py" for number in range(4)]
    for path, text in zip(texts, CODE_LINES, strict=True):
        path.write_text(text)
    records = lines(tmp_path / "a.jsonl", *({"text": text * 3} for text in CODE_LINES))
    found = estimated(counter, *texts, records)
    assert (found.documents, found.tokens) == counted(*texts, records)


def test_large_data_is_counted_by_a_sample(counter, tmp_path):
    path = lines(tmp_path / "a.jsonl", *({"text": text * 20} for text in CODE_LINES * 200))
    found, (documents, tokens) = estimated(counter, path), counted(path)
    assert found.sampled_bytes < path.stat().st_size / 5
    assert found.documents == pytest.approx(documents, rel=0.02)
    assert found.tokens == pytest.approx(tokens, rel=0.02)


def test_sources_are_counted_each_at_its_own_rate(counter, tmp_path):
    code = lines(tmp_path / "code.jsonl", *({"text": text * 20} for text in CODE_LINES * 100))
    digits = lines(tmp_path / "digits.jsonl", *({"text": "1234567890" * 20} for _ in range(1000)))
    both = Data.model_validate({"train": {"sources": [{"files": [str(code)]}, {"files": [str(digits)]}]}})
    expected = counted(code)[1] + counted(digits)[1]
    assert estimate_data(both, [], counter).tokens == pytest.approx(expected, rel=0.02)


def test_a_chat_counts_what_is_said(counter, tmp_path):
    path = lines(tmp_path / "chat.jsonl", {"messages": CHAT}, {"messages": CHAT})
    said = sum(len(build_tokenizer()(f"{turn['role']}\n{turn['content']}\n")["input_ids"]) for turn in CHAT)
    assert estimated(counter, path, format="chat").tokens == 2 * (said + 1)


def test_a_token_that_begins_texts_is_counted(tmp_path):
    build_tokenizer(begins_texts=True).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    base = write_llama_checkpoint(tmp_path / "llama")
    (tmp_path / "tokenizer.json").rename(base / "tokenizer.json")
    path = lines(tmp_path / "a.jsonl", *({"text": text} for text in CODE_LINES))
    found = estimated(TokenCounter.of(open_checkpoint(base)), path)
    assert found.tokens == sum(len(build_tokenizer()(text)["input_ids"]) + 2 for text in CODE_LINES)


def test_without_a_tokenizer_file_four_bytes_are_assumed(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"text": "x" * 400})
    found = estimated(TokenCounter(None), path)
    assert (found.tokens, found.to_dict()["assumed_bytes_of_a_token"]) == (101, 4)
    assert "at 4 bytes a token, assumed" in found.line()


def test_a_sample_is_of_files_all_over_and_of_bounded_size():
    chosen = [sampled_characters(10_000, number) for number in range(10_000)]
    assert sum(chosen) <= 1 << 18
    assert chosen[0] == chosen[9960] > 0
    assert sampled_characters(3, 2) == (1 << 18) // 3


def test_objects_are_counted_from_their_list_and_the_beginning_of_one(counter, seaweed, s3_bucket, tmp_path):
    (tmp_path / "set").mkdir()
    paths = [tmp_path / "set" / f"{name}.jsonl" for name in "ab"]
    for path in paths:
        lines(path, *({"text": text * 20} for text in CODE_LINES * 400))
    (tmp_path / "set" / "c.jsonl.gz").write_bytes(b"packed")
    address = upload_directory(seaweed.client(), s3_bucket, "set", tmp_path / "set")
    found, (documents, tokens) = estimated(counter, f"{address}/*.jsonl*"), counted(*paths)
    assert (found.num_files, found.stored_bytes) == (3, sum(path.stat().st_size for path in paths) + 6)
    assert found.documents == pytest.approx(documents, rel=0.02)
    assert found.tokens == pytest.approx(tokens, rel=0.02)
    assert f"elsewhere are not counted: 1 file, 6 bytes, the first {address}/c.jsonl.gz" in found.left_out
    with pytest.raises(DataError, match=r"/\*\.txt' matches no file that can be read"):
        estimated(counter, f"{address}/*.txt")


def test_files_of_a_data_set_on_the_hub_are_counted_from_their_list(counter, monkeypatch, tmp_path):
    path = lines(tmp_path / "a.jsonl", {"text": "one"})
    with hub_server(monkeypatch, tmp_path) as server:
        server.repositories["org/name"] = Repository()
        server.repositories["org/name"].commit({"data/a.jsonl": b"x" * 100, "data/b.jsonl": b"x" * 11, "c.md": b""})
        found = estimated(counter, path, "hf://datasets/org/name/data", "hf://datasets/org/name?split=test")
    assert (found.num_files, found.stored_bytes, found.documents) == (3, path.stat().st_size + 111, 1)
    first = "hf://datasets/org/name/data/a.jsonl"
    assert f"elsewhere are not counted: 2 files, 111 bytes, the first {first}" in found.left_out
    assert "not counted, as it is fetched when a run begins: hf://datasets/org/name?split=test" in found.left_out


def test_data_that_cannot_be_listed_is_told(counter, tmp_path):
    path = lines(tmp_path / "a.jsonl", {"text": "one"})
    found = estimated(counter, path, "hf://datasets/org/name/a.jsonl")
    assert found.num_files == 1
    assert "not counted, as it cannot be listed from here: hf://datasets/org/name: " in found.left_out
