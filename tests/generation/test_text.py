"""Text as it comes from tokens: whole characters, stop strings across tokens, ends."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import wmtp
from tiny_models import tiny_mtp
from tiny_tokenizer import build_tokenizer
from wmtp.generation.text import TextStream


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def spoken(tokenizer):
    """A model that can say all that its tokenizer can, and what it says."""
    model = tiny_mtp("llama", 3, "linear", vocab_size=len(tokenizer))
    return model, wmtp.generate(model, "def add", tokenizer=tokenizer, max_new_tokens=24, ignore_eos=True).rows[0]


def byte_tokenizer():
    """One token a byte, so that a character is spread over several."""
    vocabulary = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def streamed(tokenizer, text, stop=()):
    stream = TextStream(tokenizer, tokenizer("before")["input_ids"], stop)
    pieces = []
    for token in tokenizer(text)["input_ids"]:
        pieces.append(stream.add(token))
        if stream.is_stopped:
            break
    return [*pieces, stream.end()], stream


def test_pieces_are_the_text_and_none_is_half_a_character():
    pieces, stream = streamed(byte_tokenizer(), "aé€😀b")
    assert [piece for piece in pieces if piece] == ["a", "é", "€", "😀", "b"]
    assert stream.text == "aé€😀b"


def test_a_character_that_never_ends_is_shown_as_broken_at_the_end():
    made = byte_tokenizer()
    stream = TextStream(made, [], ())
    assert stream.add(made("é")["input_ids"][0]) == ""
    assert stream.end() == "\N{REPLACEMENT CHARACTER}"


def test_a_stop_string_is_found_across_tokens_and_nothing_of_it_is_shown_before():
    pieces, stream = streamed(byte_tokenizer(), "one STOP two", stop=["STOP"])
    assert "".join(pieces) == stream.text == "one "
    assert stream.is_stopped


def test_what_only_begins_like_a_stop_string_is_shown_once_that_is_known():
    pieces, stream = streamed(byte_tokenizer(), "a STO b ST", stop=["STOP"])
    assert pieces[2:6] == ["", "", "", "STO "]
    assert stream.text == "a STO b ST"  # the last two at the end
    assert not stream.is_stopped


def test_the_first_of_several_stop_strings_ends_the_text():
    assert streamed(byte_tokenizer(), "a\n\nb;c", stop=[";", "\n\n"])[1].text == "a"


def test_text_ends_at_a_stop_string_with_and_without_drafts(spoken, tokenizer):
    model, whole = spoken
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 3]
    options = {"tokenizer": tokenizer, "stop": stop, "max_new_tokens": 24, "ignore_eos": True}
    found, plain = (wmtp.generate(model, "def add", drafts=drafts, **options).rows[0] for drafts in (None, 0))
    assert found.text == plain.text == whole.text[: whole.text.index(stop)]
    assert found.tokens == plain.tokens == whole.tokens[: len(found.tokens)]
    assert found.finish == "stop"


def test_nothing_follows_a_token_that_ends_a_text(spoken, tokenizer):
    model, whole = spoken
    end = whole.tokens[5]
    before = whole.tokens.index(end)
    model.trunk.config.eos_token_id = [end, 0]
    try:
        for drafts in (None, 0):
            row = wmtp.generate(model, "def add", tokenizer=tokenizer, max_new_tokens=24, drafts=drafts).rows[0]
            assert row.tokens == whole.tokens[: before + 1]
            assert row.finish == "eos"
    finally:
        model.trunk.config.eos_token_id = 0


def test_text_is_handed_on_as_it_comes(spoken, tokenizer):
    model, whole = spoken
    pieces = []
    wmtp.generate(
        model, ["def add", "def add"], tokenizer=tokenizer, max_new_tokens=24, ignore_eos=True, compare=True,
        on_text=lambda number, text: pieces.append((number, text)),
    )  # fmt: skip
    assert "".join(text for number, text in pieces if number == 0) == whole.text
    assert "".join(text for number, text in pieces if number == 1) == whole.text
    assert len(pieces) > 10
