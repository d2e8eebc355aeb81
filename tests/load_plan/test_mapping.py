import pytest

from wmtp.errors import PlanError
from wmtp.load_plan import work
from wmtp.load_plan.mapping import map_names
from wmtp.metadata.schema import StateDictMapping


def names(tensors, **mapping):
    return [mapped.name for mapped in map_names(StateDictMapping(**mapping), tensors, where="models/a").values()]


def refusal(tensors, **mapping):
    with pytest.raises(PlanError) as caught:
        map_names(StateDictMapping(**mapping), tensors, where="models/a")
    assert (
        caught.value.problem == "models/a/metadata.json: loading_strategy.state_dict_mapping does not fit the tensors"
    )
    assert "wmtp inspect --tensors" in caught.value.hint
    return caught.value.faults


def test_without_rules_names_stay_as_they_are():
    assert map_names(StateDictMapping(), ["b", "a"], where="x")["b"].rules == ()
    assert names(["b", "a"]) == ["b", "a"]
    assert names([]) == []


def test_the_prefix_goes_first_then_transforms_in_file_order_then_the_new_prefix():
    mapping = {
        "remove_prefix": "old.",
        "key_transforms": {"^h": "layers", "layers": "blocks"},
        "add_prefix": "new.",
    }
    mapped = map_names(StateDictMapping(**mapping), ["old.h.w", "layers.v"], where="x")
    assert [name.name for name in mapped.values()] == ["new.blocks.w", "new.blocks.v"]
    assert mapped["old.h.w"].rules == (
        "remove_prefix 'old.'",
        "key_transforms '^h'",
        "key_transforms 'layers'",
        "add_prefix 'new.'",
    )
    assert mapped["layers.v"].rules == ("key_transforms 'layers'", "add_prefix 'new.'")


def test_a_prefix_is_removed_once_and_only_from_the_names_that_have_it():
    assert names(["a.a.w", "b.a.v"], remove_prefix="a.") == ["a.w", "b.a.v"]


@pytest.mark.parametrize(
    ("pattern", "replacement", "name", "expected"),
    [
        (r"h\.(\d+)\.(\w+)", r"layers.\2.\1", "h.12.w", "layers.w.12"),  # groups in any order
        (r"w", r"\\", "a.w", "a.\\"),  # an escaped backslash
        (r"(w)", r"\\1", "a.w", "a.\\1"),  # ... is not the start of a group
        (r"w", r"$1{x}\\g<0>", "a.w", r"a.$1{x}\g<0>"),  # nothing else is special
        (r"(x)?w", r"[\1]", "a.w", "a.[]"),  # a group that took no part is empty
        (r"a", "b", "a.a.a", "b.b.b"),  # everywhere in the name
        (r"^", "m.", "w", "m.w"),  # a place without characters
        (r"é(.)", r"\1e", "é日.w", "日e.w"),  # characters, not bytes
        (r"(?i)W$", "v", "a.w", "a.v"),
    ],
)
def test_a_transform_replaces_what_its_pattern_finds(pattern, replacement, name, expected):
    assert names([name], key_transforms={pattern: replacement}) == [expected]


def test_every_rule_that_matches_no_tensor_is_named():
    mapping = {"remove_prefix": "modle.", "key_transforms": {"^a$": "b", "w": "v", "absent": "x"}, "add_prefix": "m."}
    assert refusal(["model.w"], **mapping) == (
        "remove_prefix 'modle.' matches no tensor",
        "key_transforms '^a$' matches no tensor",
        "key_transforms 'absent' matches no tensor",
    )
    assert len(refusal([], **mapping)) == 5


def test_a_part_of_a_declared_head_that_is_gone_is_named():
    rules = {r"^mtp\.fc\.": "heads.2.eh_proj.", r"^mtp\.layers\.0\.": "heads.2.mtp_block."}
    with pytest.raises(PlanError) as caught:
        map_names(StateDictMapping(key_transforms=rules), ["mtp.layers.0.mlp.w"], where="models/a")
    assert caught.value.faults == (
        r"key_transforms '^mtp\\.fc\\.' matches no tensor: head 2, which is declared, lacks its heads.2.eh_proj",
    )
    assert caught.value.hint.startswith("take the checkpoint that still has them, or see")


def test_two_long_rules_that_look_alike_in_print_are_still_two():
    (fault,) = refusal(["w"], key_transforms={"x" * 250 + "|w": "w", "x" * 250 + "|z": "z"})
    assert fault == f"key_transforms '{'x' * 196}... matches no tensor"


