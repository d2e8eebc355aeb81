"""Kinds of tokens and single ones, by the weight that they have on average."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from wmtp.report.ranking import kind, ranked


@pytest.fixture(scope="module")
def letters():
    """Single characters, in the order of their ids."""
    alphabet = [
        "a",
        "b",
        "7",
        ",",
        "Ċ",
        "Ġ",
    ]  # the last two: an end of a line and a blank, as byte-level tokens have them
    tokenizer = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" the", "words and parts of words"),
        ("_x", "words and parts of words"),
        ("漢", "words and parts of words"),
        (" 42", "numbers"),
        (' """', "punctuation and signs"),
        ("\n    ", "ends of lines, with indentation"),
        ("   ", "blanks alone"),
    ],
)
def test_a_token_is_of_a_kind(text, name):
    assert kind(text) == name


def test_kinds_are_ordered_by_their_mean_weight_with_all_their_tokens(letters):
    found = ranked({0: [1.0, 2.0], 1: [3.0], 2: [5.0], 4: [0.0]}, letters)["kinds"]
    assert found == [
        ["numbers", 1, 5.0],
        ["words and parts of words", 3, 2.0],
        ["ends of lines, with indentation", 1, 0.0],
    ]


def test_of_equal_weights_the_more_frequent_token_comes_first_and_rare_ones_are_left_out(letters):
    seen = {0: [2.0] * 3, 1: [2.0] * 5, 2: [9.0], 3: [0.5] * 3, 5: [0.5] * 4}
    found = ranked(seen, letters)["ranked"]
    assert found["most"] == [["b", 5, 2.0], ["a", 3, 2.0]]
    assert found["least"] == [[" ", 4, 0.5], [",", 3, 0.5]]
