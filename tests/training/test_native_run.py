"""Native heads from a released checkpoint's layout through every algorithm to a checkpoint in that layout."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import MtpModel

import wmtp
from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from native_files import write_native
from native_models import native
from tiny_models import tiny_mtp, tokens
from wmtp.authoring.init import init_metadata
from wmtp.errors import TrainingError

LINES = ["def total(values): return sum(values)", "while True: print('again and again')"]
RECIPE = """
run: {{name: {name}, export_next_token: {export}}}
data: {{train: {{files: [data.jsonl], max_length: 48, packing: {packing}}}}}
mtp: {mtp}
train: {{algo: {algo}, learning_rate: 1e-2, max_steps: 2, per_device_train_batch_size: 4,
        gradient_accumulation_steps: 1, logging_steps: 1, save_steps: 1}}
"""
SECTIONS = {
    "baseline-mtp": "",
    "rho1-wmtp": "rho1: {keep_ratio: 0.5}",
    "critic-wmtp": "critic: {reward_column: passed, stage1_steps: 30, value_learning_rate: 1e-2}",
}


@pytest.fixture
def base(tmp_path):
    write_native(tmp_path / "base", "mellum", model=native("mellum", config={"vocab_size": 128}), vocab_size=128)
    init_metadata(tmp_path / "base")
    entries = [{"text": f"{LINES[i % 2]}  # {i}", "passed": 1 - i % 2} for i in range(40)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return tmp_path / "base"


def run(tmp_path, base, *, name="run", algo="baseline-mtp", packing="true", export=False, **mtp):
    text = (
        RECIPE.format(name=name, export=json.dumps(export), algo=algo, packing=packing, mtp=json.dumps(mtp))
        + SECTIONS[algo]
    )
    (tmp_path / "recipe.yaml").write_text(text)
    models = {"base": [str(base)]}
    if algo == "rho1-wmtp":
        models["ref"] = [str(write_llama_checkpoint(tmp_path / "ref", vocab_size=128))]
    config = {"paths": {"models": models, "output_dir": str(tmp_path / "runs")}, "tracking": {"report_to": []}}
    (tmp_path / "config.yaml").write_text(json.dumps(config | {"devices": {"device": "cpu"}}))
    return wmtp.train(wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml"))


def stored(directory):
    return load_file(f"{directory}/model.safetensors")


@pytest.mark.parametrize(
    ("algo", "packing"), [("baseline-mtp", "false"), ("rho1-wmtp", "true"), ("critic-wmtp", "true")]
)
def test_every_algorithm_trains_trunk_and_modules_and_writes_them_in_their_layout(tmp_path, base, algo, packing):
    result = run(tmp_path, base, algo=algo, packing=packing)
    before, after = stored(base), stored(result.final_checkpoint)
    assert after.keys() == before.keys()
    for name in (
        "mtp.fc.weight",
        "mtp.layers.0.self_attn.q_proj.weight",
        "model.embed_tokens.weight",
        "lm_head.weight",
    ):
        assert not torch.equal(after[name], before[name])
    ids = tokens(1, 20)
    assert torch.equal(wmtp.load_model(result.final_checkpoint)(ids).logits, result.model(ids).logits)
    assert wmtp.load_metadata(result.final_checkpoint).mtp == wmtp.load_metadata(base).mtp


@pytest.mark.parametrize(
    ("family", "part"), [("deepseek_moe", "model.layers.2.eh_proj"), ("mimo", "model.mtp_layers.0")]
)
def test_rho1_trains_modules_of_other_layouts_and_what_is_exported_has_their_names(tmp_path, base, family, part):
    shutil.rmtree(base)
    write_native(base, family, model=native(family, config={"vocab_size": 128}), vocab_size=128)
    init_metadata(base)
    result = run(tmp_path, base, algo="rho1-wmtp")
    made = wmtp.export(result.final_checkpoint, tmp_path / "served", to="native")
    before, after = stored(base), stored(made)
    assert after.keys() == before.keys()
    assert any(name.startswith(part) and not torch.equal(after[name], before[name]) for name in after)
    ids = tokens(1, 20)
    torch.testing.assert_close(wmtp.load_model(made)(ids).logits, result.model(ids).logits, rtol=0, atol=1e-5)


def test_a_trained_checkpoint_is_read_by_transformers_with_its_modules_and_can_be_trained_again(tmp_path, base):
    first = run(tmp_path, base)
    again = run(tmp_path, first.final_checkpoint, name="again")
    main = AutoModelForCausalLM.from_pretrained(again.final_checkpoint)
    modules = MtpModel.from_pretrained(main)
    assert torch.equal(modules.layers[0].eh_proj.weight, again.model.heads["2"].eh_proj.weight)
    assert torch.equal(main.lm_head.weight, again.model.trunk.lm_head.weight)
    config = json.loads((base / "config.json").read_text())
    assert json.loads((first.run_directory / "final" / "config.json").read_text()) == config


def test_a_trunk_of_a_type_that_transformers_does_not_know_is_exported_as_the_declared_one(tmp_path, base):
    shutil.rmtree(base)
    write_native(base, "mimo", model=native("mimo", config={"vocab_size": 128}), model_type="mimo", vocab_size=128)
    init_metadata(base)
    result = run(tmp_path, base, export=True)
    assert wmtp.load_metadata(result.next_token_checkpoint).base_architecture == "qwen2"
    ids = tokens(1, 20)
    for plain in (
        wmtp.load_model(result.next_token_checkpoint),
        AutoModelForCausalLM.from_pretrained(result.next_token_checkpoint),
    ):
        assert torch.equal(plain(ids).logits, result.model(ids).logits[:, :, 0])


def test_a_frozen_trunk_is_stored_byte_for_byte_and_the_log_says_so(tmp_path, base, caplog):
    with caplog.at_level(logging.INFO, "wmtp"):
        result = run(tmp_path, base, trunk="frozen")
    before, after = stored(base), stored(result.final_checkpoint)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("mtp.")}
    assert "the trunk is frozen: heads 2 to 2 alone are trained" in caplog.text


def test_a_detached_trunk_learns_as_it_would_without_modules(tmp_path, base):
    detached, alone = (
        run(tmp_path, base, name="detached", trunk="detached"),
        run(tmp_path, base, name="alone", horizon=1),
    )
    trunks = [result.model.trunk.state_dict() for result in (detached, alone)]
    # Each head's loss is divided by the pairs of all heads, so that Adam's steps agree but for its epsilon.
    for name, value in trunks[0].items():
        torch.testing.assert_close(value, trunks[1][name], rtol=0, atol=2e-3)
    assert not torch.equal(detached.model.heads["2"].eh_proj.weight, alone.model.heads["2"].eh_proj.weight)


@pytest.mark.parametrize(
    ("trunk", "horizon", "message"),
    [
        ("detached", 2, "mtp.trunk is detached, and the base model's class MTPForCausalLM cannot do that"),
        ("frozen", 1, "mtp.trunk is frozen, and only the next-token head is trained"),
    ],
)
def test_what_a_class_cannot_do_with_its_trunk_is_refused(tmp_path, base, trunk, horizon, message):
    other = write_mtp_checkpoint(tmp_path / "other", tiny_mtp("llama", 2, "linear", vocab_size=128))
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, other, trunk=trunk, horizon=horizon)
    assert base.exists()
