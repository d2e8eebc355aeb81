"""Runs that train a part of a model: heads alone, heads first, adapters with heads."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import wmtp
from checkpoints import llama_metadata, write_llama_checkpoint, write_mtp_checkpoint
from native_files import write_native
from native_models import native
from tiny_models import tiny_mtp, tokens
from wmtp.authoring.init import init_metadata
from wmtp.errors import TrainingError
from wmtp.training.stopping import StopRequest

LINES = ["def total(values): return sum(values)", "while True: print('again and again')"]
RECIPE = """
run: {{name: {name}, export_next_token: {export}}}
data: {{train: {{files: [data.jsonl], max_length: 48}}, validation: {{fraction: 0.1}}}}
train: {{algo: {algo}, learning_rate: 1e-2, {length}, per_device_train_batch_size: 4,
        gradient_accumulation_steps: 1, logging_steps: 1, eval_steps: 2, save_steps: 2, {train}}}
"""
CRITIC = "critic: {reward_column: passed, stage1_steps: 30, value_learning_rate: 1e-2}"
HEADS, LORA = "trainable: heads", "trainable: lora, lora: {r: 4, alpha: 8}"


def mtp(tmp_path, architecture="llama", heads=3, head_type="transformer", **changes):
    model = tiny_mtp(architecture, heads, head_type, vocab_size=128, **changes)
    return write_mtp_checkpoint(tmp_path / "base", model, fits=["baseline-mtp", "critic-wmtp"])


def released(tmp_path, family="mellum"):
    write_native(tmp_path / "base", family, model=native(family, config={"vocab_size": 128}), vocab_size=128)
    init_metadata(tmp_path / "base")
    return tmp_path / "base"


def prepared(tmp_path, base, train, *, name="run", algo="baseline-mtp", export="false", more=""):
    entries = [{"text": f"{LINES[i % 2]}  # {i}", "passed": 1 - i % 2} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    length = "lr_scheduler_type: cosine" if "epochs" in train else "max_steps: 4"
    text = RECIPE.format(name=name, algo=algo, train=train, export=export, length=length)
    (tmp_path / "recipe.yaml").write_text(text + (CRITIC if algo == "critic-wmtp" else "") + "\n" + more)
    config = {"paths": {"models": {"base": [str(base)]}, "output_dir": str(tmp_path / "runs")}}
    config |= {"devices": {"device": "cpu"}, "tracking": {"report_to": []}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    return wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml")


def run(*args, **kwargs):
    return wmtp.train(*prepared(*args, **kwargs))


def stored(directory):
    return load_file(f"{directory}/model.safetensors")


def changed(base, result):
    before, after = stored(base), stored(result.final_checkpoint)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("architecture", "head_type", "tied"),
    [
        ("llama", "linear", True),
        ("llama", "transformer", False),
        ("gpt2", "transformer", True),
        ("gpt2", "resblock", True),
    ],
)
def test_heads_alone_learn_and_the_next_token_stays_as_it_was_to_the_last_bit(tmp_path, architecture, head_type, tied):
    base = mtp(tmp_path, architecture, 3, head_type, tie_word_embeddings=tied)
    result = run(tmp_path, base, HEADS)
    assert result.initial_metrics["eval_ce_1"] == result.final_metrics["eval_ce_1"]
    assert result.final_metrics["eval_ce_3"] < result.initial_metrics["eval_ce_3"]
    assert {name.split(".")[0] for name in changed(base, result)} == {"heads"}
    ids = tokens(1, 20)
    trained, untrained = (wmtp.load_model(where)(ids).logits for where in (result.final_checkpoint, base))
    assert torch.equal(trained[:, :, 0], untrained[:, :, 0])
    assert not torch.equal(trained[:, :, 1], untrained[:, :, 1])


@pytest.mark.parametrize("family", ["mellum", "deepseek"])
def test_native_modules_learn_alone_and_what_they_share_with_the_trunk_stays(tmp_path, family):
    base = released(tmp_path, family)
    result = run(tmp_path, base, HEADS)
    own = {name for name in stored(base) if name.startswith(("mtp.", "model.layers.2."))}
    copies = {name for name in own if name.endswith(("embed_tokens.weight", "shared_head.head.weight"))}
    assert changed(base, result) == own - copies
    assert result.initial_metrics["eval_ce_1"] == result.final_metrics["eval_ce_1"]


def test_a_frozen_trunk_has_no_dropout_keeps_no_activations_and_no_optimizer_state(tmp_path):
    base = mtp(tmp_path, "gpt2")
    kept = {}
    for train in ("trainable: all", HEADS):
        from wmtp.training.preparation import prepare

        prepared_run = prepare(*prepared(tmp_path, base, train, name=train[11:]), {})
        trainer = prepared_run.build_trainer([], StopRequest())
        trainer.train()
        model, sizes = prepared_run.base.model.train(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.nbytes) or t, lambda t: t):
            model(tokens(2, 20), labels=tokens(2, 20))
        of_trunk = {id(parameter) for parameter in model.trunk.parameters()}
        has_state = any(id(parameter) in of_trunk for parameter in trainer.optimizer.state)
        kept[train] = sum(sizes), has_state, model.trunk.training, model.heads.training
    assert kept[HEADS][0] < 0.7 * kept["trainable: all"][0]
    assert (kept["trainable: all"][1:], kept[HEADS][1:]) == ((True, True, True), (False, False, True))


def test_heads_learn_first_and_the_trunk_after_them_in_one_schedule(tmp_path, caplog):
    base = mtp(tmp_path)
    with caplog.at_level(logging.INFO, "wmtp"):
        result = run(tmp_path, base, "heads_warmup_steps: 2, weight_decay: 0.1")
    first, trunk = stored(result.run_directory / "step-2"), "trunk.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(first[trunk], stored(base)[trunk])
    assert not torch.equal(first["heads.2.layer.mlp.up_proj.weight"], stored(base)["heads.2.layer.mlp.up_proj.weight"])
    assert not torch.equal(stored(result.final_checkpoint)[trunk], first[trunk])
    assert "from step 1 on heads alone are trained" in caplog.text
    assert "from step 3 on the trunk is trained too" in caplog.text


def test_the_optimizer_meets_the_trunk_with_a_state_of_its_own_and_the_rate_of_the_run(tmp_path):
    from wmtp.training.preparation import prepare

    base = mtp(tmp_path)
    trainer = prepare(*prepared(tmp_path, base, "heads_warmup_steps: 3"), {}).build_trainer([], StopRequest())
    trainer.train()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    steps = {names[id(p)].split(".")[0]: float(state["step"]) for p, state in trainer.optimizer.state.items()}
    assert steps == {"trunk": 1, "heads": 4}
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert len(rates) == 4
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "native", "plain"])
def test_adapters_are_merged_in_checkpoints_that_load_as_the_source_does(tmp_path, kind):
    base = released(tmp_path) if kind == "native" else None
    if kind == "plain":
        base = write_llama_checkpoint(tmp_path / "base", vocab_size=128, metadata=False)
        fields = llama_metadata(wmtp_type="base_model", algorithm_compatibility=["baseline-mtp"])
        (base / "metadata.json").write_text(json.dumps(fields))
    base = base or mtp(tmp_path, kind)
    result = run(tmp_path, base, LORA)
    adapted = {name for name in changed(base, result) if not name.startswith(("heads.", "mtp."))}
    assert len(adapted) == {"gpt2": 8}.get(kind, 14)  # of two layers
    assert not any("embed" in name or "lm_head" in name or "norm" in name for name in adapted)
    ids, ce = tokens(1, 20), "eval_ce_1"
    torch.testing.assert_close(
        wmtp.load_model(result.final_checkpoint)(ids).logits, result.model(ids).logits, rtol=1e-4, atol=1e-4
    )
    assert result.final_metrics[ce] < result.initial_metrics[ce]


def test_the_running_model_keeps_its_adapters_while_checkpoints_are_written(tmp_path):
    from wmtp.training.preparation import prepare

    ready = prepare(*prepared(tmp_path, mtp(tmp_path), LORA), {})
    ready.build_trainer([], StopRequest()).train()
    before = {name: parameter.clone() for name, parameter in ready.base.model.named_parameters()}
    ready.writer.save_step(9, None)
    after = dict(ready.base.model.named_parameters())
    assert before.keys() == after.keys()
    assert any("lora_A" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_adapter_beside_a_checkpoint_is_what_peft_reads(tmp_path):
    from peft import PeftModel

    from wmtp import export

    base = mtp(tmp_path)
    result = run(tmp_path, base, LORA, export="true")
    export(base, tmp_path / "plain", to="transformers")
    parent = AutoModelForCausalLM.from_pretrained(tmp_path / "plain")
    adapted = PeftModel.from_pretrained(parent, f"{result.final_checkpoint}/adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(result.next_token_checkpoint)
    ids = tokens(1, 20)
    torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-4)
    settings = json.loads((result.run_directory / "final" / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base)
    assert settings["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]


def test_a_checkpoint_with_an_adapter_beside_it_is_trained_again_without_it(tmp_path):
    first = run(tmp_path, mtp(tmp_path), LORA)
    again = run(tmp_path, first.final_checkpoint, "trainable: all", name="again")
    assert (first.run_directory / "final" / "adapter").is_dir()
    assert not (again.run_directory / "final" / "adapter").exists()
    assert wmtp.load_metadata(again.final_checkpoint).loading_strategy.required_files == (
        wmtp.load_metadata(first.final_checkpoint).loading_strategy.required_files
    )


def test_named_layers_alone_get_adapters(tmp_path):
    base = mtp(tmp_path)
    result = run(tmp_path, base, "trainable: lora, lora: {r: 2, target_modules: [q_proj, layers.1.mlp.up_proj]}")
    assert {name for name in changed(base, result) if name.startswith("trunk.")} == {
        "trunk.model.layers.0.self_attn.q_proj.weight",
        "trunk.model.layers.1.self_attn.q_proj.weight",
        "trunk.model.layers.1.mlp.up_proj.weight",
    }


@pytest.mark.parametrize("train", [HEADS, LORA, "heads_warmup_steps: 2"])
def test_value_heads_are_fitted_and_trained_whatever_else_is(tmp_path, train):
    from wmtp.publishing.algorithm_state import read_state
    from wmtp.storage.opening import open_store

    base = mtp(tmp_path, heads=2)
    result = run(tmp_path, base, train, algo="critic-wmtp")
    assert max(result.explained_variance) > 0.5
    state = [
        read_state(open_store(result.run_directory / name))[1]["tokens.0.hidden.weight"] for name in ("step-2", "final")
    ]
    assert not torch.equal(*state)
    assert any(name.startswith("heads.") for name in changed(base, result))
    assert any(name.startswith("trunk.") for name in changed(base, result)) is (train != HEADS)


def test_records_say_what_is_trained(tmp_path):
    base = mtp(tmp_path)
    result = run(tmp_path, base, HEADS)
    heads = sum(tensor.numel() for name, tensor in stored(base).items() if name.startswith("heads."))
    trunk = sum(tensor.numel() for tensor in stored(base).values()) - heads
    expected = {"what": "heads", "trunk": trunk, "heads": heads, "adapters": 0, "adapted_layers": 0}
    for found in (
        json.loads((result.run_directory / "run.json").read_text())["trained"],
        wmtp.load_metadata(result.final_checkpoint).provenance["trained"],
    ):
        assert found == {**expected, "heads_warmup_steps": 0}


@pytest.mark.parametrize(
    ("train", "more", "message"),
    [
        (HEADS, "mtp: {horizon: 1}", "train.trainable is heads, and only the next-token head is trained"),
        ("heads_warmup_steps: 30, num_train_epochs: 1", "", "is 30, and the run has 9 optimizer steps"),
        (
            LORA[:-1] + ", target_modules: [query, q_proj]}",
            "",
            "target_modules names 'query', and .* has no such linear",
        ),
        (LORA[:-1] + ", target_modules: [embed_tokens]}", "", "target_modules names 'embed_tokens', and"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(tmp_path, train, more, message):
    with pytest.raises(TrainingError, match=message) as caught:
        run(tmp_path, mtp(tmp_path), train, more=more)
    if "target_modules" in message:
        assert "name some of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in caught.value.hint
    assert not list((tmp_path / "runs").glob("*/step-*"))
