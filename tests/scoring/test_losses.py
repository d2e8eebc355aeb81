"""Losses by a reference model: what they are, and which references are refused."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, BertConfig, Gemma2Config

from checkpoints import write_mtp_checkpoint
from scoring_cases import DOCUMENTS, LOSS, models_of, rows_of, write_reference
from tiny_models import tiny_mtp
from tiny_tokenizer import build_tokenizer
from wmtp.algorithms.base import Score
from wmtp.errors import DataError, IncompatibleModelError, TrainingError
from wmtp.models.causal import causal_model
from wmtp.models.foreign import LogitsModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.scoring import work
from wmtp.scoring.nll import token_losses
from wmtp.scoring.online import OnlineLosses
from wmtp.scoring.scores import online_scorers, score_rows

ONLINE = Score("ref_nll", "nll", role="ref", online=True)


def scored(zoo, rows, **settings):
    return score_rows(rows, [LOSS], models_of(zoo, **settings), name="data.train")


def plain_losses(model, ids):
    """The losses of one document alone, by transformers and the definition."""
    with torch.no_grad():
        probabilities = model(ids.long().unsqueeze(0)).logits[0].double().log_softmax(-1)
    losses = -probabilities[:-1].gather(1, ids[1:, None].long()).squeeze(1)
    return torch.cat([torch.zeros(1), losses.float()])


@pytest.mark.parametrize("packing", [True, False])
def test_each_token_has_the_loss_that_transformers_gives_it_in_its_document_alone(zoo, packing):
    model = AutoModelForCausalLM.from_pretrained(zoo / "ref")
    rows = scored(zoo, rows_of(packing=packing))
    assert sum(1 for _ in rows.examples) >= len(DOCUMENTS)
    for example in rows.examples:
        torch.testing.assert_close(
            example.scores["ref_nll"], plain_losses(model, example.input_ids), rtol=1e-4, atol=1e-5
        )


def test_prompts_are_scored_too(zoo):
    *_, with_prompt = scored(zoo, rows_of()).examples
    assert with_prompt.num_prompt_tokens > 5
    assert (with_prompt.scores["ref_nll"][1 : with_prompt.num_prompt_tokens] > 0).all()


def test_losses_depend_on_no_other_document_of_the_batch(zoo, monkeypatch):
    together = scored(zoo, rows_of())
    shutil.rmtree(zoo / "scores")
    monkeypatch.setattr(work, "BATCH_TOKENS", 1)
    alone = scored(zoo, rows_of())
    for one, other in zip(together.examples, alone.examples, strict=True):
        torch.testing.assert_close(one.scores["ref_nll"], other.scores["ref_nll"], rtol=1e-4, atol=1e-5)


def test_a_reference_with_several_heads_is_scored_by_its_first(zoo):
    shutil.rmtree(zoo / "ref")
    model = tiny_mtp("gpt2", heads=3, vocab_size=98)
    write_mtp_checkpoint(zoo / "ref", model)
    (first, *_) = scored(zoo, rows_of()).examples
    with torch.no_grad():
        logits = model(first.input_ids.long().unsqueeze(0)).logits[0, :, 0]
    expected = torch.nn.functional.cross_entropy(logits[:-1], first.input_ids[1:].long(), reduction="none")
    torch.testing.assert_close(first.scores["ref_nll"][1:], expected, rtol=1e-4, atol=1e-5)


def test_a_plain_causal_model_makes_no_logits_of_a_whole_batch(zoo, monkeypatch):
    called = []
    original = MTPForCausalLM.forward
    monkeypatch.setattr(MTPForCausalLM, "forward", lambda *a, **k: called.append(k) or original(*a, **k))
    scored(zoo, rows_of())
    assert any("labels" in keywords for keywords in called)


def small(config_class, **changes):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        config_class(**sizes, vocab_size=98, initializer_range=0.5, **changes)
    ).eval()


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        # What is done to logits by numbers is done in the chunks of the loss; BERT's has a layer of its own in between.
        (lambda: small(Gemma2Config, head_dim=8, num_key_value_heads=2, final_logit_softcapping=0.5), MTPForCausalLM),
        (lambda: small(BertConfig, is_decoder=True), LogitsModel),
    ],
    ids=["gemma2", "bert"],
)
def test_a_model_that_changes_its_logits_has_the_losses_of_changed_ones(build, kind):
    plain, ids = build(), torch.arange(2, 30, dtype=torch.int32)
    model = causal_model(plain)
    assert isinstance(model, kind)
    (losses,) = token_losses(model, [ids], torch.device("cpu"))
    torch.testing.assert_close(losses, plain_losses(plain, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("packing", [True, False])
def test_losses_while_training_equal_those_from_before_it(zoo, packing):
    rows = scored(zoo, rows_of(packing=packing))
    batch = rows.collate(rows.rows)
    before = batch.pop("ref_nll")
    scorer = online_scorers([ONLINE], models_of(zoo), "cpu")["ref_nll"]
    torch.testing.assert_close(scorer(batch), before, rtol=0, atol=1e-5)


def test_nothing_is_computed_before_training_for_a_score_that_is_online(zoo):
    rows = score_rows(rows_of(), [ONLINE], models_of(zoo), name="data.train")
    assert next(rows.examples).scores == {}
    assert not (zoo / "scores").exists()


class Mixing(nn.Module):
    """Takes position ids and does not use them, as a recurrent model would."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.body = nn.Embedding(98, 16), nn.GRU(16, 98, batch_first=True)

    def forward(self, input_ids, position_ids=None):  # noqa: ARG002
        return self.body(self.embedding(input_ids))[0]


