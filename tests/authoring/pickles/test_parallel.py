"""How tensor-parallel shards are put together; a whole conversion of them is in test_convert.py."""

import pytest
import torch

from wmtp.authoring.pickles.parallel import merged, split_dimension
from wmtp.errors import CheckpointError, FormatError

LLAMA_2 = {"dim": 8192, "n_heads": 64, "n_kv_heads": 8}  # its vocab_size is -1: not known
LLAMA_3 = {"dim": 8192, "n_heads": 64, "n_kv_heads": 8, "vocab_size": 128256}


@pytest.mark.parametrize(
    ("name", "piece", "dimension"),
    [
        ("layers.3.attention.wq.weight", (1024, 8192), 0),
        ("layers.3.attention.wk.weight", (128, 8192), 0),
        ("layers.3.attention.wv.weight", (128, 8192), 0),
        ("layers.3.attention.wo.weight", (8192, 1024), 1),
        ("layers.3.feed_forward.w1.weight", (3584, 8192), 0),
        ("layers.3.feed_forward.w2.weight", (8192, 3584), 1),
        ("layers.3.feed_forward.w3.weight", (3584, 8192), 0),
        ("layers.3.attention_norm.weight", (8192,), None),
        ("norm.weight", (8192,), None),
        ("rope.freqs", (64,), None),
        ("output.weight", (16032, 8192), 0),
        ("tok_embeddings.weight", (16032, 8192), 0),
    ],
)
def test_eight_shards_of_llama_3_70b_are_split_as_its_layers_say(name, piece, dimension):
    assert split_dimension(name, piece, 8, LLAMA_3) == dimension


def test_the_embedding_of_llama_2_was_split_by_columns():
    assert split_dimension("tok_embeddings.weight", (32000, 1024), 8, LLAMA_2) == 1


@pytest.mark.parametrize("sizes", [LLAMA_2, LLAMA_3 | {"vocab_size": 32000}])
def test_an_embedding_whose_split_cannot_be_told_is_refused(sizes):
    # 32,000 rows of the full width in each: split by rows, or the same in all of them?
    with pytest.raises(CheckpointError, match=r"8 pieces of 'tok_embeddings.weight', each of shape \[32000, 8192\]"):
        split_dimension("tok_embeddings.weight", (32000, 8192), 8, sizes)


def test_keys_that_several_shards_repeat_are_refused_rather_than_joined():
    with pytest.raises(CheckpointError, match=r"'layers.0.attention.wk.weight'.* do not make what params.json says"):
        split_dimension("layers.0.attention.wk.weight", (128, 8192), 16, LLAMA_3)


@pytest.mark.parametrize("name", ["layers.0.attention.wq.bias", "vision.wq.weight", "layers.0.moe.w1.weight", "x"])
def test_a_weight_without_a_rule_is_refused(name):
    with pytest.raises(CheckpointError, match="no rule says how"):
        split_dimension(name, (4, 8192), 8, LLAMA_3)


def test_norms_that_differ_between_shards_are_refused():
    shards = [{"norm.weight": torch.ones(4)}, {"norm.weight": torch.zeros(4)}]
    with pytest.raises(FormatError, match=r"'norm.weight' is in every shard whole, and not the same in all"):
        merged(shards, {"dim": 4})


@pytest.mark.parametrize("other", [{"output.weight": torch.ones(3, 4)}, {"output.weight": torch.ones(2, 4).half()}])
def test_pieces_of_different_shape_or_dtype_are_refused(other):
    with pytest.raises(FormatError, match=r"the pieces of 'output.weight' differ in shape or dtype"):
        merged([{"output.weight": torch.ones(2, 4)}, other], {"dim": 4})


def test_shards_with_different_tensors_are_refused():
    with pytest.raises(FormatError, match=r"shards 00 and 01 do not have the same tensors: 'rope.freqs'"):
        merged(
            [{"norm.weight": torch.ones(4)}, {"norm.weight": torch.ones(4), "rope.freqs": torch.ones(1)}], {"dim": 4}
        )
