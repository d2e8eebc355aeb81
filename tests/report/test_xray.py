"""What the X-ray shows is what the algorithm weighs: held to plain computations on the same tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import wmtp
from saved_runs import train_saved
from wmtp.errors import TrainingError
from wmtp.report import XRayOptions
from wmtp.report.saved_run import SavedRun
from wmtp.report.xray import xray

ALL = XRayOptions(documents=100)


@pytest.fixture(scope="module")
def rho1(rho1_run):
    return xray(SavedRun.read(rho1_run), ALL)


@pytest.fixture(scope="module")
def critic(critic_run):
    return xray(SavedRun.read(critic_run), ALL)


def flat(documents, step, head=0):
    return [w for each in documents for w in each["steps"][step]["weights"][head] if w is not None]


def losses(model, ids, head) -> Tensor:
    """-log P_head(token) at each place that the head predicts, by a softmax over its logits."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits
    logits = logits[0, :, head] if logits.dim() == 4 else logits[0]
    after = torch.tensor(ids[head + 1 :])
    return -logits[: len(after)].float().log_softmax(-1).gather(1, after[:, None]).squeeze(1)


@pytest.mark.parametrize(("number", "name"), [(0, "step-1"), (1, "final")])
@pytest.mark.parametrize("head", [0, 1])
def test_policy_losses_are_those_of_the_model_of_that_step(rho1_run, rho1, number, name, head):
    loaded = wmtp.load(rho1_run / name)
    for document in rho1["documents"]:
        ids = loaded.tokenizer("".join(document["text"]), add_special_tokens=False)["input_ids"]
        shown = document["steps"][number]["ce"][head]
        assert shown[: head + 1] == [None] * (head + 1)
        assert shown[head + 1 :] == pytest.approx(losses(loaded.model, ids, head).tolist(), rel=6e-3)


def test_reference_losses_are_those_of_the_reference_model(rho1_run, rho1):
    reference = wmtp.load(rho1_run.parents[1] / "ref")
    document = rho1["documents"][0]
    assert document["scores"]["ref_nll"][0] is None  # nothing stands before it
    ids = reference.tokenizer("".join(document["text"]), add_special_tokens=False)["input_ids"]
    assert document["scores"]["ref_nll"][1:] == pytest.approx(losses(reference.model, ids, 0).tolist(), rel=6e-3)
    assert rho1["labels"]["ref_nll"] == "loss of the reference model (nats)"


@pytest.mark.parametrize("step", [0, 1])
def test_weights_of_rho1_are_those_of_the_half_with_the_highest_excess_loss(rho1, step):
    excess, kept = [], []
    for document in rho1["documents"]:
        at, reference = document["steps"][step], document["scores"]["ref_nll"]
        for place, loss in enumerate(at["ce"][0]):
            if loss is not None:
                excess.append(loss - reference[place])
                kept.append(at["weights"][0][place])
                assert at["figures"]["excess loss of head 1 (nats)"][place] == pytest.approx(excess[-1], abs=0.11)
                assert at["weights"][1][place] in (kept[-1], None)  # a token's gate serves every head
    threshold = sorted(excess, reverse=True)[len(excess) // 2]
    (shown,) = {
        cut for each in rho1["documents"] for cut in each["steps"][step]["figures"]["cut-off (nats)"][1:] if cut
    }
    assert shown == pytest.approx(threshold, abs=0.11)
    clear = [(e, w) for e, w in zip(excess, kept, strict=True) if abs(e - threshold) > 0.11]
    assert len(clear) > 100
    assert all((w > 0) == (e > threshold) for e, w in clear)


@pytest.mark.parametrize("step", [0, 1])
def test_weights_of_critic_are_the_exponential_of_q_less_v_with_mean_one(critic, step):
    gates, shown = [], []
    for document in critic["documents"]:
        figures, weights = document["steps"][step]["figures"], document["steps"][step]["weights"]
        after, before = (
            figures[name] for name in ("Q, value of the token (deviations)", "V, value before the token (deviations)")
        )
        for place, advantage in enumerate(figures["advantage A (deviations)"]):
            for head in weights:
                if head[place] is not None:
                    assert advantage == pytest.approx(after[place] - before[place], abs=0.02)
                    gates.append(min(5.0, max(0.1, math.exp((after[place] - before[place]) / 0.25))))
                    shown.append(head[place])
    mean = sum(gates) / len(gates)
    assert shown == pytest.approx([gate / mean for gate in gates], rel=0.1)
    assert len({round(each, 2) for each in shown}) > 20


def test_every_held_out_text_is_there_once_and_nothing_of_it_is_kept_on_disk(critic_run, critic):
    lines = (critic_run.parents[1] / "data.jsonl").read_text()
    assert len({each["where"] for each in critic["documents"]}) == len(critic["documents"]) == critic["rows"]
    for document in critic["documents"]:
        assert "".join(document["text"]).removesuffix("</s>") in lines
    assert critic["source"].startswith("held-out documents")
    assert sorted(path.name for path in critic_run.parent.iterdir()) == ["run"]


def test_statistics_and_ranks_are_of_all_texts(rho1):
    for step in (0, 1):
        weights = flat(rho1["documents"], step)
        head = rho1["statistics"][step][0]
        assert head["share_kept"] == pytest.approx(sum(w > 0 for w in weights) / len(weights), abs=2e-3)
        assert head["max"] == max(weights)
    most, least = (rho1["ranked"][name] for name in ("most", "least"))
    assert [row[2] for row in most] == sorted((row[2] for row in most), reverse=True)
    assert most[0][2] > least[0][2]
    assert sum(count for _, count, _ in rho1["kinds"]) == len(flat(rho1["documents"], 1))


def test_a_step_that_is_not_saved_is_refused_with_those_that_are(rho1_run):
    with pytest.raises(TrainingError, match=r"no checkpoint of step 7; steps with one: 1, 2"):
        xray(SavedRun.read(rho1_run), XRayOptions(steps=(1, 7)))
    assert xray(SavedRun.read(rho1_run), XRayOptions(steps=(2,), documents=1))["steps"] == [2]


def test_without_validation_training_texts_are_shown_and_it_says_so_and_long_ones_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr("wmtp.report.xray.MOST_TOKENS", 20)
    run = train_saved(tmp_path, "baseline-mtp", data={"validation": None})
    found = xray(SavedRun.read(run), XRayOptions(documents=1))
    assert found["source"] == "training documents, as the run holds none out: it has learned these"
    (document,) = found["documents"]
    assert (len(document["text"]), document["tokens"]) == (20, 32)
    assert set(flat([document], 0)) == {1.0}
