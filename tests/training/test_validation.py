"""Validation data with settings of its own: batched by its own rules, and checked before training."""

import json

import pytest
import torch

import wmtp
from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import CODE_LINES, build_tokenizer
from wmtp.errors import DataError

CONFIG = """\
paths: {models: {base: ./base, ref: ./ref}, output_dir: ./runs}
devices: {device: cpu}
tracking: {report_to: []}
"""
RECIPE = """\
run: {name: run}
data:
  train: {files: train, max_length: 48, packing: true}
  validation: {files: valid.jsonl, format: prompt_completion}
train: {algo: baseline-mtp, max_steps: 1, per_device_train_batch_size: 2, per_device_eval_batch_size: 3,
        gradient_accumulation_steps: 1, learning_rate: 1e-3}
"""
PAIRS = [(f"task {'x' * (3 * n % 11)}:", CODE_LINES[n % 4][: 5 + 4 * n]) for n in range(8)]


@pytest.fixture
def place(tmp_path):
    """Settings, training texts, validation pairs, and a base model with two heads."""
    write_mtp_checkpoint(tmp_path / "base", tiny_mtp(heads=2, vocab_size=98), fits=["baseline-mtp", "rho1-wmtp"])
    (tmp_path / "train").mkdir()
    for number, line in enumerate(CODE_LINES):
        (tmp_path / "train" / f"{number}.py").write_text(line * (number + 1))
    lines = [{"prompt": prompt, "completion": completion} for prompt, completion in PAIRS]
    (tmp_path / "valid.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def run(place, *overrides, base="./base"):
    config = wmtp.load_config(place / "config.yaml", [f"paths.models.base={base}"])
    return wmtp.train(config, wmtp.load_recipe(place / "recipe.yaml", overrides))


def expected_losses(place, max_length):
    """Mean cross-entropy of each head over the completions, each pair by itself, from logits."""
    model, tokenizer = wmtp.load_model(place / "base").eval(), build_tokenizer()
    sums, counts = torch.zeros(2), torch.zeros(2)
    for prompt, completion in PAIRS:
        ids = torch.tensor([*tokenizer(prompt + completion)["input_ids"], tokenizer.eos_token_id])[:max_length]
        with torch.no_grad():
            log_probs = model(ids[None]).logits[0].log_softmax(-1)
        first = len(tokenizer(prompt)["input_ids"])
        for head in (0, 1):
            for target in range(max(first, head + 1), len(ids)):
                sums[head] -= log_probs[target - 1 - head, head, ids[target]]
                counts[head] += 1
    return sums / counts


@pytest.mark.parametrize(
    ("train", "validation", "length"),
    [(True, True, 48), (True, False, 48), (False, True, 48), (False, False, 48), (True, False, 24), (False, True, 96)],
)
def test_every_document_is_measured_however_the_rows_of_both_lie(place, train, validation, length):
    settings = [f"data.train.packing={str(train).lower()}", f"data.validation.packing={str(validation).lower()}"]
    found = run(place, *settings, f"data.validation.max_length={length}").initial_metrics
    losses = torch.tensor([found["eval_ce_1"], found["eval_ce_2"]])
    torch.testing.assert_close(losses, expected_losses(place, length), rtol=1e-4, atol=1e-4)


def test_held_out_documents_may_be_packed_otherwise_than_the_training_data(place):
    words = ["data.train.packing=false", "run.name=other", "data.validation={fraction: 0.5, packing: true}"]
    one = run(place, *words[:1], "data.validation={fraction: 0.5}").initial_metrics
    other = run(place, *words).initial_metrics
    names = [name for name in one if "share_valid" not in name]  # of all places of rows, padding counted
    assert {"eval_ce_1", "eval_ce_2", "eval_top1_1"} < set(names)
    assert [other[name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-5)


def test_scores_of_the_training_data_are_not_asked_of_validation_data(place):
    write_llama_checkpoint(place / "ref")
    document = json.loads((place / "ref" / "metadata.json").read_text())
    changes = {"wmtp_type": "reference_model", "algorithm_compatibility": ["rho1-wmtp"]}
    (place / "ref" / "metadata.json").write_text(json.dumps(document | changes))
    for number, packing in enumerate(("true", "false")):
        result = run(place, f"run.name=r{number}", "train.algo=rho1-wmtp", f"data.validation.packing={packing}")
        losses = torch.tensor([result.initial_metrics["eval_ce_1"], result.initial_metrics["eval_ce_2"]])
        torch.testing.assert_close(losses, expected_losses(place, 48), rtol=1e-4, atol=1e-4)


def test_validation_documents_longer_than_the_models_positions_are_refused_before_training(place):
    model = tiny_mtp("gpt2", 2, "linear", vocab_size=98, n_positions=24)
    write_mtp_checkpoint(place / "short", model)
    with pytest.raises(
        DataError, match=r"knows 24 positions, and the longest document of data\.validation has 48 tokens"
    ) as refusal:
        run(place, "data.train.max_length=24", "data.validation.max_length=48", base="./short")
    assert refusal.value.hint == "set data.validation.max_length: 24, or less"
    assert not (place / "runs").exists()


def test_validation_tokens_that_the_model_does_not_know_are_refused_before_training(place):
    write_mtp_checkpoint(place / "few", tiny_mtp("llama", 2, "linear", vocab_size=50))
    for path in (place / "train").iterdir():
        path.write_text("0+1+2+3")
    (place / "valid.jsonl").write_text('{"prompt": "0", "completion": "1~"}')
    with pytest.raises(DataError, match=r"its tokenizer makes token \d+, and the model knows 50 tokens"):
        run(place, base="./few")
    (place / "valid.jsonl").write_text('{"prompt": "0", "completion": "1"}')
    assert run(place, base="./few").steps == 1
