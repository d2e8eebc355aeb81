import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError

from tiny_models import tiny_mtp, tokens
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_wmtp import CriticSection, CriticWMTP
from wmtp.algorithms.rho1_wmtp import Rho1Section, Rho1WMTP
from wmtp.algorithms.weighting import weighted_sum
from wmtp.errors import TrainingError
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


@pytest.mark.parametrize(("algorithm", "name"), [(Rho1WMTP, "rho1-wmtp"), (CriticWMTP, "critic-wmtp")])
def test_what_is_not_trained_yet_says_so_in_one_sentence(algorithm, name):
    sentence = f"{name} can be planned and resolved, but this version of wmtp does not train it yet"
    assert algorithm.trainable == sentence
    with pytest.raises(TrainingError) as caught:
        algorithm().weights(torch.ones(1, 2, 1), torch.ones(1, 2, 1, dtype=torch.bool))
    assert str(caught.value) == f"{sentence}\nhint: set train.algo: baseline-mtp in the recipe"


def test_baseline_can_be_trained():
    assert BaselineMTP.trainable is None
    assert BaselineMTP.section is None


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
    weights = BaselineMTP().weights(output.ce, output.valid)
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
        (CriticSection, "reward_index", -1),
    ],
)
def test_a_value_out_of_range_is_refused(section, field, value):
    with pytest.raises(ValidationError) as caught:
        section(**{field: value})
    assert caught.value.errors()[0]["loc"] == (field,)


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
