from wmtp.authoring.drafting.renames import draft_renaming


def test_one_prefix_is_drafted_as_a_prefix():
    assert draft_renaming({"a.x": "x", "a.y.z": "y.z"}, []).fields == {"remove_prefix": "a."}
    assert draft_renaming({"x": "m.x", "y.z": "m.y.z"}, []).fields == {"add_prefix": "m."}


def test_layers_are_renamed_by_one_rule_for_all_of_them():
    wanted = {f"h.{i}.attn.{part}.weight": f"layers.{i}.self_attn.{part}.weight" for i in range(3) for part in "qkv"}
    renaming = draft_renaming(wanted, [])
    assert renaming.fields == {"key_transforms": {r"^h\.": "layers.", r"\.attn\.": ".self_attn."}}
    assert renaming.rename("h.41.attn.q.weight") == "layers.41.self_attn.q.weight"


def test_a_name_that_makes_way_for_another_is_renamed_first():
    wanted = {"norm0.w": "norm1.w", "norm1.w": "norm2.w", "x": "x"}
    renaming = draft_renaming(wanted, [])
    assert {name: renaming.rename(name) for name in wanted} == wanted
    assert list(renaming.fields["key_transforms"]) == [r"^norm1\.", r"^norm0\."]


def test_a_rule_that_would_take_a_name_that_is_right_is_drafted_for_its_place_only():
    wanted = {"a.layers.0.attn.w": "a.layers.0.self.w", "b.layers.0.attn.w": "b.layers.0.attn.w"}
    assert draft_renaming(wanted, []).fields == {
        "key_transforms": {r"^a\.layers\.([0-9]+)\.attn\.": r"a.layers.\1.self."}
    }


def test_names_that_change_places_are_no_renaming():
    assert draft_renaming({"a.w": "b.w", "b.w": "a.w"}, []) is None
    assert draft_renaming({"a\n.w": "b.w"}, []) is None
