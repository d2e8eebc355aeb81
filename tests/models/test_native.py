import pytest
import torch
import torch.nn.functional as F
from transformers.models.deepseek_v32.modeling_deepseek_v32 import (
    DeepseekV32DecoderLayer,
    DeepseekV32RMSNorm,
    DeepseekV32RotaryEmbedding,
)
from transformers.models.ernie4_5_moe.modeling_ernie4_5_moe import (
    Ernie4_5_MoeDecoderLayer,
    Ernie4_5_MoeRMSNorm,
    Ernie4_5_MoeRotaryEmbedding,
)
from transformers.models.glm4_moe.modeling_glm4_moe import Glm4MoeDecoderLayer, Glm4MoeRMSNorm, Glm4MoeRotaryEmbedding
from transformers.models.glm_moe_dsa.modeling_glm_moe_dsa import (
    GlmMoeDsaDecoderLayer,
    GlmMoeDsaRMSNorm,
    GlmMoeDsaRotaryEmbedding,
)

from native_models import FAMILIES, declared, native, oracle
from tiny_models import tokens
from wmtp.errors import CheckpointError
from wmtp.models.native import NativeMTPForCausalLM

every_family = pytest.mark.parametrize("family", FAMILIES)
# transformers' ERNIE and DeepSeek make the module's block of experts, whatever the trunk's layers are.
with_oracle = pytest.mark.parametrize(
    "family", ["qwen3_5", "mellum", "inkling", "mimo", "qwen3_5_moe", "qwen3_next", "exaone_moe", "exaone4_5"]
)


def expected_logits(model, ids):
    """The logits of heads 2..H by transformers' own modules; what these do not know is done to their inputs."""
    made, conventions = oracle(model), model.conventions
    final_norm, inputs = model.trunk.get_submodule(model._final_norm), []
    handle = final_norm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    after = model.trunk.base_model(ids, use_cache=False).last_hidden_state
    handle.remove()
    passed = after if conventions.hidden == "after_norm" else inputs[0]
    made.config.mtp_hidden_states_first = conventions.concatenation == "hidden_embedding"
    for layer in made.layers:
        layer.config.mtp_hidden_states_first = made.config.mtp_hidden_states_first
    positions = torch.arange(ids.shape[1]).unsqueeze(0)
    for i in range(len(model.heads)):
        embeds = made.embed_tokens(F.pad(ids[:, 1 + i :], (0, 1 + i)))
        if i == 0 and conventions.first_embedding == "zeroed":
            embeds[:, 0] = 0
        passed = made.forward_layer(i, passed, positions, None, inputs_embeds=embeds)
        yield made._project_to_logits(passed)


@with_oracle
def test_modules_are_bit_equal_to_those_of_transformers(family):
    model, ids = native(family), tokens(2, 12)
    with torch.no_grad():
        logits = model(ids).logits
        for k, expected in enumerate(expected_logits(model, ids), 2):
            assert float(expected.std()) > 0.1
            assert torch.equal(logits[:, :, k - 1], expected)


# transformers has no module of this form, or none that it can call: composed here of its decoder layer and norm,
# by what docs/native_heads.md says of the families.
@pytest.mark.parametrize(
    ("family", "layer", "norm", "rotary"),
    [
        ("ernie", Ernie4_5_MoeDecoderLayer, Ernie4_5_MoeRMSNorm, Ernie4_5_MoeRotaryEmbedding),
        ("glm4_moe", Glm4MoeDecoderLayer, Glm4MoeRMSNorm, Glm4MoeRotaryEmbedding),
        ("deepseek_v32", DeepseekV32DecoderLayer, DeepseekV32RMSNorm, DeepseekV32RotaryEmbedding),
        ("glm_moe_dsa", GlmMoeDsaDecoderLayer, GlmMoeDsaRMSNorm, GlmMoeDsaRotaryEmbedding),
    ],
)
def test_modules_without_their_like_in_transformers_are_its_decoder_layer_between_norms(family, layer, norm, rotary):
    few = {"index_topk": 4}  # of 12 tokens before, where a family has an indexer that chooses among them
    model, ids = native(family, config=few if family.endswith(("_v32", "_dsa")) else None), tokens(2, 12)
    trunk, held, config = model.trunk, model.heads["2"].state_dict(), model.trunk.config
    block = layer(config, 1).eval()
    block.load_state_dict({name.removeprefix("mtp_block."): v for name, v in held.items() if "mtp_block" in name})

    def normed(part, values):
        made = norm(config.hidden_size, config.rms_norm_eps)
        made.load_state_dict({"weight": held[f"{part}.weight"]})
        return made(values)

    with torch.no_grad():
        hidden = trunk.model(ids, use_cache=False).last_hidden_state  # after the final norm
        embeds = trunk.model.embed_tokens(F.pad(ids[:, 1:], (0, 1)))
        embeds[:, 0] = 0  # zeroed beside the first position
        both = torch.cat([normed("enorm", embeds), normed("hnorm", hidden)], dim=-1)
        positions = torch.arange(12).unsqueeze(0)
        mask = torch.full((12, 12), torch.finfo(torch.float32).min).triu(1)[None, None]
        around = {"position_embeddings": rotary(config)(hidden, positions), "attention_mask": mask}
        output = block(F.linear(both, held["eh_proj.weight"]), position_ids=positions, **around)
        output = output[0] if isinstance(output, tuple) else output
        expected = trunk.lm_head(output if family == "ernie" else normed("post_norm", output))
        torch.testing.assert_close(model(ids).logits[:, :, 1], expected, rtol=1e-4, atol=1e-4)
        assert float(expected.std()) > 0.1


