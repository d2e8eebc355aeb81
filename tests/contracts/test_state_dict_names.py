"""Names of tensors in published checkpoints: a change here makes every checkpoint in the world unreadable."""

from native_models import native
from tiny_models import tiny_mtp

TRUNK_OF_LLAMA = [
    "trunk.model.embed_tokens.weight",
    *(
        f"trunk.model.layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in (
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
        )
    ),
    "trunk.model.norm.weight",
    "trunk.lm_head.weight",
]  # fmt: skip


def test_a_model_with_linear_heads_keeps_its_names():
    heads = ["heads.2.unembedding.weight", "heads.3.unembedding.weight"]
    assert list(tiny_mtp("llama", head_type="linear").state_dict()) == TRUNK_OF_LLAMA + heads


def test_a_model_with_transformer_heads_keeps_its_names():
    last = "trunk.model.layers.1."
    heads = [
        f"heads.{k}.layer.{name.removeprefix(last)}" for k in (2, 3) for name in TRUNK_OF_LLAMA if name.startswith(last)
    ]
    assert list(tiny_mtp("llama", head_type="transformer").state_dict()) == TRUNK_OF_LLAMA + heads


def test_a_model_with_heads_of_residual_blocks_keeps_its_names():
    model = tiny_mtp("llama", heads=2, head_type="resblock", options={"num_blocks": 2, "block_bias": True})
    blocks = [f"heads.2.blocks.{j}.linear.{part}" for j in (0, 1) for part in ("weight", "bias")]
    assert list(model.state_dict()) == [*TRUNK_OF_LLAMA, *blocks, "heads.2.unembedding.weight"]
    shared = tiny_mtp("llama", heads=2, head_type="resblock", options={"shared_unembedding": True})
    assert list(shared.state_dict()) == [*TRUNK_OF_LLAMA, "heads.2.blocks.0.linear.weight"]


def test_the_trunk_of_gpt2_keeps_the_names_of_transformers():
    names = tiny_mtp("gpt2").state_dict()
    assert {"trunk.transformer.wte.weight", "trunk.transformer.h.1.attn.c_attn.bias", "trunk.lm_head.weight"} <= {
        *names
    }
    assert "heads.3.layer.attn.c_attn.bias" in names


def test_native_modules_keep_their_names():
    names = [name for name in native("inkling", final_norm="own").state_dict() if not name.startswith("trunk.")]
    own = ("enorm.weight", "hnorm.weight", "eh_proj.weight", "post_norm.weight")
    assert [name for name in names if "mtp_block" not in name] == [f"heads.{k}.{part}" for k in (2, 3) for part in own]
    assert "heads.3.mtp_block.self_attn.q_proj.weight" in names
    shared = native("inkling", final_norm="shared").state_dict()
    assert "shared_post_norm.weight" in shared
    owned = native("mellum", embedding="own", unembedding="own").state_dict()
    assert {"heads.2.embed_tokens.weight", "heads.2.unembedding.weight"} <= owned.keys()
