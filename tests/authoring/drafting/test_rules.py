from wmtp.authoring.drafting.expressions import Cut, Joined, Scaled, Stored, Turned
from wmtp.authoring.drafting.rules import rules_of


def experts(layer: int, part: str, numbers: list[int]) -> Joined:
    parts = tuple(Stored(f"l.{layer}.e.{number}.{part}", (4, 2)) for number in numbers)
    return Joined(0, True, parts, (len(numbers), 4, 2))


def drafted(made, *, generalise=True):
    return rules_of(made, lambda name: name, generalise=generalise)


def test_experts_of_all_layers_are_one_rule():
    made = {f"l.{i}.up": experts(i, "w1", [0, 1, 2]) for i in (3, 4, 9)}
    assert drafted(made) == {"l.{i}.up": {"stack": 0, "each": "e", "of": "l.{i}.e.{e}.w1"}}
    assert list(drafted(made, generalise=False)) == ["l.3.up", "l.4.up", "l.9.up"]


def test_parts_that_do_not_count_from_zero_are_listed():
    rule = drafted({"up": experts(0, "w1", [0, 2, 1])})["up"]
    assert rule == {"stack": 0, "of": ["l.0.e.0.w1", "l.0.e.2.w1", "l.0.e.1.w1"]}


def test_layers_that_are_cut_into_other_sizes_have_rules_of_their_own():
    made = {f"l.{i}.q": Cut(0, 0, size, Stored(f"l.{i}.qkv", (8, 2))) for i, size in enumerate((2, 2, 4))}
    assert list(drafted(made)) == ["l.0.q", "l.1.q", "l.2.q"]
    made.popitem()
    assert drafted(made) == {"l.{i}.q": {"split": 0, "sizes": [2, 6], "take": 0, "of": "l.{i}.qkv"}}


def test_pieces_are_counted_among_all_that_a_tensor_is_cut_into():
    qkv = Stored("qkv", (8, 2))
    rules = drafted({"q": Cut(0, 0, 4, qkv), "k": Cut(0, 4, 6, qkv), "v": Cut(0, 6, 8, qkv)})
    assert [(rule["sizes"], rule["take"]) for rule in rules.values()] == [([4, 2, 2], take) for take in range(3)]


def test_a_layer_that_is_counted_otherwise_than_its_tensors_is_not_generalised():
    made = {f"l.{i + 1}.q": Turned(Stored(f"a.{i}", (4, 2)), (4, 2), (1, 1), ((1,), (0,))) for i in range(2)}
    assert drafted(made)["l.1.q"] == {"rearrange": "a b -> b a", "of": "a.0"}


def test_axes_get_the_sizes_that_their_dimension_leaves_open():
    rope = Turned(Stored("q", (24, 6)), (4, 2, 3, 6), (3, 1), ((0, 2, 1), (3,)))
    assert drafted({"q": rope})["q"] == {"rearrange": "(a b c) d -> (a c b) d", "sizes": {"b": 2, "c": 3}, "of": "q"}


def test_values_in_fewer_bits_come_with_their_scales():
    scaled = Scaled("fp8_block", (128, 128), Stored("q", (256, 256)), Stored("q_scale_inv", (2, 2)), (256, 256))
    assert drafted({"q": scaled})["q"] == {
        "dequantise": "fp8_block",
        "block": [128, 128],
        "of": "q",
        "scales": "q_scale_inv",
    }