def test_a_module_with_experts_is_bit_equal_to_that_of_transformers():
    # transformers makes the block of experts in any case, so the trunk's last layer has them too.
    model, ids = native("deepseek", config={"first_k_dense_replace": 1}), tokens(2, 12)
    assert "heads.2.mtp_block.mlp.experts.gate_up_proj" in model.state_dict()
    with torch.no_grad():
        (expected,) = expected_logits(model, ids)
        assert torch.equal(model(ids).logits[:, :, 1], expected)


@every_family
def test_head_1_is_bit_equal_to_the_trunk(family):
    model, ids = native(family), tokens(2, 12)
    with torch.no_grad():
        logits = model(ids).logits
        assert torch.equal(logits[:, :, 0], model.trunk(ids).logits)
    assert logits.shape[2] == model.num_heads == 1 + len(model.heads)
    assert not torch.equal(logits[:, :, 1], logits[:, :, 0])


@every_family
def test_a_head_sees_the_tokens_before_the_one_it_predicts_and_no_later_one(family):
    model, ids = native(family), tokens(1, 12)
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 64
    with torch.no_grad():
        before, after = model(ids).logits, model(changed).logits
    for k in range(1, model.num_heads + 1):
        first = 6 - (k - 1)  # the row whose module reads token 6 last
        assert torch.equal(before[:, :first, k - 1], after[:, :first, k - 1])
        assert not torch.equal(before[:, first, k - 1], after[:, first, k - 1])


@every_family
def test_cross_entropy_is_that_of_the_logits_over_each_heads_own_targets(family):
    model, ids = native(family), tokens(2, 10)
    with torch.no_grad():
        output, logits = model(ids, labels=ids), model(ids).logits
    for k in range(1, model.num_heads + 1):
        expected = F.cross_entropy(logits[:, :-k, k - 1].transpose(1, 2), ids[:, k:], reduction="none")
        torch.testing.assert_close(output.ce[:, :-k, k - 1], expected)
        assert int(output.valid[:, :, k - 1].sum()) == 2 * (10 - k)


@pytest.mark.parametrize("family", ["mellum", "mimo", "ernie", "deepseek"])
def test_packed_documents_have_the_losses_that_they_have_alone(family):
    model, row = native(family), tokens(1, 20)
    lengths = [7, 9, 4]
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).unsqueeze(0)
    with torch.no_grad():
        packed = model(row, labels=row, document_ids=documents)
        alone = [model(part, labels=part) for part in row.split(lengths, dim=1)]
    torch.testing.assert_close(packed.ce, torch.cat([each.ce for each in alone], dim=1), rtol=0, atol=1e-4)
    assert torch.equal(packed.valid, torch.cat([each.valid for each in alone], dim=1))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_loss(side):
    model, ids = native("mimo"), tokens(1, 9)
    pad = torch.zeros(1, 5, dtype=torch.long)
    parts = [pad, ids] if side == "left" else [ids, pad]
    mask = torch.cat([torch.ones_like(p) if p is ids else torch.zeros_like(p) for p in parts], dim=1)
    with torch.no_grad():
        expected = model(ids, labels=ids)
        found = model(torch.cat(parts, dim=1), attention_mask=mask, labels=torch.cat(parts, dim=1))
    torch.testing.assert_close(found.ce[:, mask[0].bool()], expected.ce, rtol=1e-4, atol=1e-4)
    assert found.valid.sum() == expected.valid.sum()


def test_one_module_run_again_reads_its_own_output():
    once, thrice, ids = native("mellum"), native("mellum", recursion=3), tokens(1, 10)
    with torch.no_grad():
        single, several = once(ids).logits, thrice(ids).logits
        _, heads = thrice.forward_heads(ids)
        made, positions = oracle(thrice), torch.arange(10).unsqueeze(0)
        second = made.forward_layer(0, heads[:, :, 1], positions, None, input_ids=F.pad(ids[:, 2:], (0, 2)))
    assert thrice.num_heads == 4
    assert torch.equal(several[:, :, :2], single)
    assert torch.equal(heads[:, :, 2], second)


