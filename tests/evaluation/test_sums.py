"""Places added up: by hand, and as plain loops over the logits of real models say, parallel and native."""

import numpy as np
import pytest
import torch

from evaluated_windows import examples_of, looped, windows_of
from native_models import native
from tiny_models import HEAD_TYPES, tiny_mtp
from wmtp.errors import DataError
from wmtp.evaluation.calibration import calibration_error
from wmtp.evaluation.measuring import measure
from wmtp.evaluation.metrics import HeadFigures
from wmtp.evaluation.sums import CE, TARGETS, Sums
from wmtp.models.adapter import trainable
from wmtp.models.causal import causal_model

# Few tokens: random heads then agree with each other often enough.
VOCAB = 6
MODELS = {
    **{kind: lambda kind=kind: tiny_mtp(head_type=kind, vocab_size=VOCAB) for kind in HEAD_TYPES},
    "native, one module": lambda: native("mellum", {"vocab_size": VOCAB}),
    "native, two modules": lambda: native("inkling", {"vocab_size": VOCAB}),
    "native, one module twice": lambda: native("mellum", {"vocab_size": VOCAB}, recursion=2),
}  # fmt: skip


def in_fp64(sums, found, documents):
    for (number, k), (ce, first, five, targets) in found.items():
        np.testing.assert_allclose(sums.heads[number, k - 1], [ce, first, five, targets], rtol=1e-5, atol=1e-5)
    assert len(sums.heads) == documents


@pytest.mark.parametrize("name", MODELS)
def test_every_figure_is_that_of_a_plain_loop_over_places(name):
    model, examples = MODELS[name](), examples_of(VOCAB)
    sums = measure(causal_model(model), windows_of(examples), 4, name)
    found, accepted = looped(model, examples)
    in_fp64(sums, found, len(examples))
    assert sums.drafts[:, 0].tolist() == [len(counts) for counts in accepted]
    for head in range(1, sums.drafts.shape[1]):
        assert sums.drafts[:, head].tolist() == [sum(count >= head for count in counts) for counts in accepted]
    assert 0 < sums.drafts[:, 1].sum() < sums.drafts[:, 0].sum()


@pytest.mark.parametrize("name", ["transformer", "native, one module"])
def test_windows_that_share_rows_have_the_figures_of_windows_that_do_not(name):
    model, examples = causal_model(MODELS[name]()), examples_of(VOCAB)
    packed, alone = (measure(model, windows_of(examples, packed=packed), 2, name) for packed in (True, False))
    np.testing.assert_allclose(packed.heads, alone.heads, rtol=1e-5, atol=1e-5)
    assert packed.drafts.tolist() == alone.drafts.tolist()


def test_a_class_that_returns_logits_is_measured_as_our_own():
    model, examples = tiny_mtp(vocab_size=VOCAB), examples_of(VOCAB)

    class Foreign(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask=None, position_ids=None):
            return model(input_ids, attention_mask, position_ids).logits

    own = measure(causal_model(model), windows_of(examples), None, "own")
    foreign = measure(trainable(Foreign()), windows_of(examples), None, "foreign")
    np.testing.assert_allclose(foreign.heads, own.heads, rtol=1e-5, atol=1e-5)
    assert foreign.drafts.tolist() == own.drafts.tolist()


def test_bins_hold_confidence_against_what_was_right_and_drafts_against_what_was_taken():
    sums = Sums.empty(1, 2)
    first = HeadFigures(
        torch.tensor([[0.5, 0.5, 2.0]]), torch.tensor([[0, 0, 1]]), torch.tensor([[3, 4, 5]]),
        torch.tensor([[0.6, 0.6, 1.0]]),
    )  # fmt: skip
    # The draft at 0 is what the model says at 1, the one at 1 is not what it says at 2, and at 2 there is none.
    second = HeadFigures(
        torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[0, 9, 0]]), torch.tensor([[4, 9, -1]]),
        torch.tensor([[0.3, 0.9, 0.0]]),
    )  # fmt: skip
    valid = torch.tensor([[[True, True], [True, True], [True, False]]])
    sums.add([first, second], valid, torch.zeros(1, 3, dtype=torch.long))
    assert sums.heads[0].tolist() == [[3.0, 2.0, 3.0, 3.0], [2.0, 1.0, 1.0, 2.0]]
    assert sums.drafts.tolist() == [[2.0, 1.0]]
    assert sums.confidence[0, 9].tolist() == pytest.approx([2.0, 1.2, 2.0])
    assert sums.confidence[0, 14].tolist() == [1.0, 1.0, 0.0]
    # |2 - 1.2| + |0 - 1|, over three.
    assert calibration_error(sums.confidence[0]) == pytest.approx(0.6)
    assert calibration_error(sums.agreement[1]) == pytest.approx((0.7 + 0.9) / 2)


def test_nothing_measured_has_no_calibration():
    assert np.isnan(calibration_error(Sums.empty(1, 1).agreement[0]))


def test_a_loss_that_is_no_number_names_the_head_and_the_place():
    model = tiny_mtp(vocab_size=VOCAB)
    with torch.no_grad():
        model.heads["3"].layer.mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(DataError, match=r"zoo/base: the loss of head 3 is nan on .*, at token \d+ of its row"):
        measure(causal_model(model), windows_of(examples_of(VOCAB)), None, "zoo/base")


def test_losses_are_summed_of_targets_alone():
    examples = examples_of(VOCAB)
    sums = measure(causal_model(tiny_mtp(vocab_size=VOCAB)), windows_of(examples), None, "base")
    assert sums.heads[:, 0, TARGETS].tolist() == [example.num_targets for example in examples]
    assert (sums.heads[..., CE][sums.heads[..., TARGETS] == 0] == 0).all()
