import json

import pytest

from builders import build_tokenizer
from wmtp.checkpoint.tokenizer import tokenizer_fingerprint
from wmtp.errors import CheckpointError
from wmtp.storage.store import open_store


def fingerprint(directory):
    return tokenizer_fingerprint(open_store(directory))


def saved(directory, tokenizer=None):
    (tokenizer or build_tokenizer()).save_pretrained(directory)
    return directory


def edited(directory, edit):
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    return fingerprint(directory)


def test_saving_a_tokenizer_again_keeps_its_fingerprint(tmp_path):
    from transformers import AutoTokenizer

    first = fingerprint(saved(tmp_path / "a"))
    assert first.vocab_size == len(build_tokenizer())
    assert fingerprint(saved(tmp_path / "b", AutoTokenizer.from_pretrained(tmp_path / "a"))) == first


def test_how_the_file_is_written_makes_no_difference(tmp_path):
    first = fingerprint(saved(tmp_path))

    def rewrite(document):
        document["model"]["vocab"] = dict(reversed(document["model"]["vocab"].items()))
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
        document["truncation"] = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}

    assert edited(tmp_path, rewrite) == first


@pytest.mark.parametrize("part", ["vocab", "merges", "added_tokens"])
def test_any_change_that_changes_ids_changes_the_fingerprint(tmp_path, part):
    first = fingerprint(saved(tmp_path, build_tokenizer(120)))

    def change(document):
        if part == "vocab":
            vocabulary = document["model"]["vocab"]
            vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        elif part == "merges":
            document["model"]["merges"].reverse()
        else:
            document["added_tokens"][1]["special"] = False

    assert edited(tmp_path, change).sha256 != first.sha256


def test_a_unigram_vocabulary_is_a_list(tmp_path):
    model = {"type": "Unigram", "vocab": [["<unk>", 0.0], ["a", -1.5]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))
    assert fingerprint(tmp_path).vocab_size == 2


def test_without_a_tokenizer_there_is_no_fingerprint(tmp_path):
    assert fingerprint(tmp_path) is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"model": 3}',
        '{"model": {"vocab": 5}, "added_tokens": []}',
        '{"model": {"vocab": {}, "merges": [3]}, "added_tokens": []}',
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a tokenizer") as caught:
        fingerprint(tmp_path)
    assert f"{tmp_path}/tokenizer.json" in caught.value.problem
