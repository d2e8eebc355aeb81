"""What heads say of a place, by hand: a vocabulary of three, and drafts one can count."""

import math

import torch

from wmtp.evaluation.metrics import accepted_drafts, agreeing_drafts, head_figures

LN = math.log


def figures_of(logits, targets):
    return head_figures(lambda rows: rows, torch.tensor([logits]), torch.tensor([targets]))


def test_loss_rank_choice_and_confidence_are_those_computed_by_hand():
    found = figures_of([[0.0, 0.0, LN(2)], [9.0, 9.0, 9.0], [0.0, LN(3), 0.0]], [2, -100, 0])
    torch.testing.assert_close(found.ce, torch.tensor([[LN(2), 0.0, LN(5)]]))
    assert found.rank.tolist() == [[0, 0, 1]]
    assert found.choice.tolist() == [[2, -1, 1]]
    torch.testing.assert_close(found.confidence, torch.tensor([[0.5, 0.0, 0.6]]))


def test_of_equal_logits_the_lower_id_comes_first():
    found = figures_of([[1.0, 1.0, 1.0]] * 3, [0, 1, 2])
    assert found.rank.tolist() == [[0, 1, 2]]
    assert found.choice.tolist() == [[0, 0, 0]]


def test_many_places_are_as_few():
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 400, 7), torch.randint(0, 7, (3, 400))
    found = head_figures(lambda rows: rows, logits, targets)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    torch.testing.assert_close(found.ce.flatten(), expected)
    assert found.choice.equal(logits.argmax(-1))


def test_nothing_to_predict_gives_nothing():
    found = figures_of([[1.0, 2.0, 3.0]], [-100])
    assert [each.tolist() for each in found] == [[[0.0]], [[0]], [[-1]], [[0.0]]]


def test_a_draft_is_taken_when_it_and_all_before_it_are_the_models_own_choice():
    choices = torch.tensor([[[5, 6, 7], [6, 9, 8], [7, 8, -1], [8, -1, -1]]])
    agreeing = agreeing_drafts(choices)
    # At 0 both agree; at 1 only the second does, which is then not reached; at 2 the first, and there is no second.
    assert agreeing.tolist() == [[[True, True], [False, True], [True, False], [False, False]]]
    assert accepted_drafts(agreeing).tolist() == [[[True, True], [False, False], [True, False], [False, False]]]


def test_one_head_has_no_drafts():
    assert agreeing_drafts(torch.tensor([[[5], [6]]])).shape == (1, 2, 0)
