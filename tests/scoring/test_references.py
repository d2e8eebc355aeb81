"""A reference beside the model to train: mean losses, on what they are measured, and when anew."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from scoring_cases import DOCUMENTS, LOSS, REWARD, models_of, rows_of, write_base, write_reference
from wmtp.comparison.references import DIRECTORY
from wmtp.data.documents import Document
from wmtp.scoring import references
from wmtp.scoring.references import compare_references
from wmtp.settings.data import Data


@pytest.fixture
def zoo(tmp_path):
    write_base(tmp_path / "base")
    write_reference(tmp_path / "ref")
    (tmp_path / "data.txt").write_text("data")
    return tmp_path


def compared(zoo, rows, held_out=None, scores=(LOSS, REWARD)):
    data = Data.model_validate({"train": {"files": [str(zoo / "data.txt")]}})
    return list(compare_references(rows, held_out, scores, models_of(zoo), data))


@torch.no_grad()
def plain_loss(directory, rows):
    """The mean over tokens to learn, by transformers alone."""
    model, losses = AutoModelForCausalLM.from_pretrained(directory), []
    for example in rows.examples:
        logits = model(example.input_ids.long()[None]).logits[0, :-1]
        found = torch.nn.functional.cross_entropy(logits, example.labels[1:], reduction="none", ignore_index=-100)
        losses.append(found[example.labels[1:] != -100])
    return float(torch.cat(losses).mean())


def test_the_mean_is_over_the_tokens_to_learn(zoo):
    rows = rows_of()
    (losses,) = compared(zoo, rows)
    assert losses.reference_loss == pytest.approx(plain_loss(zoo / "ref", rows), rel=1e-5)
    assert (losses.data, losses.tokens) == ("data.train", rows.num_targets)
    assert losses.base_loss > losses.reference_loss
    assert losses.is_better
    assert len(list(losses.lines())) == 1


def test_validation_data_is_measured_on_where_there_is_some(zoo):
    held_out = rows_of(DOCUMENTS[-1:])
    (losses,) = compared(zoo, rows_of(), held_out)
    assert (losses.data, losses.documents, losses.tokens) == ("data.validation", 1, held_out.num_targets)
    assert losses.reference_loss == pytest.approx(plain_loss(zoo / "ref", held_out), rel=1e-5)


def test_a_model_is_as_good_as_itself_and_no_better(zoo):
    write_reference(zoo / "base")
    (losses,) = compared(zoo, rows_of())
    assert losses.reference_loss == losses.base_loss
    assert "warning" in list(losses.lines())[1]


def test_of_much_data_a_bounded_part_is_measured(zoo, monkeypatch):
    monkeypatch.setattr(references, "_SAMPLE_TOKENS", 100)
    rows = rows_of([Document(f"number {index}") for index in range(64)])
    (losses,) = compared(zoo, rows)
    assert 60 <= losses.tokens <= 100


def test_losses_are_kept_until_weights_or_data_change(zoo):
    (first,) = compared(zoo, rows_of())
    assert compared(zoo, rows_of(DOCUMENTS[:1])) == [first]  # read, and not measured
    (zoo / "data.txt").write_text("other data")
    (second,) = compared(zoo, rows_of(DOCUMENTS[:1]))
    assert second.tokens != first.tokens
    write_reference(zoo / "ref", initializer_range=0.3)
    (third,) = compared(zoo, rows_of(DOCUMENTS[:1]))
    assert third.reference_loss != second.reference_loss
    assert len(list((zoo / "scores" / DIRECTORY).iterdir())) == 3


def test_damaged_ones_are_measured_again(zoo):
    (first,) = compared(zoo, rows_of())
    (path,) = (zoo / "scores" / DIRECTORY).iterdir()
    path.write_text("{")
    assert compared(zoo, rows_of()) == [first]
