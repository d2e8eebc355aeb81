"""Foreign text on a terminal: one short line of printable ASCII, and nothing else."""

from __future__ import annotations

import ast
import json

from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.documents import values
from fuzz.target import fuzz_target
from wmtp.untrusted import did_you_mean, show, show_all

characters = st.characters() | st.sampled_from("\x00\x07\x1b\r\n\x7f\x85\u2028\u202e\ud800\\'\"")
texts = st.text(characters, max_size=60) | st.text(characters, min_size=150, max_size=400)
deep = st.integers(1, 64).map(lambda levels: json.loads("[" * levels + "]" * levels))
foreign = texts | values | deep | st.dictionaries(texts, texts, max_size=3) | st.lists(texts, max_size=30)


@fuzz_target(250)
@given(foreign)
@example("\x1b]0;title\x07\x9b31m")
@example("\\" * 300)
@example({"\x7f\x9b": ["\x7f"]})
@example(float("nan"))
@example(10**4000)
def test_whatever_is_shown_is_one_short_line_of_printable_ascii(value):
    shown = show(value)
    assert all(" " <= character <= "~" for character in shown)
    assert 0 < len(shown) <= 200


@fuzz_target(200)
@given(texts | values)
def test_what_is_shown_whole_can_be_told_apart_from_everything_else(value):
    shown = show(value)
    if len(shown) < 198 and "\\x7f" not in shown:
        assert repr((ast.literal_eval if isinstance(value, str) else json.loads)(shown)) == repr(value)


@fuzz_target(50)
@given(st.lists(foreign, max_size=40))
def test_of_many_values_at_most_twenty_one_lines_are_shown(listed):
    shown = show_all(listed)
    assert len(shown) == min(len(listed), 21)
    assert all(line.isprintable() and len(line) <= 200 for line in shown)


@fuzz_target(50)
@given(texts, st.lists(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), max_size=5))
def test_a_suggestion_is_one_of_the_known_words(word, known):
    suggestion = did_you_mean(word, known)
    assert suggestion in ("", *(f" (did you mean '{candidate}'?)" for candidate in known))