def test_a_model_that_mixes_packed_documents_is_refused_while_training():
    scorer = OnlineLosses(causal_model(Mixing()), "mixing")
    rows = rows_of()
    with pytest.raises(TrainingError, match="Mixing: documents packed into one row see each other"):
        scorer(rows.collate(rows.rows))
    unpacked = rows_of(packing=False)
    assert (scorer(unpacked.collate(unpacked.rows)) > 0).any()


def test_a_reference_with_another_tokenizer_of_equal_size_is_refused_by_fingerprint(zoo):
    text = (zoo / "ref" / "tokenizer.json").read_text()
    swapped = text.replace('"a":', '"#":', 1).replace('"b":', '"a":', 1).replace('"#":', '"b":', 1)
    assert swapped != text
    (zoo / "ref" / "tokenizer.json").write_text(swapped)
    with pytest.raises(IncompatibleModelError, match="token by token, they cannot be compared") as caught:
        scored(zoo, rows_of())
    assert caught.value.problem.startswith(f"{zoo / 'ref'}: its tokenizer is ")
    assert "an equal size of vocabulary is not enough" in caught.value.hint


@pytest.mark.parametrize(("role", "called"), [("ref", "scoring"), ("base", "base")])
def test_a_model_without_a_tokenizer_file_proves_nothing(zoo, role, called):
    models = models_of(zoo)
    (zoo / role / "tokenizer.json").unlink()
    with pytest.raises(IncompatibleModelError, match=f"{role}: the {called} model has no tokenizer.json"):
        score_rows(rows_of(), [LOSS], models, name="data.train")


def test_a_reference_with_too_few_positions_is_refused_before_anything_is_computed(zoo):
    shutil.rmtree(zoo / "ref")
    write_reference(zoo / "ref", max_position_embeddings=16)
    with pytest.raises(
        DataError, match=r"ref: it knows 16 positions, and the longest document of data\.train has 64 tokens"
    ):
        scored(zoo, rows_of())
    with pytest.raises(DataError, match="knows 16 positions"):
        score_rows(rows_of(), [ONLINE], models_of(zoo), name="data.train")
    assert not (zoo / "scores").exists()


def test_a_reference_with_a_smaller_vocabulary_is_refused(zoo):
    shutil.rmtree(zoo / "ref")
    write_reference(zoo / "ref", vocab_size=50)
    with pytest.raises(DataError, match=r"ref: its tokenizer makes token 9\d, and the model knows 50 tokens"):
        scored(zoo, rows_of())


def test_a_loss_that_is_not_finite_names_model_and_place_and_is_not_kept(zoo):
    path = zoo / "ref" / "model.safetensors"
    tensors = load_file(path)
    only_here = build_tokenizer()("class")["input_ids"][0]
    tensors["model.embed_tokens.weight"][only_here] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"ref: the nll .* document \d+ of data.train, token \d+, is nan") as caught:
        scored(zoo, rows_of())
    assert "wmtp validate --deep" in caught.value.hint
    assert not list((zoo / "scores").glob("nll-*/scores.safetensors"))


def test_a_loss_while_training_that_is_not_finite_is_an_error(zoo):
    scorer = online_scorers([ONLINE], models_of(zoo), "cpu")["ref_nll"]
    with torch.no_grad():
        next(scorer._model.parameters()).fill_(float("nan"))
    rows = rows_of(packing=False)
    with pytest.raises(DataError, match="a loss that it gives to a token of a batch is not finite"):
        scorer(rows.collate(rows.rows))


def test_the_dtype_of_the_configuration_is_used(zoo):
    fp32, bf16 = scored(zoo, rows_of()), scored(zoo, rows_of(), devices={"device": "cpu", "dtype": "bfloat16"})
    one, other = (next(rows.examples).scores["ref_nll"] for rows in (fp32, bf16))
    assert other.dtype == torch.float32
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.05, atol=0.2)
