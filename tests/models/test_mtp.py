import pickle

import pytest
import torch
import torch.nn.functional as F

from tiny_models import ARCHITECTURES, HEAD_TYPES, tiny_config, tiny_mtp, tokens
from wmtp.errors import CheckpointError
from wmtp.models.mtp import MTPForCausalLM

everywhere = pytest.mark.parametrize("architecture", ARCHITECTURES)
_SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "vocab_size": 64, "num_attention_heads": 4}
each_head_type = pytest.mark.parametrize("head_type", HEAD_TYPES)


@everywhere
@each_head_type
def test_head_1_is_bit_equal_to_the_trunk(architecture, head_type):
    model, ids = tiny_mtp(architecture, head_type=head_type), tokens(2, 12)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.no_grad():
        assert torch.equal(model(ids).logits[:, :, 0], model.trunk(ids).logits)
        masked = model(ids, attention_mask=mask).logits[:, :, 0]
        assert torch.equal(masked, model.trunk(ids, attention_mask=mask).logits)


@everywhere
@each_head_type
def test_every_head_that_copies_the_next_token_head_equals_it(architecture, head_type):
    model, ids = tiny_mtp(architecture, head_type=head_type), tokens(2, 12)
    with torch.no_grad():
        before = model(ids).logits
        model.copy_next_token_head()
        after = model(ids).logits
    assert not torch.equal(before[:, :, 1], before[:, :, 0])
    for k in range(3):
        assert torch.equal(after[:, :, k], before[:, :, 0])


@each_head_type
def test_cross_entropy_is_that_of_the_logits(head_type):
    model, ids = tiny_mtp("llama", head_type=head_type), tokens(2, 10)
    with torch.no_grad():
        output, logits = model(ids, labels=ids), model(ids).logits
    for k in range(1, 4):
        expected = F.cross_entropy(logits[:, :-k, k - 1].transpose(1, 2), ids[:, k:], reduction="none")
        torch.testing.assert_close(output.ce[:, :-k, k - 1], expected)
        assert output.valid[:, :-k, k - 1].all()
        assert not output.valid[:, -k:, k - 1].any()
    assert output.ce.dtype == torch.float32
    assert output.logits is None


@everywhere
@each_head_type
def test_a_packed_row_has_the_losses_of_its_documents_alone(architecture, head_type):
    model, row = tiny_mtp(architecture, head_type=head_type), tokens(1, 20)
    lengths = [7, 9, 4]
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).unsqueeze(0)
    with torch.no_grad():
        packed = model(row, labels=row, document_ids=documents)
        alone = [model(part, labels=part) for part in row.split(lengths, dim=1)]
    torch.testing.assert_close(packed.ce, torch.cat([each.ce for each in alone], dim=1), rtol=0, atol=1e-5)
    assert torch.equal(packed.valid, torch.cat([each.valid for each in alone], dim=1))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_loss(side):
    model, ids = tiny_mtp("llama"), tokens(1, 9)
    pad = torch.full((1, 5), 0)
    parts = [pad, ids] if side == "left" else [ids, pad]
    mask = torch.cat([torch.ones_like(p) if p is ids else torch.zeros_like(p) for p in parts], dim=1)
    padded = torch.cat(parts, dim=1)
    with torch.no_grad():
        expected = model(ids, labels=ids)
        found = model(padded, attention_mask=mask, labels=padded)
    kept = mask[0].bool()
    torch.testing.assert_close(found.ce[:, kept], expected.ce, rtol=1e-5, atol=1e-5)
    assert found.valid.sum() == expected.valid.sum()


@everywhere
@each_head_type
def test_recomputing_activations_changes_no_gradient(architecture, head_type):
    dropout = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0} if architecture == "gpt2" else {}
    model, ids = tiny_mtp(architecture, head_type=head_type, **dropout).train(), tokens(2, 10)

    def gradients():
        model.zero_grad()
        model(ids, labels=ids).ce.sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected = gradients()
    model.activation_checkpointing_enable()
    torch.testing.assert_close(gradients(), expected)
    if head_type == "transformer":
        assert model.heads["2"].layer.gradient_checkpointing
    model.activation_checkpointing_disable()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


@each_head_type
def test_one_call_leaves_nothing_behind_for_the_next(head_type):
    model, ids = tiny_mtp(head_type=head_type), tokens(2, 10)
    with torch.no_grad():
        first = model(ids).logits
        model(tokens(3, 5, seed=1))
        assert torch.equal(model(ids).logits, first)
        with pytest.raises(IndexError):
            model(torch.full((1, 3), 10_000))
        assert torch.equal(model(ids).logits, first)
    assert all(not module._forward_pre_hooks for module in model.modules())
    again = pickle.loads(pickle.dumps(model))
    with torch.no_grad():
        assert torch.equal(again(ids).logits, first)


