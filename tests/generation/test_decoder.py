"""What a model can do is found out by asking it; what it cannot is said."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, DynamicCache

import wmtp
from generation.taught import prompts, taught
from native_models import native
from tiny_models import tiny_config, tiny_mtp
from wmtp.errors import GenerationError

OPTIONS = {"max_new_tokens": 8, "ignore_eos": True}


class TwoHeads(nn.Module):
    """A class of its own that answers with the logits of two heads."""

    def __init__(self, trunk):
        super().__init__()
        self.trunk = trunk

    def forward(self, input_ids):
        logits = self.trunk(input_ids).logits
        return torch.stack([logits, logits.roll(1, -1)], dim=2)


class Forgets(nn.Module):
    """Around a layer, what makes it read from an empty cache."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, hidden, *args, **kwargs):
        kwargs = {name: DynamicCache() if isinstance(value, DynamicCache) else value for name, value in kwargs.items()}
        return self.layer(hidden, *args, **(kwargs | {"attention_mask": None}))


def test_a_class_of_its_own_drafts_and_reads_the_whole_row_each_time():
    model, given = TwoHeads(tiny_mtp(heads=2, head_type="linear").trunk), prompts(3)
    found, plain = (wmtp.generate(model, given, drafts=drafts, **OPTIONS) for drafts in (None, 0))
    assert [row.tokens for row in found.rows] == [row.tokens for row in plain.rows]
    assert found.num_drafts == 1
    assert found.notes == ("its class has no cache that is known here: every pass reads the whole row",)


def test_a_plain_model_is_decoded_plainly():
    found = wmtp.generate(tiny_mtp(heads=2, head_type="linear").trunk, prompts(2), **OPTIONS)
    assert (found.num_drafts, found.tokens_per_forward, found.notes) == (0, 1.0, ())
    compared = wmtp.generate(tiny_mtp(heads=2, head_type="linear").trunk, prompts(2), compare=True, **OPTIONS)
    assert (compared.plain, compared.speedup) == (None, None)
    assert compared.notes == ("not compared: nothing is drafted, so this is plain decoding",)


def test_a_cache_that_gives_other_logits_is_not_used_and_that_is_said():
    model = tiny_mtp(heads=3, head_type="linear")
    given, expected = prompts(3), wmtp.generate(model, prompts(3), kv_cache=False, **OPTIONS)
    model.trunk.model.layers[1] = Forgets(model.trunk.model.layers[1])
    found = wmtp.generate(model, given, **OPTIONS)
    assert [row.tokens for row in found.rows] == [row.tokens for row in expected.rows]
    assert found.num_drafts == 0
    assert found.notes[0].startswith(
        "decoded plainly, as drafts cannot be taken back: logits with the cache differ by "
    )
    assert found.notes[1].startswith("decoded without a cache: ")


def test_modules_whose_state_cannot_be_taken_back_are_not_drafted_with():
    # Both blocks are like a layer with a recurrent state; the second module would have to run again.
    model = native("qwen3_5", block_like=[0, 0])
    found = wmtp.generate(model, prompts(3), **OPTIONS)
    (note,) = found.notes
    assert note == (
        "decoded plainly, as drafts cannot be taken back: RuntimeError: 'a layer carries a state from token to token,"
        " which cannot be taken back'"
    )
    assert [row.tokens for row in found.rows] == [
        row.tokens for row in wmtp.generate(model.trunk, prompts(3), **OPTIONS).rows
    ]


def test_more_drafts_than_heads_are_refused():
    with pytest.raises(GenerationError) as caught:
        wmtp.generate(taught("llama-linear"), prompts(1), drafts=4)
    assert str(caught.value) == "drafts is 4, and the model has heads for 3\nhint: ask for 3 or fewer"
    with pytest.raises(GenerationError, match="has no head beside its next-token head\nhint: leave drafts out"):
        wmtp.generate(taught("llama-linear").trunk, prompts(1), drafts=1)


def test_what_is_no_language_model_is_refused():
    judge = AutoModelForSequenceClassification.from_config(tiny_config("llama", num_labels=1, pad_token_id=0))
    with pytest.raises(
        GenerationError, match=r"returned torch.float32 of shape \[1, 1\].*\nhint: generate with a language"
    ):
        wmtp.generate(judge, prompts(1))
