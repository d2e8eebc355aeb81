import json
import math
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

import wmtp.training.trainer
from launched import run_processes
from scored_rows import INVARIANT, VARIANT, build_algorithm, uneven_rows
from tiny_models import tiny_mtp
from wmtp.algorithms.base import ValueAlgorithm
from wmtp.algorithms.weighting import head_prior
from wmtp.data.rows import RowDataset
from wmtp.errors import TrainingError
from wmtp.models.adapter import trainable
from wmtp.models.value_heads import WithValueHead
from wmtp.training.sharding import shard_model
from wmtp.training.trainer import WMTPTrainer

HERE = Path(__file__).parent
VOCAB = 128


def build_model(heads):
    return tiny_mtp("llama", heads, "linear", vocab_size=VOCAB)


def make_trainer(
    directory, *, batch, accumulation, rows=None, model=None, prior="uniform", horizon=3, sharded=False, **fields
):
    model = trainable(model or build_model(horizon))
    defaults = {"learning_rate": 1e-2, "max_steps": 2, "logging_steps": 1, "optim": "adamw_torch", "seed": 1}
    rows = rows or uneven_rows()
    algorithm = build_algorithm(fields.pop("algorithm", "baseline"), rows)
    if isinstance(algorithm, ValueAlgorithm):
        torch.manual_seed(0)
        kind = {"folds": algorithm.folds, "values_tokens": algorithm.values_tokens}
        model = with_learned_values(WithValueHead(model, 32, detach_trunk=algorithm.detach_trunk, **kind))
    if sharded:
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        shard_model(model, torch.device("cpu"), torch.float32)
    arguments = TrainingArguments(
        output_dir=str(directory),
        use_cpu=True,
        save_only_model=sharded,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        lr_scheduler_type="constant",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        **({"per_device_eval_batch_size": 2} | defaults | fields),
    )
    return WMTPTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=RowDataset(rows.rows[:7], rows.packed_length),
        data_collator=rows.collate,
        algorithm=algorithm,
        head_prior=head_prior(prior, horizon),
        save=save_nothing,
    )


def with_learned_values(model):
    """Value heads as if they had learned something: values that are all zero would hide mistakes."""
    for head in (*model.value_heads.states, *model.value_heads.tokens):
        torch.nn.init.normal_(head.output.weight, std=0.2)
    return model


