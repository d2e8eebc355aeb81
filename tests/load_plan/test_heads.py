from wmtp.load_plan.heads import StoredHead, stored_heads
from wmtp.metadata.schema import StateDictMapping


def test_what_the_names_of_each_head_begin_with_is_said_once():
    rules = {r"^mtp\.fc\.": "heads.2.eh_proj.", r"^mtp\.layers\.0\.": "heads.2.mtp_block.", "^(model)": r"trunk.\1"}
    names = ["model.w", "mtp.fc.weight", "mtp.layers.0.mlp.w", "mtp.layers.0.input_layernorm.w"]
    found = stored_heads(StateDictMapping(key_transforms=rules), names, where="x")
    assert found == [StoredHead(2, 3, ("mtp.fc", "mtp.layers.0"))]


def test_heads_under_their_own_names_come_in_order():
    names = ["heads.10.layer.a", "heads.2.layer.a", "heads.2.layer.b", "trunk.a"]
    found = stored_heads(StateDictMapping(), names, where="x")
    assert [(head.number, head.num_tensors, head.begins) for head in found] == [
        (2, 2, ("heads.2",)),
        (10, 1, ("heads.10",)),
    ]
