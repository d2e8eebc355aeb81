"""The tokenizer that is loaded makes the ids of tokenizer.json, whatever class the settings name."""

from __future__ import annotations

import json
import logging

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tiny_tokenizer import build_tokenizer
from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import CheckpointError
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.storage.opening import open_store

TEXTS = ["x = 2048", "  a  b", "\n\tab", "a b </s> ab", "<s>a", " Ab", "for i in range(1999):\n    print(i)\n", "a한b"]


def byte_level(**parts):
    tokenizer = Tokenizer.from_str(build_tokenizer().backend_tokenizer.to_str())
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def digits_apart():
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_level(pre_tokenizer=pre_tokenizers.Sequence(parts))


def space_before():
    return byte_level(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))


def in_lower_case():
    return byte_level(normalizer=normalizers.Lowercase())


def begun_and_ended():
    special = [("<s>", 1), ("</s>", 0)]
    return byte_level(post_processor=processors.TemplateProcessing(single="<s> $A </s>", special_tokens=special))


def pieces(normalizer=None, pre_tokenizer=None):
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "i": 6, "▁a": 7, "ab": 8, "n": 9}
    model = models.BPE(vocab=vocabulary, merges=[("▁", "a"), ("a", "b")], unk_token="<unk>", fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def prepended():
    return pieces(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def first_word_only():
    return pieces(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


def never_prepended():
    return pieces(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="never"))


def written(directory, tokenizer, model_type="llama", **settings):
    tokenizer.save(str(directory / "tokenizer.json"))
    declared = {"bos_token": "<s>", "eos_token": "</s>", **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(declared))
    return Checkpoint(open_store(directory), None, {"model_type": model_type}, [])


def assert_same_ids(loaded, tokenizer, texts=TEXTS):
    for text in texts:
        for special in (False, True):
            expected = tokenizer.encode(text, add_special_tokens=special).ids
            assert loaded.encode(text, add_special_tokens=special) == expected, text
        assert loaded(text)["input_ids"] == tokenizer.encode(text).ids


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (digits_apart, {"tokenizer_class": "GPT2Tokenizer"}),
        (digits_apart, {"tokenizer_class": "Qwen2TokenizerFast"}),
        (digits_apart, {"model_type": "gpt2"}),
        (space_before, {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": False}),
        (byte_level, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
        (in_lower_case, {"tokenizer_class": "GPT2Tokenizer"}),
        (begun_and_ended, {"tokenizer_class": "RobertaTokenizer"}),
        (byte_level, {"tokenizer_class": "RobertaTokenizer"}),
        (prepended, {"tokenizer_class": "LlamaTokenizer", "legacy": False}),
        (prepended, {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_prefix_space": True}),
        (first_word_only, {"tokenizer_class": "LlamaTokenizerFast", "legacy": True}),
        (never_prepended, {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": True}),
        (never_prepended, {"tokenizer_class": "GemmaTokenizer"}),
        (begun_and_ended, {"tokenizer_class": "PreTrainedTokenizerFast", "split_special_tokens": True}),
    ],
)
def test_a_class_that_would_make_other_tokens_gives_way_to_the_file(tmp_path, caplog, make, settings):
    with caplog.at_level(logging.WARNING, "wmtp"):
        loaded = load_tokenizer(written(tmp_path, make(), **settings))
    assert_same_ids(loaded, make())
    assert (loaded.bos_token, loaded.eos_token, len(loaded)) == ("<s>", "</s>", make().get_vocab_size())
    file, named = (
        ("config.json", "model_type") if "model_type" in settings else ("tokenizer_config.json", "tokenizer_class")
    )
    assert f"{tmp_path}/{file}: {named} is '{settings[named]}'" in caplog.text
    assert "would make other tokens than tokenizer.json, which is used as it is written" in caplog.text


@pytest.mark.parametrize("make", [byte_level, digits_apart, begun_and_ended, prepended, never_prepended])
def test_a_class_that_makes_the_same_tokens_is_left_as_it_is(tmp_path, caplog, make):
    with caplog.at_level(logging.WARNING, "wmtp"):
        loaded = load_tokenizer(written(tmp_path, make(), tokenizer_class="PreTrainedTokenizerFast"))
    assert_same_ids(loaded, make())
    assert caplog.text == ""


def test_what_else_the_settings_say_stays(tmp_path):
    kept = {"model_max_length": 77, "padding_side": "left", "chat_template": "{{ messages }}", "pad_token": "</s>"}
    loaded = load_tokenizer(written(tmp_path, digits_apart(), tokenizer_class="GPT2Tokenizer", **kept))
    assert {name: getattr(loaded, name) for name in kept} == kept
    assert loaded.unk_token is None  # the class would have added its own, with an id beyond the vocabulary


def test_a_token_that_a_class_brings_with_an_id_beyond_the_vocabulary_is_left_out(tmp_path):
    checkpoint = written(tmp_path, byte_level(), tokenizer_class="Qwen2Tokenizer")
    loaded = load_tokenizer(checkpoint)
    assert_same_ids(loaded, byte_level(), ["a<|endoftext|>b"])


def test_a_limit_and_a_padding_written_into_the_file_are_no_difference(tmp_path, caplog):
    tokenizer = byte_level()
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9, pad_token="</s>", pad_id=0)
    loaded = load_tokenizer(written(tmp_path, tokenizer, tokenizer_class="PreTrainedTokenizerFast"))
    assert_same_ids(loaded, byte_level())
    assert caplog.text == ""


def test_a_vocabulary_that_cannot_write_every_text_is_no_fault(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    loaded = load_tokenizer(written(tmp_path, tokenizer, bos_token="a", eos_token="b"))
    assert loaded.encode("a b a") == [0, 1, 0]


def test_a_special_token_that_the_file_takes_for_text_is_refused_with_both_readings(tmp_path):
    checkpoint = written(tmp_path, byte_level(), tokenizer_class="PreTrainedTokenizerFast", eos_token="two")
    with pytest.raises(CheckpointError) as refusal:
        load_tokenizer(checkpoint)
    text, ids = "two  three", byte_level().encode("two", add_special_tokens=False).ids
    assert f"{tmp_path}/tokenizer_config.json: tokenizer_class is 'PreTrainedTokenizerFast'" in refusal.value.problem
    assert "eos_token is 'two'" in refusal.value.problem
    assert f"of '{text}" in refusal.value.problem
    assert f"tokenizer.json makes {ids}"[:-1] in refusal.value.problem
    assert "mend the setting that contradicts tokenizer.json" in refusal.value.hint