def test_freed_memory_is_kept_when_training_begins_and_not_before(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(wmtp.training.trainer, "keep_freed_memory", lambda: asked.append(True))
    trainer = make_trainer(tmp_path, batch=2, accumulation=1)
    assert asked == []
    trainer.train()
    assert asked == [True]


def model_inputs(rows):
    batch = rows.collate(rows.rows)
    return {name: batch[name] for name in ("input_ids", "labels", "attention_mask")}


def save_nothing(step, best_step, loop):
    pass


def parameters_after(trainer):
    trainer.train()
    parameters = [parameter.detach() for parameter in trainer.model.parameters()]
    whole = [each.full_tensor() if isinstance(each, DTensor) else each for each in parameters]
    return torch.cat([parameter.flatten() for parameter in whole])


@pytest.mark.parametrize(
    ("optim", "learning_rate", "prior", "packed"),
    [
        ("sgd", 1e-2, "uniform", True),
        ("sgd", 1e-2, {"decay": 0.5}, False),
        # Adam divides a gradient by its own size, so the rounding of tiny ones grows to about 1e-3 of the rate.
        ("adamw_torch", 1e-4, "uniform", False),
    ],
)
def test_batch_and_accumulation_give_the_same_parameters(tmp_path, optim, learning_rate, prior, packed):
    changes = {"optim": optim, "learning_rate": learning_rate, "prior": prior, "rows": uneven_rows(packed=packed)}
    shapes = ((8, 1), (2, 4), (1, 8))
    after = [parameters_after(make_trainer(tmp_path, batch=b, accumulation=a, **changes)) for b, a in shapes]
    assert (after[0] - after[1]).abs().max() < 1e-6
    assert (after[0] - after[2]).abs().max() < 1e-6


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", list(INVARIANT))
def test_every_mode_that_promises_it_gives_the_same_parameters_however_a_step_is_divided(tmp_path, name, packed):
    changes = {"optim": "sgd", "algorithm": name, "rows": uneven_rows(packed=packed), "max_steps": 4}
    shapes = ((8, 1), (2, 4), (1, 8))
    after = [parameters_after(make_trainer(tmp_path, batch=b, accumulation=a, **changes)) for b, a in shapes]
    assert (after[0] - after[1]).abs().max() < 1e-6
    assert (after[0] - after[2]).abs().max() < 1e-6


@pytest.mark.parametrize("name", list(VARIANT))
def test_a_mode_of_batch_scope_depends_on_the_micro_batch_as_the_documentation_says(tmp_path, name):
    changes = {"optim": "sgd", "algorithm": name, "max_steps": 2}
    shapes = ((8, 1), (2, 4))
    whole, parts = (parameters_after(make_trainer(tmp_path, batch=b, accumulation=a, **changes)) for b, a in shapes)
    assert (whole - parts).abs().max() > 1e-6


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_a_value_loss_of_any_size_leaves_the_trunk_as_it_is_also_where_gradients_are_clipped(tmp_path, scale):
    changes = {
        "batch": 8,
        "accumulation": 1,
        "optim": "sgd",
        "max_steps": 1,
        "max_grad_norm": 0.1,
    }  # later weights follow values
    expected, found = (make_trainer(tmp_path, algorithm="critic return batch", **changes) for _ in range(2))
    value_loss = found.algorithm.value_loss
    found.algorithm.value_loss = lambda signals: scale * value_loss(signals)
    for trainer in (expected, found):
        trainer.train()
    trunks = [
        torch.cat([p.detach().flatten() for p in trainer.model.model.parameters()]) for trainer in (expected, found)
    ]
    assert torch.equal(*trunks)


def test_a_step_is_the_gradient_of_the_sum_over_valid_pairs_by_their_number(tmp_path):
    rows = uneven_rows(count=8)
    trainer = make_trainer(tmp_path, batch=2, accumulation=4, rows=rows, optim="sgd", max_steps=1, max_grad_norm=0)
    model = build_model(3)
    output = model(**model_inputs(rows))
    assert len({int(n) for n in output.valid.sum((1, 2))}) > 1
    (output.ce.sum() / output.valid.sum()).backward()
    expected = torch.cat([(p - 1e-2 * p.grad).detach().flatten() for p in model.parameters()])
    assert torch.allclose(parameters_after(trainer), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "name", ["baseline", "rho1 token_skip ema", "critic return ema", "critic token ema", "critic token horizon"]
)
def test_two_processes_give_the_same_parameters_as_one(tmp_path, name):
    changes = {"optim": "sgd", "algorithm": name, "max_steps": 3}
    alone = parameters_after(make_trainer(tmp_path, batch=8, accumulation=1, **changes))
    run_processes(HERE / "two_processes.py", tmp_path, "ddp", 3, name)
    assert [(tmp_path / f"threads-{rank}.txt").read_text() for rank in (0, 1)] == ["", ""]  # they abort it now and then
    together = torch.load(tmp_path / "0" / "parameters.pt", weights_only=True)
    logs = json.loads((tmp_path / "0" / "logs.json").read_text())
    assert (alone - together).abs().max() < 1e-6
    trainer = make_trainer(tmp_path, batch=8, accumulation=1, **changes)
    trainer.train()
    expected = trainer.evaluate()
    assert logs["train"] == pytest.approx(trainer.state.log_history[2], rel=1e-5)  # the first have equal weights
    assert logs["eval"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("engine", "names"),
    [
        pytest.param("fsdp", ["critic token ema"], id="fsdp, one mode"),
        pytest.param("fsdp", list(INVARIANT), id="fsdp", marks=pytest.mark.slow),
        pytest.param("ddp", list(INVARIANT), id="ddp", marks=pytest.mark.slow),
    ],
)
def test_ten_steps_of_two_processes_are_those_of_one(tmp_path, engine, names):
    run_processes(HERE / "two_processes.py", tmp_path, engine, 10, *names)
    for number, name in enumerate(names):
        changes = {"optim": "sgd", "algorithm": name, "max_steps": 10}
        alone = parameters_after(make_trainer(tmp_path, batch=8, accumulation=1, **changes))
        together = torch.load(tmp_path / str(number) / "parameters.pt", weights_only=True)
        assert (alone - together).abs().max() < 1e-5, name


def test_a_process_that_has_seen_nothing_valid_joins_in_the_report_of_the_others(tmp_path):
    run_processes(HERE / "silent_process.py", tmp_path)
    told, silent = (json.loads((tmp_path / f"logs-{rank}.json").read_text()) for rank in (0, 1))
    assert [entry["ce_1"] for entry in told] == pytest.approx([entry["ce_1"] for entry in silent])
    assert all(math.isfinite(entry["ce_1"]) and entry["share_valid_1"] < 0.5 for entry in told)


def test_a_shorter_horizon_trains_the_first_heads_only(tmp_path):
    before = build_model(3)
    trainer = make_trainer(tmp_path, batch=8, accumulation=1, model=build_model(3), horizon=2)
    trainer.train()
    after, before = trainer.model.state_dict(), before.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("heads.2.") for name in changed)
    assert not any(name.startswith("heads.3.") for name in changed)
    assert "ce_3" not in trainer.state.log_history[0]


