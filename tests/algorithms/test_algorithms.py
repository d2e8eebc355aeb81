import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from algorithms.cases import random_case
from tiny_models import tiny_mtp, tokens
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP
from wmtp.algorithms.signals import Signals
from wmtp.algorithms.weighting import head_prior, weighted_sum
from wmtp.errors import CheckpointError
from wmtp.registry import algorithms

NAMES = ("baseline-mtp", "critic-wmtp", "rho1-wmtp")


@pytest.mark.parametrize("name", NAMES)
def test_an_algorithm_has_the_name_that_it_is_registered_under(name):
    assert algorithms.get(name).name == name


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("baseline-mtp", [("base", "base_model")]),
        ("rho1-wmtp", [("base", "base_model"), ("ref", "reference_model")]),
        ("critic-wmtp", [("base", "base_model"), ("rm", "reward_model")]),
    ],
)
def test_an_algorithm_names_the_models_that_it_needs(name, roles):
    assert [(role.name, role.wmtp_type) for role in algorithms.get(name).roles] == roles


def test_the_baseline_objective_is_the_mean_cross_entropy_over_heads_and_positions():
    model, ids = tiny_mtp(), tokens(2, 8)
    with torch.no_grad():
        output, log_probs = model(ids, labels=ids), model(ids).logits.log_softmax(-1)
    total, count = 0.0, 0
    for row in range(2):
        for t in range(8):
            for k in range(1, 4):
                if t + k < 8:
                    total -= log_probs[row, t, k - 1, ids[row, t + k]].item()
                    count += 1
    prior, ones = head_prior("uniform", 3), torch.ones(2, 8, dtype=torch.long)
    weights = BaselineMTP().weights(Signals(output.ce, output.valid, prior, ones, {}))
    assert (weights == 1).all()
    assert not weights.requires_grad
    assert output.valid.sum() == count
    assert weighted_sum(output.ce, weights, output.valid).item() / count == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        (Rho1Section, "keep_ratio", 0.0),
        (Rho1Section, "keep_ratio", 1.1),
        (Rho1Section, "selection_mode", "skip"),
        (Rho1Section, "temperature", 0.0),
        (CriticSection, "gamma", 1.5),
        (CriticSection, "temperature", -1.0),
        (CriticSection, "credit", "tokens"),
        (CriticSection, "folds", 0),
        (CriticSection, "reward_index", -1),
        (CriticSection, "value_learning_rate", 0.0),
    ],
)
def test_a_value_out_of_range_is_refused(section, field, value):
    with pytest.raises(ValidationError) as caught:
        section(**{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


def test_every_algorithm_gives_the_same_weights_where_tokens_are_equal():
    signals = replace(
        random_case(4).signals, scores={"ref_nll": random_case(4).signals.token_ce, "reward": torch.ones(3, 14)}
    )
    signals = replace(signals, values=torch.ones(3, 14, 2), token_values=torch.ones(3, 14, 2))
    baseline = BaselineMTP().weights(signals)
    for algorithm in (Rho1WMTP(Rho1Section(selection_mode="weighted")), CriticWMTP()):
        torch.testing.assert_close(algorithm.weights(signals)[signals.valid], baseline[signals.valid])


def test_reading_a_section_imports_no_torch():
    code = """
import sys
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP
CriticWMTP(CriticSection(reward_column='passed')), Rho1WMTP(Rho1Section(scope='ema'))
print('torch' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("algorithm", [Rho1WMTP, CriticWMTP])
def test_a_state_is_restored_whole_or_not_at_all(algorithm):
    state = algorithm().state()
    name = min(state)
    for spoiled in ({}, {**state, "more": torch.ones(1)}, {**state, name: torch.ones(state[name].numel() + 1)}):
        with pytest.raises(CheckpointError, match=f"the state of {algorithm.name} holds"):
            algorithm().restore(spoiled)


@pytest.mark.parametrize("section", [Rho1Section, CriticSection])
def test_every_field_of_a_section_is_described(section):
    assert all(field.description for field in section.model_fields.values())


def test_naming_algorithms_imports_no_torch():
    code = f"""
import sys
from wmtp.registry import algorithms
for name in {NAMES}:
    algorithms.get(name)
print('torch' in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
