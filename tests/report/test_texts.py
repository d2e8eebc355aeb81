"""Tokens as text: whole characters, and nothing that is not seen."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from wmtp.report.texts import token_texts, visible


@pytest.fixture(scope="module")
def byte_tokenizer():
    """One token a byte, so that a character of three bytes is three tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_the_last_token_of_a_character_has_it_and_the_others_a_mark(byte_tokenizer):
    ids = byte_tokenizer("a€ b\n")["input_ids"]
    assert len(ids) == 7
    assert token_texts(byte_tokenizer, ids) == ["a", "▪", "▪", "€", " ", "b", "\n"]


def test_a_text_that_ends_within_a_character_has_a_token_for_each_id(byte_tokenizer):
    ids = byte_tokenizer("x€")["input_ids"][:-1]
    assert token_texts(byte_tokenizer, ids) == ["x", "▪", "\ufffd"]


def test_texts_together_are_the_text(byte_tokenizer):
    text = "if a < b:\n\treturn '</script>'  # ünï — 漢字 🙂"
    pieces = token_texts(byte_tokenizer, byte_tokenizer(text)["input_ids"])
    assert "".join(piece for piece in pieces if piece != "▪") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\u202eevil", "<U+202E>evil"), ("a\x1b[2Jb", "a<U+001B>[2Jb"), ("\u200b", "<U+200B>"), ("a\n\tb", "a\n\tb")],
)
def test_what_would_not_be_seen_is_named(text, shown):
    assert visible(text) == shown
