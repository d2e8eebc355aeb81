"""Globs of a stranger: what a shell's globs fit, in RE2, with work that is bounded before the first step."""

import fnmatch
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wmtp.errors import PlanError
from wmtp.load_plan import work
from wmtp.load_plan.globs import split_by_globs, translate
from wmtp.metadata.transforms import compile_pattern

FIELD = "m/metadata.json: loading_strategy.state_dict_mapping.allow_missing"
CHARACTERS = "ab.]![*?\\^\n日"  # with hyphens, fnmatch takes what a reversed range leaves for the mark of negation


def split(names, globs):
    return split_by_globs([(name,) for name in names], globs, field=FIELD)


@given(st.text(CHARACTERS, max_size=6), st.text(CHARACTERS, max_size=8))
@example("a", "[")
@example("]", "[]]")
@example("b", "[!]a]")
@example("a", "[b-a]")
@example("a", "[!b-a]")
@example("b", "[a-b-c]")
@example("-", "[a-]")
@example("-", "[--a]")
@example("a\n", "a")
@example("日", "?")
@example("^", "[^a]")
def test_a_glob_fits_the_names_that_a_shells_glob_fits(name, pattern):
    assert bool(compile_pattern(translate(pattern)).fullmatch(name)) == fnmatch.fnmatchcase(name, pattern)


@given(st.sampled_from(["", "!"]), st.text("abc-", max_size=7), st.sampled_from("abc-!d"))
def test_a_set_has_the_members_of_a_shells_set(negation, members, character):
    pattern = f"[{negation}{members}]"
    assert bool(compile_pattern(translate(pattern)).fullmatch(character)) == fnmatch.fnmatchcase(character, pattern)


def test_a_thing_with_several_names_is_let_through_by_any_of_them():
    named = [("a.w", "b.w"), ("c.w",), ("d.w", "e.w")]
    assert split_by_globs(named, ["b.*", "?.v", "e.w"], field=FIELD) == (["a.w", "d.w"], ["c.w"])
    assert split_by_globs(named, [], field=FIELD) == ([], ["a.w", "c.w", "d.w"])


@pytest.mark.parametrize("glob", ["*" + "a*" * 500 + "b", "*b" + "?" * 500, "*[ab]" * 200 + "c"])
def test_a_glob_that_takes_others_years_is_held_to_every_name(glob):
    held = ["a" * 500 + f"{n}" for n in range(20)]
    assert split(held, [glob]) == ([], held)


def test_more_globs_for_more_names_than_any_honest_ones_are_refused_before_the_first_step():
    with pytest.raises(PlanError) as refused:
        split([f"{'a' * 500}{n}" for n in range(2_000)], ["*" + "a*" * 500 + f"b{n}" for n in range(256)])
    assert refused.value.problem.startswith(f"{FIELD} needs ")
    assert "steps of matching for 2,000 names, more than the 10,000,000,000 allowed" in refused.value.problem
    assert "fewer or simpler patterns" in refused.value.hint


def test_globs_of_the_largest_models_are_within_the_work_allowed(monkeypatch):
    globs = ["model.layers.*.mlp.experts.*.*_scale_inv", "model.layers.61.*", "*.rotary_emb.inv_freq", "model.mtp.*"]
    held = [f"model.layers.{n % 61}.mlp.experts.{n % 384}.down_proj.weight_scale_inv" for n in range(1_400)]
    monkeypatch.setattr(work, "MAX_STEPS", work.MAX_STEPS // 100)  # a hundredth of the names of such a model
    assert split(held, globs) == (held, [])


def test_without_google_re2_globs_are_refused_and_a_mapping_without_them_is_not():
    program = (
        "import sys; sys.modules['re2'] = None\n"
        "from wmtp.errors import PlanError\n"
        "from wmtp.load_plan.globs import split_by_globs\n"
        "assert split_by_globs([('w',)], [], field='f') == ([], ['w'])\n"
        "try: split_by_globs([('w',)], ['*'], field='f')\n"
        "except PlanError as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert ran.stdout == (
        "f: globs need the package google-re2, which is not installed\nhint: install it: pip install google-re2\n"
    )