def test_heads_offered_to_others_give_the_logits():
    model, ids = tiny_mtp("gpt2"), tokens(2, 6)
    with torch.no_grad():
        hidden, head_hidden = model.forward_heads(ids)
        logits = model(ids).logits
    assert head_hidden.shape == (2, 6, 3, 32)
    assert torch.equal(hidden, head_hidden[:, :, 0])
    for k in range(1, 4):
        assert torch.equal(F.linear(head_hidden[:, :, k - 1], *model.unembedding(k)), logits[:, :, k - 1])


def test_one_head_is_a_plain_next_token_model():
    model, ids = tiny_mtp(heads=1), tokens(1, 6)
    with torch.no_grad():
        assert model(ids).logits.shape == (1, 6, 1, 64)
    assert model.num_heads == 1
    assert all(name.startswith("trunk.") for name in model.state_dict())


def test_a_tied_trunk_stays_tied_and_linear_heads_do_not_join_it():
    model = tiny_mtp("llama", head_type="linear", tie_word_embeddings=True)
    assert model.unembedding(1)[0] is model.trunk.get_input_embeddings().weight
    assert model.unembedding(2)[0] is not model.unembedding(1)[0]


def test_heads_follow_the_attention_implementation_of_the_trunk():
    model = tiny_mtp("llama")
    model.trunk.set_attn_implementation("eager")
    assert model.heads["2"].layer.self_attn.config._attn_implementation == "eager"


@each_head_type
def test_building_on_the_meta_device_allocates_nothing(head_type):
    config = tiny_config("llama")
    config.mtp_config = {"n_future_tokens": 3, "head_type": head_type}
    with torch.device("meta"):
        model = MTPForCausalLM(config)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_evaluation_asks_for_top1_and_training_does_not():
    model, ids = tiny_mtp(), tokens(2, 8)
    with torch.no_grad():
        output, logits = model(ids, labels=ids, with_top1=True), model(ids).logits
    assert model(ids, labels=ids).top1 is None
    assert torch.equal(output.top1[:, :-2, 1], logits[:, :-2, 1].argmax(-1) == ids[:, 2:])


@each_head_type
def test_heads_beyond_the_horizon_are_not_called_when_there_are_labels(head_type):
    model, ids = tiny_mtp(heads=4, head_type=head_type), tokens(2, 8)
    with torch.no_grad():
        every = model(ids, labels=ids, with_top1=True)
    model.leave_out_heads(2)
    called = set()
    for k, head in model.heads.items():
        for module in head.modules():
            module.register_forward_hook(lambda *_, k=k: called.add(k))
    output = model(ids, labels=ids, with_top1=True)
    output.ce.sum().backward()
    assert called == {"2"}
    for found, expected in ((output.ce, every.ce), (output.valid, every.valid), (output.top1, every.top1)):
        assert torch.equal(found, expected[..., :2])
    assert {k for k, head in model.heads.items() if any(p.grad is not None for p in head.parameters())} == {"2"}
    with torch.no_grad():
        assert model(ids).logits.shape[2] == 4


def test_heads_that_are_declared_to_be_sequential_are_not_those_of_mtp_config():
    config = tiny_config("llama")
    config.mtp_config = {"n_future_tokens": 3, "head_type": "linear"}
    config.declared_mtp = {"kind": "sequential", "n_future_tokens": 3}
    with pytest.raises(CheckpointError, match=r"^metadata.json: mtp.kind is 'sequential', and the heads of mtp_config"):
        MTPForCausalLM(config)
    config.declared_mtp = {"kind": "parallel_heads", "n_future_tokens": 3}
    assert MTPForCausalLM(config).num_heads == 3


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "mtp_config is null, expected an object"),
        ({"n_future_tokens": 0, "head_type": "linear"}, "n_future_tokens is 0"),
        ({"n_future_tokens": True, "head_type": "linear"}, "n_future_tokens is true"),
        ({"n_future_tokens": 2, "head_type": "lineer"}, "did you mean 'linear'"),
        ({"n_future_tokens": 2, "head_type": "linear", "x": 1}, "x is not a known field"),
        ({"n_future_tokens": 2, "head_type": "resblock", "num_blocks": 0}, "num_blocks is 0"),
        (
            {"n_future_tokens": 2, "head_type": "linear", "num_blocks": 1},
            "num_blocks is 1, and head_type 'linear' has no",
        ),
    ],
)
def test_a_malformed_mtp_config_is_named(found, message):
    config = tiny_config("llama")
    config.mtp_config = found
    with pytest.raises(CheckpointError, match="mtp_config") as caught:
        MTPForCausalLM(config)
    assert message in str(caught.value)
