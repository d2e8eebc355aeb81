"""The oracles of `wmtp selftest`: all hold on models as they are, and each fails when what it guards is broken."""

from itertools import product

import pytest
import torch
from torch import nn

from checkpoints import write_mtp_checkpoint
from subjects import make_subject
from tiny_models import VOCAB, tiny_mtp
from tiny_tokenizer import build_tokenizer, write_code_file
from wmtp.algorithms import critic_advantage, critic_values, rho1_selection, running, weighting
from wmtp.errors import DataError
from wmtp.models import losses, targets
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.targets import Rows
from wmtp.models.value_heads import WithValueHead
from wmtp.selftest import critic_oracles, gradient_oracles, model_oracles, native_oracles, oracles
from wmtp.selftest.oracles import Finding
from wmtp.selftest.run import ORACLES, run_selftest
from wmtp.training import trainer


class GRUWithLogits(nn.Module):
    """A foreign class that gives logits of two heads, and nothing else."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.trunk = nn.GRU(16, 16, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(16, VOCAB) for _ in range(2))

    def forward(self, input_ids):
        hidden, _ = self.trunk(self.embed(input_ids))
        return torch.stack([head(hidden) for head in self.heads], dim=2)


@pytest.mark.parametrize(
    ("architecture", "head_type"), [*product(["gpt2", "llama"], ["linear", "transformer"]), ("llama", "resblock")]
)
def test_every_oracle_holds_on_our_own_class(tmp_path, architecture, head_type):
    subject = make_subject(tmp_path, tiny_mtp(architecture, head_type=head_type))
    before = [parameter.detach().clone() for parameter in subject.model.parameters()]
    found = [finding for oracle in ORACLES for finding in oracle(subject)]
    assert [finding for finding in found if finding.outcome == "FAIL"] == []
    assert [finding.note for finding in found if finding.outcome == "-"] == ["torch"]
    assert all(torch.equal(*pair) for pair in zip(before, subject.model.parameters(), strict=True))


def test_a_class_without_hidden_states_is_told_what_does_not_apply_to_it(tmp_path):
    torch.manual_seed(0)
    subject = make_subject(tmp_path, GRUWithLogits())
    found = [finding for oracle in ORACLES for finding in oracle(subject)]
    assert [finding for finding in found if finding.outcome == "FAIL"] == []
    unseen = {
        finding.oracle: finding.note for finding in found if finding.outcome == "-" and "critic" in finding.compared
    }
    assert set(unseen.values()) == {"the model's class gives no hidden states"}
    assert {"value = reward", "value head apart", "accumulation"} <= set(unseen)
    notes = {finding.oracle: finding.note for finding in found if finding.outcome == "-"}
    assert "has no argument position_ids" in notes["packing"]
    assert notes["loss backends"] == "the model's class makes its logits itself"


def softmax_without_its_count(scores, valid, prior):
    shifted = torch.stack([targets.shift(scores, k, 0.0) for k in range(1, valid.shape[2] + 1)], dim=2)
    return shifted.masked_fill(~valid, -1e9).softmax(2) * valid


def absolute_excess(signals):
    return torch.where(signals.learned, (signals.token_ce - signals.scores["ref_nll"]).abs(), 0)


def rounded_down(num_learned, keep_ratio):
    return (num_learned * keep_ratio).long()


def by_mean_of_all(weights, valid, prior, groups=None):
    return weights / weights.mean()


def around_the_end(values, k, fill):
    return values.roll(-k, dims=1)


def without_documents(self, labels, horizon):
    return targets.head_targets(labels, horizon, None)


def mean_of_means(self, model, inputs, num_items_in_batch, whole=trainer.WMTPTrainer.compute_loss):
    own = self._count_valid(inputs).sum()
    return whole(self, model, inputs, num_items_in_batch=num_items_in_batch) * num_items_in_batch / own


def next_tokens_only(self, batch, whole=trainer.WMTPTrainer._count_valid):
    counts = whole(self, batch)
    return counts[:1].expand_as(counts)


def by_own_mean(weights, valid, prior, running):
    return weights / weights[valid].mean()


def sum_without_detaching(ce, weights, valid):
    return torch.where(valid, ce * weights, 0).sum()


def hidden_without_gradient(self, ids, rows, num_heads, whole=MTPForCausalLM._hidden):
    hidden, per_head = whole(self, ids, rows, num_heads)
    return hidden, [per_head[0], *(each.detach() for each in per_head[1:])]


def twice_the_reward(values, rewards, response, *, whole=critic_advantage.advantages, **factors):
    return whole(values, 2 * rewards, response, **factors)


def undiscounted_errors_of_one_place_before(values, rewards, response, *, whole=critic_advantage.advantages, **factors):
    return whole(targets.shift(values, 1, 0.0), rewards, response, **factors)


def with_gradient_of_values(self, *, gamma, lambda_):
    if self.token_values is not None:
        return critic_advantage.token_credit(self.token_values[..., 0], self.values[..., 0], self.signals.learned)
    return critic_advantage.advantages(self.values[..., 0], self.rewards, self.response, gamma=gamma, lambda_=lambda_)


def credit_for_states(token_values, values, learned):
    return torch.where(learned, values, 0)


def of_the_first_fold(values, folds):
    return values[..., 0]


def fitted_everywhere(folds, num_folds):
    return torch.ones(*folds.shape, num_folds, dtype=torch.bool)


def gate_of_a_temperature_of_its_own(advantage, temperature):
    return (advantage / 0.25).exp().clamp(0.1, 5)


def as_they_are(self, rewards):
    return rewards.float()


def a_little_more(*inputs, whole=losses._torch_rows):
    return whole(*inputs) * 1.01


MUTANTS = {
    "softmax is not times n": (
        oracles.equal_weights_make_algorithms_identical, [(weighting, "head_softmax", softmax_without_its_count)]
    ),
    "mean over padding too": (oracles.mean_weight_is_one, [(weighting, "normalised", by_mean_of_all)]),
    "share rounded down": (
        oracles.reference_that_is_the_policy_weighs_all_alike, [(rho1_selection, "num_kept", rounded_down)]
    ),
    "softmax is not times n, against itself": (
        oracles.reference_that_is_the_policy_weighs_all_alike, [(weighting, "head_softmax", softmax_without_its_count)]
    ),
    "excess loss is absolute": (
        oracles.constant_added_to_reference_changes_nothing, [(rho1_selection, "excess_loss", absolute_excess)]
    ),
    "reward counts twice": (
        critic_oracles.values_that_are_the_reward_weigh_all_alike, [(critic_values, "advantages", twice_the_reward)]
    ),
    "credit for states": (
        critic_oracles.values_that_are_the_reward_weigh_all_alike, [(critic_values, "token_credit", credit_for_states)]
    ),
    "credit for states, of tokens that change nothing": (
        critic_oracles.tokens_without_a_value_of_their_own_weigh_all_alike,
        [(critic_values, "token_credit", credit_for_states)],
    ),
    "values of the place before": (
        critic_oracles.advantages_telescope, [(critic_oracles, "advantages", undiscounted_errors_of_one_place_before)]
    ),
    "a temperature of its own": (
        critic_oracles.boundless_temperature_weighs_all_alike,
        [(critic_advantage, "exponential_gate", gate_of_a_temperature_of_its_own)],
    ),
    "rewards as they are": (
        critic_oracles.constant_added_to_rewards_changes_nothing,
        [(critic_advantage.RewardStandardiser, "__call__", as_they_are)],
    ),
    "credit by the first fold's heads": (
        critic_oracles.credit_is_by_heads_that_were_fitted_on_others,
        [(critic_values, "of_own_fold", of_the_first_fold)],
    ),
    "heads fitted on all documents": (
        critic_oracles.credit_is_by_heads_that_were_fitted_on_others,
        [(critic_values, "fitted_here", fitted_everywhere)],
    ),
    "targets wrap round": (model_oracles.padding_changes_no_loss, [(targets, "shift", around_the_end)]),
    "weights of padding count": (
        model_oracles.padding_changes_no_weight, [(weighting, "normalised", by_mean_of_all)]
    ),
    "targets in the next document": (
        model_oracles.packed_documents_are_as_unpacked_ones, [(Rows, "targets", without_documents)]
    ),
    "mean of means": (
        model_oracles.accumulation_changes_no_gradient, [(trainer.WMTPTrainer, "compute_loss", mean_of_means)]
    ),
    "running mean is the batch's own": (
        model_oracles.accumulation_changes_no_gradient, [(running, "by_running_mean", by_own_mean)]
    ),
    "only next tokens are counted": (
        gradient_oracles.gradient_of_each_loss_is_its_weight,
        [(trainer.WMTPTrainer, "_count_valid", next_tokens_only)],
    ),
    "weights are not detached": (
        gradient_oracles.no_gradient_reaches_scores, [(trainer, "weighted_sum", sum_without_detaching)]
    ),
    "heads without gradient": (
        gradient_oracles.loss_reaches_every_part, [(MTPForCausalLM, "_hidden", hidden_without_gradient)]
    ),
    "value loss trains the trunk": (
        gradient_oracles.value_head_and_trunk_are_apart,
        [(WithValueHead, "detach_trunk", property(lambda _: False, lambda *_: None))],
    ),
    "weights train the value head": (
        gradient_oracles.value_head_and_trunk_are_apart,
        [
            (critic_values.CriticValues, "advantage", with_gradient_of_values),
            (gradient_oracles, "weighted_sum", sum_without_detaching),
        ],
    ),
    "a backend is off": (
        model_oracles.backends_agree, [(losses, "_BACKENDS", {**losses._BACKENDS, "torch": a_little_more})]
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_oracle_fails_when_what_it_guards_is_broken(tmp_path, monkeypatch, mutant):
    oracle, changes = MUTANTS[mutant]
    assert all(finding.outcome != "FAIL" for finding in oracle(make_subject(tmp_path)))
    for owner, name, wrong in changes:
        monkeypatch.setattr(owner, name, wrong, raising=False)
    assert "FAIL" in [finding.outcome for finding in oracle(make_subject(tmp_path))]


def test_every_oracle_has_a_mutant():
    of_native_heads = {oracle for oracle in ORACLES if oracle.__module__ == native_oracles.__name__}
    # Those have models of their own, and their mutants in test_native_oracles.
    assert {oracle for oracle, _ in MUTANTS.values()} == set(ORACLES) - of_native_heads


def test_a_difference_that_is_not_a_number_is_a_failure():
    found = Finding("oracle", "this, and that", float("nan"), 1.0)
    assert found.outcome == "FAIL"
    assert found.to_dict()["difference"] == "nan"


def test_a_checkpoint_is_tested_on_data_of_its_own(tmp_path):
    uri = write_mtp_checkpoint(tmp_path / "model", tiny_mtp(vocab_size=112))
    found = run_selftest(str(uri), data=write_code_file(tmp_path / "code.py"))
    assert found.holds
    assert found.model == str(uri)
    assert found.data == str(tmp_path / "code.py")


def test_data_that_the_vocabulary_does_not_reach_is_refused(tmp_path):
    uri = write_mtp_checkpoint(tmp_path / "model", tiny_mtp(vocab_size=VOCAB), build_tokenizer(96))
    with pytest.raises(DataError, match="and the model knows 64 tokens"):
        run_selftest(str(uri), data=write_code_file(tmp_path / "code.py"))


def test_the_built_in_model_reads_any_text(tmp_path):
    (tmp_path / "text.txt").write_text("Grüße, 世界\n" * 3)
    assert run_selftest(data=tmp_path / "text.txt").holds
