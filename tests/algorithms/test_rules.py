"""What an algorithm says of its weights is what it does, with the settings that it has."""

import math

import pytest
import torch

from algorithms.cases import random_case
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_advantage import exponential_gate
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP


def test_a_baseline_emphasises_nothing():
    assert BaselineMTP().rule() == "Every token weighs 1, whichever head predicts it: none is emphasised."


def test_rho1_names_its_share_and_the_weight_of_what_is_kept():
    said = Rho1WMTP(Rho1Section(keep_ratio=0.4, scope="sequence")).rule()
    assert "the share keep_ratio = 0.4 of the tokens of a text with the highest excess losses" in said
    assert "about 1 / 0.4 = 2.5, so that the mean is 1, and all others 0" in said
    assert "temperature" not in said
    assert "In the first" not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"selection_mode": "weighted", "temperature": 0.7},
            "sigmoid((excess loss - cut-off) / temperature), temperature",
        ),
        ({"selection_mode": "weighted", "temperature": 0.7}, "temperature = 0.7 nats"),
        ({"selection_mode": "horizon", "temperature": 2}, "by a softmax of excess loss / temperature (2 nats)"),
        ({"scope": "ema"}, "of the past steps (a running cut-off)"),
        ({"warmup_steps": 30}, "In the first 30 optimizer steps every token weighs 1."),
    ],
)
def test_rho1_says_what_its_mode_scope_and_warm_up_do(settings, said):
    assert said in Rho1WMTP(Rho1Section(**settings)).rule()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "A token weighs exp(A / 0.25), at least 0.1 and at most 5, divided by the mean of the micro-batch."),
        ({"temperature": 3, "scope": "ema"}, "exp(A / 3), at least 0.1 and at most 5, divided by the mean of the past"),
        ({}, "A = Q - V"),
        ({"stage1_steps": 7}, "trained alone for 7 steps before the first (stage 1), on other parts of the data"),
        (
            {"credit": "return"},
            "A = R - V: the reward of the whole text (R), less that to be expected before the token (V)",
        ),
        ({"credit": "return", "lambda_advantage": 0.9}, "by gamma = 1 and lambda = 0.9"),
        ({"normalize": "horizon"}, "by a softmax of A / temperature (0.25)"),
        ({"reward_column": "passes"}, "The reward stands in the data as passes;"),
    ],
)
def test_critic_says_what_its_credit_temperature_and_rewards_are(settings, said):
    assert said in CriticWMTP(CriticSection(**settings)).rule()


def test_the_limits_that_critic_names_are_those_of_its_gate():
    gates = exponential_gate(torch.tensor([-9.0, 0.1, 9.0]), 0.25).tolist()
    assert gates == pytest.approx([0.1, math.exp(0.4), 5])


@pytest.mark.parametrize("settings", [{}, {"scope": "sequence"}, {"selection_mode": "weighted"}])
def test_what_rho1_explains_as_cut_off_parts_what_it_keeps_from_the_rest(settings):
    algorithm, signals = Rho1WMTP(Rho1Section(**settings)), random_case(0, rows=6, length=20).signals
    said = algorithm.explain(signals)
    score, cut_off = said["excess loss of head 1 (nats)"], said["cut-off (nats)"]
    heavy = algorithm.weights(signals)[..., 0][:, :-1]
    learned = signals.learned[:, 1:]
    above = (score > cut_off)[:, 1:]
    low, high = (heavy[learned & side] for side in (~above, above))
    assert len(low) > 3
    assert len(high) > 3
    assert low.max() < high.min()
