import json

import pytest

from tiny_tokenizer import build_tokenizer
from wmtp.checkpoint.tokenizer import checked_tokenizer, tokenizer_fingerprint
from wmtp.errors import CheckpointError, TrustError
from wmtp.storage.opening import open_store


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


def checked(directory, **config):
    return checked_tokenizer(open_store(directory), config)


def change_settings(directory, **settings):
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_the_files_of_a_sound_tokenizer_are_named(tmp_path):
    assert list(checked(saved(tmp_path))) == ["tokenizer.json", "tokenizer_config.json", "config.json"]


NO_TOKENIZERS = [
    "LlamaForCausalLM",
    "os.system",
    "TokenizerModel",
    7,
    "LlamaTokenizer.from_x",
    "AutoTokenizer",
    "RagTokenizer",
]


@pytest.mark.parametrize("kind", NO_TOKENIZERS)
def test_a_tokenizer_class_that_is_no_tokenizer_is_refused(tmp_path, kind):
    with pytest.raises(TrustError, match=r"config\.json: tokenizer_class is .* which is no tokenizer"):
        checked(saved(tmp_path), tokenizer_class=kind)
    change_settings(tmp_path, tokenizer_class=kind)
    with pytest.raises(TrustError, match=r"tokenizer_config\.json: tokenizer_class is .* which is no tokenizer"):
        checked(tmp_path)


@pytest.mark.parametrize(
    "kind", ["LlamaTokenizer", "GPT2TokenizerFast", "TokenizersBackend", "PreTrainedTokenizerFast", None]
)
def test_tokenizer_classes_of_transformers_are_let_through(tmp_path, kind):
    change_settings(saved(tmp_path), tokenizer_class=kind)
    assert checked(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_every_tokenizer_file_is_read_as_strict_json(tmp_path, name):
    (saved(tmp_path) / name).write_text('{"a": 1, "a": 2}')
    with pytest.raises(CheckpointError, match=f"{name}: has the key 'a' twice"):
        checked(tmp_path)


@pytest.mark.parametrize("table", ["AAAA", "/////w==", "not base64", 7, "CAAAAAAAAAA=", "BAAAAAAAAAD/"])
def test_a_table_that_would_crash_the_process_is_refused(tmp_path, table):
    path = saved(tmp_path) / "tokenizer.json"
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": table}]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": normalizer}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: precompiled_charsmap is .* cut short or damaged"):
        checked(tmp_path)


def test_a_whole_table_is_let_through(tmp_path):
    path = saved(tmp_path) / "tokenizer.json"
    normalizer = {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAABhAA=="}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": normalizer}))
    assert checked(tmp_path)


def test_every_class_of_transformers_that_is_let_through_is_a_tokenizer():
    import transformers
    from transformers import PreTrainedTokenizerBase

    from wmtp.checkpoint.tokenizer import _TOKENIZER_CLASS

    found = [getattr(transformers, name) for name in dir(transformers) if _TOKENIZER_CLASS.fullmatch(name)]
    tokenizers = [kind for kind in found if type(kind).__name__ != "DummyObject"]  # those need a library
    assert len(tokenizers) > 50
    assert all(issubclass(kind, PreTrainedTokenizerBase) for kind in tokenizers)


def test_the_copy_for_a_library_says_of_configuration_and_caller_only_what_it_may(tmp_path):
    change_settings(saved(tmp_path), name_or_path="someone/model", local_files_only=False, is_local=False)
    files = checked(tmp_path, model_type="llama", tokenizer_class="LlamaTokenizer", hidden_size=8)
    assert json.loads(files["config.json"]) == {"model_type": "llama", "tokenizer_class": "LlamaTokenizer"}
    assert not {"name_or_path", "local_files_only", "is_local"} & set(json.loads(files["tokenizer_config.json"]))


@pytest.mark.parametrize("key", ["vocab_file", "tokenizer_file", "name_or_path", "local_files_only", "backend"])
def test_special_tokens_come_with_no_settings(tmp_path, key):
    (saved(tmp_path) / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>", key: "../x"}))
    with pytest.raises(TrustError, match=rf"special_tokens_map\.json: '{key}': no special tokens"):
        checked(tmp_path)


def test_an_added_token_with_an_absurd_id_is_refused(tmp_path):
    change_settings(saved(tmp_path), added_tokens_decoder={"5000000": {"content": "<x>"}})
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: the added token .* has the id '5000000'"):
        checked(tmp_path)
    change_settings(tmp_path, added_tokens_decoder={})
    (tmp_path / "added_tokens.json").write_text('{"<x>": -1}')
    with pytest.raises(CheckpointError, match=r"added_tokens\.json: the added token '<x>' has the id -1"):
        checked(tmp_path)


def test_a_tokenizer_that_leaves_merges_out_at_random_is_refused_by_its_key(tmp_path):
    edited(saved(tmp_path), lambda document: document["model"].update(dropout=0.1))
    with pytest.raises(CheckpointError) as refusal:
        checked_tokenizer(open_store(tmp_path), {})
    assert refusal.value.problem.startswith(f"{tmp_path}/tokenizer.json: model.dropout is 0.1: merges are left out")
    edited(tmp_path, lambda document: document["model"].update(dropout=0.0))
    assert "tokenizer.json" in checked_tokenizer(open_store(tmp_path), {})


@pytest.mark.parametrize("content", [1, None, True])
def test_an_added_token_that_is_no_text_is_refused_and_not_a_crash(tmp_path, content):
    with pytest.raises(CheckpointError) as refusal:
        edited(saved(tmp_path), lambda document: document["added_tokens"][0].update(content=content))
    assert f"{tmp_path}/tokenizer.json: not a tokenizer" in refusal.value.problem