def test_two_tensors_that_get_one_name_are_refused_by_name():
    faults = refusal(["a.w", "w", "b.w"], key_transforms={r"^[ab]\.": ""})
    by = ", by key_transforms '^[ab]\\\\.'"
    assert faults == (f"'a.w' and 'w' both become 'w'{by}", f"'a.w' and 'b.w' both become 'w'{by}")


def test_faults_of_every_kind_are_named_at_once_and_after_twenty_counted():
    faults = refusal([f"w{i}" for i in range(30)], key_transforms={r"\d+": "", "absent": ""})
    assert faults[:2] == (
        "key_transforms 'absent' matches no tensor",
        "'w0' and 'w1' both become 'w', by key_transforms '\\\\d+'",
    )
    assert len(faults) == 21
    assert faults[-1] == "and 10 more"


def test_a_name_that_becomes_empty_or_too_long_is_refused():
    assert refusal(["w"], key_transforms={"w": ""}) == (
        "'w' becomes a name that is empty or longer than 512 bytes, by key_transforms 'w'",
    )
    assert "empty or longer than 512 bytes" in refusal(["w" * 512], add_prefix="m")[0]
    assert "empty or longer than 512 bytes" in refusal(["é" * 256], add_prefix="m")[0]
    assert names(["w" * 511], add_prefix="m") == ["m" + "w" * 511]


def test_rules_that_double_a_name_again_and_again_are_stopped_at_the_first_name_that_is_too_long():
    faults = refusal(["ab"], key_transforms={f"(.)x{{0,{i}}}": r"\1\1" for i in range(200)})
    assert faults[0].startswith(
        "'ab' becomes a name that is empty or longer than 512 bytes, by key_transforms '(.)x{0,0}'"
    )
    assert faults[0].endswith(" and 5 more")


@pytest.mark.parametrize(
    "pattern", ["(a*)*b", "(a|a)*$|^b", "(a+)+(a+)+(a+)+!", "((a{0,9}){0,9}){0,9}x", "(.*)(.*)(.*)(.*)q"]
)
def test_a_pattern_that_takes_others_years_needs_few_of_the_steps_allowed(pattern, monkeypatch):
    monkeypatch.setattr(work, "MAX_STEPS", work.MAX_STEPS // 1000)
    assert names(["b.w", "a" * 500], key_transforms={f"{pattern}|w$": "v"})[0].endswith("v")


def test_rules_that_need_more_steps_than_any_honest_ones_are_refused_before_the_first():
    rules = {f"(?i)(.*)(.*)(.*)(.*)(.*)x{n}$": r"\1" for n in range(256)}
    with pytest.raises(PlanError) as refused:
        names([f"model.layers.{n}.w" for n in range(20_000)], key_transforms=rules)
    assert refused.value.problem.startswith("models/a/metadata.json: loading_strategy.state_dict_mapping.key_transf")
    assert "steps of matching for 20,000 names, more than the 10,000,000,000 allowed" in refused.value.problem


def test_a_rule_that_searches_the_rest_of_a_name_again_and_again_is_stopped_by_its_steps(monkeypatch):
    held = [f"{'a' * 500}{n}" for n in range(10)]
    monkeypatch.setattr(work, "MAX_STEPS", 10_000_000)
    assert names(held, key_transforms={"[^z]*z|^a": "b"})[0] == "b" + held[0][1:]
    with pytest.raises(PlanError, match=r"key_transforms needs [0-9,]+ steps of matching for 10 names, more than"):
        names(held, key_transforms={"[^z]*z|a": "b"})


def test_the_rules_of_the_largest_models_are_within_the_work_allowed(monkeypatch):
    held = [f"transformer.layers.{n % 61}.mlp.experts.{n}.down_proj.weight_scale_inv" for n in range(1_400)]
    rules = {rf"^transformer\.layers\.(\d+)\.mlp\.experts|absent{n}": r"model.layers.\1.experts" for n in range(9)}
    monkeypatch.setattr(work, "MAX_STEPS", work.MAX_STEPS // 100)  # a hundredth of the names of such a model
    with pytest.raises(PlanError, match="does not fit the tensors"):  # the first rule leaves the others nothing
        names(held, key_transforms=rules)


def test_every_rule_that_made_two_names_one_is_named():
    (fault,) = refusal(["old.w", "v"], remove_prefix="old.", key_transforms={"v": "w"}, add_prefix="m.")
    rules = "remove_prefix 'old.', add_prefix 'm.', key_transforms 'v'"
    assert fault == f"'old.w' and 'v' both become 'm.w', by {rules}"
