import pytest

from wmtp.checkpoint.contradictions import impossible_values, other_sizes, shape_contradictions, without_coincidences
from wmtp.checkpoint.tensors import TensorInfo


def tensor(name, *shape):
    return TensorInfo(name, "F32", shape, "model.safetensors", 0, 0)


def blamed(config, name, found, wanted):
    return [str(each) for each in shape_contradictions(config, tensor(name, *found), wanted)]


@pytest.mark.parametrize(
    ("config", "name", "found", "wanted", "said"),
    [
        (
            {"vocab_size": 128},
            "model.embed_tokens.weight",
            (96, 8),
            (128, 8),
            "vocab_size in config.json is 128, not 96",
        ),
        ({"vocab_size": 7}, "lm_head.bias", (9,), (7,), "vocab_size in config.json is 7, not 9"),
        (
            {"text_config": {"vocab_size": 7}},
            "wte.weight",
            (9, 2),
            (7, 2),
            "text_config.vocab_size in config.json is 7",
        ),
        ({"num_labels": 3}, "score.weight", (1, 8), (3, 8), "num_labels in config.json is 3, not 1"),
        ({"id2label": {"0": "a", "1": "b"}}, "classifier.bias", (5,), (2,), "id2label in config.json counts 2, not 5"),
        ({}, "score.weight", (1, 8), (2, 8), "config.json has no num_labels or id2label, and the class then takes 2"),
        ({"n_positions": 64}, "transformer.wpe.weight", (32, 8), (64, 8), "n_positions in config.json is 64, not 32"),
        ({"hidden_size": 64, "n_head": 64}, "norm.weight", (32,), (64,), "hidden_size in config.json is 64, not 32"),
    ],
)
def test_the_key_that_gave_a_parameter_its_shape_is_named_with_both_numbers(config, name, found, wanted, said):
    (only,) = blamed(config, name, found, wanted)
    assert only.startswith(said)


def test_a_key_that_is_not_there_is_blamed_for_what_the_class_then_takes():
    score = tensor("score.weight", 1, 8)
    found = shape_contradictions({"vocab_size": 8}, score, (2, 8))
    ((kept,),) = without_coincidences([found], {"vocab_size": 8}, [score])
    assert str(kept) == "config.json has no num_labels or id2label, and the class then takes 2, not 1"
    assert kept.advice == 'write "num_labels": 1 in config.json'


def test_no_key_is_blamed_for_other_dimensions_or_another_rank():
    config = {"vocab_size": 8, "hidden_size": 4}
    assert blamed(config, "model.embed_tokens.weight", (8,), (8, 4)) == []
    assert blamed(config, "model.q_proj.weight", (5, 4), (6, 4)) == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"vocab_size": 10, "pad_token_id": 10}, "pad_token_id is 10, but vocab_size is 10, so that ids end at 9"),
        ({"vocab_size": 10, "pad_token_id": -11}, "pad_token_id is -11, but vocab_size is 10"),
        ({"text_config": {"vocab_size": 5, "pad_token_id": 7}}, "text_config.pad_token_id is 7, but vocab_size is 5"),
        ({"hidden_size": -8}, "hidden_size is -8, which is no size: wte.weight in model.safetensors has 4 columns"),
        ({"vocab_size": 0}, "vocab_size is 0, which is no size: wte.weight in model.safetensors has 12 rows"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, which is no size: the tensors are of 3 layers"),
        ({"num_attention_heads": "2"}, "num_attention_heads is '2', which is no whole number"),
        ({"id2label": ["a"]}, 'id2label is ["a"], which is no object of numbers and names'),
    ],
)
def test_a_value_of_which_no_model_is_made_is_named_with_what_the_tensors_have(config, said):
    (only,) = impossible_values(config, [tensor("wte.weight", 12, 4), tensor("h.2.attn.weight", 4, 4)])
    assert only.startswith(said)


def test_ordinary_values_and_zeros_that_mean_none_are_not_impossible():
    config = {"vocab_size": 10, "pad_token_id": -1, "num_experts": 0, "num_hidden_layers": 2, "id2label": {"0": "a"}}
    assert impossible_values(config | {"bos_token_id": 99, "sliding_window": None, "tie": False}, []) == []


@pytest.mark.parametrize("key", ["num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers"])
def test_no_native_heads_are_a_number_of_them(key):
    assert impossible_values({key: 0, "text_config": {key: 0}}, []) == []


def test_sizes_that_the_tensors_contradict_are_named_and_equal_ones_are_not():
    tensors = [tensor("wte.weight", 12, 4), tensor("h.0.w", 4), tensor("h.1.w", 4)]
    assert other_sizes({"vocab_size": 12, "n_embd": 4, "n_layer": 2}, tensors) == []
    assert other_sizes({"vocab_size": 12, "n_embd": 4, "n_layer": 5}, tensors) == [
        "n_layer is 5, but the tensors are of 2 layers"
    ]