@pytest.mark.parametrize("family", ["mellum", "mimo", "deepseek"])
def test_a_detached_trunk_learns_from_head_1_alone(family):
    model, ids = native(family).train(), tokens(2, 10)

    def gradients(heads, *, detached):
        model.zero_grad()
        model.detach_trunk = detached
        model(ids, labels=ids).ce[..., heads].sum().backward()
        return [None if each.grad is None else each.grad.clone() for each in model.trunk.parameters()]

    of_head_1 = gradients(slice(0, 1), detached=False)
    torch.testing.assert_close(gradients(slice(None), detached=True), of_head_1)
    assert all(each.grad is not None for each in model.heads["2"].eh_proj.parameters())
    together = gradients(slice(None), detached=False)  # embedding, unembedding and most of the rest differ
    assert (
        sum(torch.equal(one, other) for one, other in zip(together, of_head_1, strict=True)) <= 1 + len(together) // 4
    )


def test_recomputing_activations_changes_no_gradient():
    model, ids = native("mellum").train(), tokens(2, 10)

    def gradients():
        model.zero_grad()
        model(ids, labels=ids).ce.sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    model.activation_checkpointing_enable()
    assert model.heads["2"].mtp_block.gradient_checkpointing
    torch.testing.assert_close(gradients(), expected)


def test_recycled_is_what_the_next_module_reads():
    after, before = (native("inkling", final_norm="own", recycled=each) for each in ("after_norm", "before_norm"))
    with torch.no_grad():
        one, other = after(tokens(1, 8)).logits, before(tokens(1, 8)).logits
    assert torch.equal(one[:, :, :2], other[:, :, :2])
    assert not torch.equal(one[:, :, 2], other[:, :, 2])


def test_a_shared_final_norm_is_one_for_all_modules():
    model = native("inkling", final_norm="shared", config={"chain_hidden_post_norm": True})
    made, ids = oracle(model), tokens(1, 8)
    made.shared_post_norm.load_state_dict(model.shared_post_norm.state_dict())
    with torch.no_grad():
        passed, heads = model.forward_heads(ids)
        positions = torch.arange(8).unsqueeze(0)
        for i in range(2):
            passed = made.forward_layer(i, passed, positions, None, input_ids=F.pad(ids[:, 1 + i :], (0, 1 + i)))
            assert torch.equal(heads[:, :, 1 + i], model.change.of_hidden(passed))


def test_an_unembedding_of_its_own_makes_a_modules_logits():
    model, ids = native("mellum", unembedding="own", embedding="own"), tokens(1, 8)
    with torch.no_grad():
        _, heads = model.forward_heads(ids)
        logits = model(ids).logits
    assert torch.equal(F.linear(heads[:, :, 1], model.heads["2"].unembedding.weight), logits[:, :, 1])
    assert model.unembedding(2)[0] is not model.unembedding(1)[0]
    assert model.heads["2"].embed_tokens.weight is not model.trunk.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (None, "metadata.json: mtp is null, and native modules need it"),
        ({"n_future_tokens": 2, "kind": "sequential"}, "metadata.json: mtp.conventions is missing: how"),
        ({"n_future_tokens": 2}, "metadata.json: mtp.kind is not 'sequential'"),
        (
            declared("mellum", head_type="linear"),
            "metadata.json: mtp.head_type is 'linear', and native modules are 'deepseek'",
        ),
        (
            declared("mellum", trunk_class="LlamaForCausalLM"),
            "mtp.conventions.trunk_class is 'LlamaForCausalLM', and the configuration is of the model_type 'mellum'",
        ),
        (
            declared("mellum", trunk_class="MellumForCausalLn"),
            "metadata.json: mtp.conventions.trunk_class is 'MellumForCausalLn', which is no model class",
        ),
        (
            declared("mellum", trunk_type="melum"),
            "metadata.json: mtp.conventions.trunk_type is 'melum', which transformers does not know",
        ),
        (
            declared("mellum", block_like=[7]),
            "metadata.json: mtp.conventions.block_like names layer 7 of MellumForCausalLM, which has 2",
        ),
    ],
)
def test_a_declaration_without_conventions_is_refused_by_name(changed, message):
    config = native("mellum").config
    config.declared_mtp = changed
    with torch.device("meta"), pytest.raises(CheckpointError) as caught:
        NativeMTPForCausalLM(config)
    assert message in str(caught.value)