def test_logs_have_the_cross_entropy_of_every_head_and_perplexity(tmp_path):
    rows = uneven_rows(count=8)
    trainer = make_trainer(tmp_path, batch=2, accumulation=4, rows=rows, max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    with torch.no_grad():
        output = build_model(3)(**model_inputs(rows))
    for k in (1, 2, 3):
        ce, valid = output.ce[..., k - 1], output.valid[..., k - 1]
        assert logged[f"ce_{k}"] == pytest.approx(float(ce.sum() / valid.sum()), rel=1e-5)
        assert logged[f"share_valid_{k}"] == pytest.approx(float(valid.float().mean()))
    assert logged["loss"] == pytest.approx(float(output.ce.sum() / output.valid.sum()), rel=1e-5)
    assert logged["perplexity"] == pytest.approx(math.exp(logged["ce_1"]))
    assert logged["weight_mean"] == pytest.approx(1)
    assert logged["weight_share_kept"] == 1


def test_evaluation_is_per_token_whatever_the_batch_size(tmp_path):
    rows = uneven_rows(count=7)
    results = [
        make_trainer(tmp_path, batch=1, accumulation=1, rows=rows, per_device_eval_batch_size=size).evaluate()
        for size in (1, 3)
    ]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    with torch.no_grad():
        output = build_model(3)(**model_inputs(rows), with_top1=True)
    top1 = output.top1.sum((0, 1)) / output.valid.sum((0, 1))
    assert [results[0][f"eval_top1_{k}"] for k in (1, 2, 3)] == pytest.approx(top1.tolist())
    assert results[0]["eval_loss"] == pytest.approx(float(output.ce.sum() / output.valid.sum()), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(tmp_path):
    model = build_model(3)
    with torch.no_grad():
        model.trunk.model.norm.weight.fill_(math.nan)
    trainer = make_trainer(tmp_path, batch=2, accumulation=4, model=model)
    before = model.trunk.lm_head.weight.clone()
    with pytest.raises(TrainingError, match="step 1: the loss of micro-batch 1 of 4 is nan; stopped before the"):
        trainer.train()
    assert torch.equal(model.trunk.lm_head.weight, before)


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    model = build_model(3)
    model.trunk.lm_head.weight.register_hook(lambda gradient: gradient * math.inf)
    trainer = make_trainer(tmp_path, batch=2, accumulation=4, model=model)
    with pytest.raises(TrainingError, match="step 1: the norm of the gradient is"):
        trainer.train()


def test_training_prints_nothing(tmp_path, capsys):
    make_trainer(tmp_path, batch=8, accumulation=1).train()
    assert capsys.readouterr().out == ""


def test_heads_beyond_the_horizon_are_neither_called_nor_changed(tmp_path):
    model = tiny_mtp("llama", 4, "transformer", vocab_size=VOCAB)
    before, called = {name: tensor.clone() for name, tensor in model.state_dict().items()}, set()
    for k, head in model.heads.items():
        head.register_forward_hook(lambda *_, k=k: called.add(k))
    trainer = make_trainer(tmp_path, batch=2, accumulation=1, model=model, horizon=2, weight_decay=0.1)
    trainer.train()
    assert called == {"2"}
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("heads.")} == {"2"}
    assert "trunk.lm_head.weight" in changed
