import pytest
import torch

from tiny_models import tiny_config, tiny_mtp, tokens
from wmtp.errors import CheckpointError
from wmtp.models.mtp import MTPForCausalLM

SHARED = {"shared_unembedding": True}


def fresh(**options) -> MTPForCausalLM:
    config = tiny_config("llama")
    config.mtp_config = {"n_future_tokens": 3, "head_type": "resblock", **options}
    return MTPForCausalLM(config).eval()


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_is_the_formula_of_the_paper(bias):
    model = tiny_mtp(head_type="resblock", options={"num_blocks": 2, "block_bias": bias})
    with torch.no_grad():
        found = model(ids := tokens(2, 6)).logits[:, :, 1]
        x = model.trunk.model(ids).last_hidden_state
        for j in range(2):
            linear = model.heads["2"].blocks[j].linear
            z = x @ linear.weight.T + (linear.bias if bias else 0)
            x = x + z / (1 + torch.exp(-z))
    torch.testing.assert_close(found, x @ model.heads["2"].unembedding.weight.T, rtol=1e-4, atol=1e-4)


def test_a_new_head_with_the_shared_unembedding_is_head_1():
    model, ids = fresh(**SHARED), tokens(2, 6)
    with torch.no_grad():
        logits = model(ids).logits
    assert torch.equal(logits[:, :, 1], logits[:, :, 0])
    assert model.unembedding(3)[0] is model.unembedding(1)[0]


@pytest.mark.parametrize("options", [{}, SHARED, {"block_bias": True}])
def test_blocks_learn_although_they_begin_at_zero(options):
    model, ids = fresh(**options), tokens(2, 8)
    model.copy_next_token_head()
    model(ids, labels=ids).ce[:, :, 1].sum().backward()
    found = [parameter.grad for parameter in model.heads["2"].parameters()]
    assert all(gradient is not None and bool(gradient.any()) for gradient in found)


def test_the_cross_entropy_of_a_shared_unembedding_is_that_of_the_logits():
    model, ids = tiny_mtp(head_type="resblock", options=SHARED), tokens(2, 10)
    with torch.no_grad():
        ce, logits = model(ids, labels=ids).ce, model(ids).logits
    expected = -logits[:, :-2, 1].log_softmax(-1).gather(2, ids[:, 2:, None])[..., 0]
    torch.testing.assert_close(ce[:, :-2, 1], expected)


def test_an_option_that_the_heads_have_no_use_for_is_refused():
    trunk = fresh().trunk
    with pytest.raises(CheckpointError, match="shared_unembedding is true, and head_type 'transformer' has no"):
        MTPForCausalLM.around(trunk, heads=2, head_type="transformer", **SHARED)
