"""The notation of rearrange, against what torch does for it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wmtp.metadata.rearrangement import parse_rearrangement

AXES = st.sampled_from(["a", "b", "c", "d1", "e_f", "two"])


def joined(groups):
    return " ".join(group[0] if len(group) == 1 else f"({' '.join(group)})" for group in groups)


@st.composite
def sides(draw):
    """The same axes twice, each time in another order and in groups."""
    axes = draw(st.lists(AXES, min_size=1, max_size=5, unique=True))

    def grouped(order):
        cuts = [0, *sorted(draw(st.sets(st.integers(1, len(order)), max_size=3)) - {len(order)}), len(order)]
        return tuple(tuple(order[start:end]) for start, end in pairwise(cuts))

    return grouped(axes), grouped(draw(st.permutations(axes)))


@given(sides())
def test_what_is_written_is_what_is_read_and_its_inverse_undoes_it(case):
    before, after = case
    found = parse_rearrangement(f"{joined(before)} -> {joined(after)}")
    assert (found.before, found.after) == (before, after)
    assert found.inverse.inverse == found
    axes = [axis for group in before for axis in group]
    sizes = {axis: 2 + position for position, axis in enumerate(axes)}
    value = torch.arange(torch.Size(sizes.values()).numel()).view([sizes[axis] for axis in axes])
    turned = value.permute(found.order)
    assert list(turned.shape) == [sizes[axis] for group in after for axis in group]
    assert torch.equal(turned.permute(found.inverse.order), value)


def test_spaces_do_not_matter_where_they_part_nothing():
    assert parse_rearrangement("( a b )c->c( b  a )") == parse_rearrangement("(a b) c -> c (b a)")


@pytest.mark.parametrize(
    "text",
    [
        *("", "->", "a", "a ->", "-> a", "a -> a -> a", "() a -> a", "(a -> a", "a) -> a", "(a (b)) -> a b", "A -> A"),
        *("a ... -> ... a", "1 a -> a", "a, b -> b, a", "a\tb -> b a", "\uff41 -> \uff41", "a - > a", "_a -> _a"),
        "*a -> a",
    ],
)
def test_what_is_no_rearrangement_is_refused(text):
    with pytest.raises(ValueError, match="which is not axes before and after an arrow"):
        parse_rearrangement(text)


@pytest.mark.parametrize("text", ["a b -> a", "a -> a b", "a a -> a a", "a b -> a c"])
def test_both_sides_name_the_same_axes_each_once(text):
    with pytest.raises(ValueError, match="whose two sides do not name the same axes, each once"):
        parse_rearrangement(text)


def test_sizes_that_are_left_open_follow_from_the_dimensions():
    found = parse_rearrangement("(h d two) x -> (h two d) x")
    assert found.axis_sizes((24, 7), {"h": 3, "two": 2}) == {"h": 3, "d": 4, "two": 2, "x": 7}
