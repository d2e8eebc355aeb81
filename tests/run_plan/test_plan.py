"""What plan says of data, scores, compute and memory, before anything runs."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import CODE_LINES, build_tokenizer
from wmtp.data.documents import read_documents
from wmtp.errors import DataError
from wmtp.run_plan.data import estimate_data
from wmtp.run_plan.tokens import TokenCounter
from wmtp.settings.data import Data, DataSource

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*_*.yaml"))
CONFIG = """
paths: {models: {base: ./zoo/mtp, ref: ./zoo/ref, rm: ./zoo/rm}, output_dir: ./runs}
devices: {device: cpu}
"""
ALL = ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A model for each role; plan reads headers and metadata alone, so a llama can stand for a reward model."""
    directory = tmp_path_factory.mktemp("plan") / "zoo"
    write_mtp_checkpoint(directory / "mtp", tiny_mtp(vocab_size=98, heads=4))
    write_llama_checkpoint(directory / "ref")
    write_llama_checkpoint(directory / "rm")
    for name, wmtp_type in (("mtp", "base_model"), ("ref", "reference_model"), ("rm", "reward_model")):
        path = directory / name / "metadata.json"
        changes = {"wmtp_type": wmtp_type, "algorithm_compatibility": ALL}
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return directory


@pytest.fixture
def plan(wmtp, zoo, tmp_path):
    """Plan a shipped recipe on small data; returns the result of the command."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("./zoo", str(zoo)))
    lines = [{"text": "task", "code": text, "tests_passed": n % 2} for n in range(10) for text in CODE_LINES]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run(recipe, *words):
        settings = ["--config", tmp_path / "config.yaml", "--recipe", RECIPES[0].with_name(f"{recipe}.yaml")]
        files = f"data.train.files=[{tmp_path}/data.jsonl]"
        return wmtp("plan", *settings, files, "data.train.max_length=64", *words)

    return run


def facts(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES])
def test_every_shipped_recipe_plans_against_a_zoo(plan, recipe):
    found = facts(plan(recipe, "--json"))
    assert found["algorithm"].startswith(recipe.partition("_")[0])
    assert found["cost"]["steps"] == 3000
    assert plan(recipe).exit_code == 0


def num_tokens(text):
    return len(build_tokenizer()(text)["input_ids"])


def test_tokens_of_small_data_are_those_of_the_base_models_tokenizer(plan, tmp_path):
    found = facts(plan("baseline_mtp", "--json", "data.validation=null"))["data"]
    tokens = 10 * sum(num_tokens(f"task\n{line}") + 1 for line in CODE_LINES)
    assert (found["documents"], found["tokens"]) == (40, tokens)
    assert (found["sampled_bytes"], found["assumed_bytes_of_a_token"]) == (10 * sum(map(len, CODE_LINES)) + 200, None)
    assert found["stored_bytes"] == (tmp_path / "data.jsonl").stat().st_size
    assert found["rows"] == -(-found["tokens"] // 64)
    half = facts(plan("baseline_mtp", "--json", "data.validation.fraction=0.5"))["data"]
    assert half["documents"] == 20


def test_only_the_first_lines_of_a_large_file_are_read(plan, tmp_path):
    line = json.dumps({"text": "a" * 400, "code": "b" * 500, "note": "c" * 100}) + "\n"
    (tmp_path / "data.jsonl").write_text(line * 500 + "this is never read")
    found = facts(plan("baseline_mtp", "--json", "data.validation=null"))["data"]
    assert found["documents"] == pytest.approx(500, abs=1)
    assert found["tokens"] == pytest.approx(500 * (num_tokens(f"{'a' * 400}\n{'b' * 500}") + 1), rel=1e-2)


def test_reference_losses_are_computed_before_and_the_reference_is_not_in_memory(plan, zoo, tmp_path):
    found = facts(plan("rho1_tokenskip", "--json"))
    (score,) = found["scores"]
    assert (score["what"], score["role"], score["uri"], score["online"]) == ("nll", "ref", f"{zoo}/ref", False)
    assert (score["data"], score["tokens"]) == ("data.train", found["data"]["tokens"])
    assert score["kept_in"] == f"{tmp_path}/runs/scores"
    assert found["cost"]["scoring"] == 2 * found["models"]["ref"]["num_parameters"] * score["tokens"]
    assert found["memory"]["other_models"] == 0


def test_a_reference_that_runs_while_training_is_in_memory_and_costs_compute(plan):
    found, offline = facts(plan("rho1_online", "--json")), facts(plan("rho1_tokenskip", "--json"))
    parameters = found["models"]["ref"]["num_parameters"]
    assert found["memory"]["other_models"] == 4 * parameters
    assert (found["cost"]["scoring"], found["scores"][0]["kept_in"]) == (0, None)
    assert found["cost"]["training"] - offline["cost"]["training"] == found["cost"]["beside"]
    assert found["cost"]["beside"] == 2 * parameters * found["cost"]["tokens"]


def test_training_costs_six_for_each_parameter_and_token_of_all_steps(plan):
    found = facts(plan("baseline_mtp", "--json", "train.max_steps=10"))
    cost, data = found["cost"], found["data"]
    assert cost["rows_in_step"] == min(16, data["rows"])
    assert cost["tokens"] == 10 * cost["rows_in_step"] * data["row_tokens"]
    assert cost["training"] == 6 * found["models"]["base"]["num_parameters"] * cost["tokens"]
    assert (cost["scoring"], cost["value_steps"], cost["value_stage"]) == (0, 0, 0)


def test_epochs_become_optimizer_steps(plan):
    words = ["train.max_steps=null", "train.num_train_epochs=3", "train.per_device_train_batch_size=1"]
    found = facts(plan("baseline_mtp", "--json", *words, "train.gradient_accumulation_steps=2"))
    assert found["cost"]["steps"] == 3 * -(-found["data"]["rows"] // 2)


def test_a_value_head_has_a_stage_of_its_own_and_is_in_memory(plan):
    found = facts(plan("critic_column", "--json"))
    assert list(found["chosen"]) == ["base"]
    cost = found["cost"]
    heads = 2 * ((32 * 32 + 4 * 32 + 1) + (64 * 64 + 8 * 32 + 1))  # of states and of tokens, in two folds
    assert (cost["num_value"], cost["folds"], found["memory"]["value_head"]) == (heads, 2, 4 * 4 * heads)
    tokens = 200 * cost["rows_in_step"] * found["data"]["row_tokens"]
    flops = (2 * found["models"]["base"]["num_parameters"] + 6 * heads) * tokens
    assert (cost["value_steps"], cost["value_stage"]) == (200, flops)
    assert facts(plan("rho1_wmtp", "--json"))["memory"]["value_head"] == 0


def test_a_person_reads_what_is_scored_and_what_it_costs(plan, zoo):
    lines = plan("critic_wmtp").stdout.splitlines()
    assert any(line.startswith(f"  reward: the reward of each document by rm ({zoo}/rm), about ") for line in lines)
    assert "  value heads: 11,012 parameters; documents in 2 folds" in lines
    assert any(line.startswith("  value heads alone: ") and "200 optimizer steps" in line for line in lines)
    assert "  reward: the number 'tests_passed' of each document in data.train" in plan("critic_column").stdout
    assert "of each batch while training" in plan("rho1_online").stdout


def test_a_pattern_that_matches_nothing_is_named(plan, tmp_path):
    for field in ("train", "validation"):
        result = plan(
            "baseline_mtp", f"data.{field}={{files: [{tmp_path}/*.txt], format: text}}", "data.train.text=text"
        )
        assert result.exit_code == 1
        assert f"data.{field}.files: '{tmp_path}/*.txt' matches no file" in result.stderr


def test_a_reward_column_that_is_missing_is_named_with_the_keys_found(plan, tmp_path):
    result = plan("critic_column", "critic.reward_column=test_passed")
    assert result.exit_code == 1
    assert f"{tmp_path}/data.jsonl:1: the key 'test_passed' is missing" in result.stderr
    assert "did you mean 'tests_passed'?" in result.stderr


def test_a_key_of_the_data_that_is_missing_is_named(plan, tmp_path):
    result = plan("baseline_mtp", "data.train.completion=solution")
    assert result.exit_code == 1
    assert f"{tmp_path}/data.jsonl:1: the key 'solution' is missing; keys found: 'text', 'code'" in result.stderr
    assert "set data.train.completion in the recipe" in result.stderr


def test_plain_text_has_no_reward_column(plan, tmp_path):
    (tmp_path / "code.txt").write_text(CODE_LINES[0])
    source = f"{{files: [{tmp_path}/code.txt], format: text}}"
    result = plan("critic_column", "data.validation=null", f"data.train={source}")
    assert result.exit_code == 1
    assert "a text file has no key 'tests_passed'" in result.stderr


def test_a_plan_and_a_run_refuse_the_same_data_in_the_same_words(plan, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "t", "code": "c"}\n{"text": "t", "code": NaN}\n{"text": "t"}\n[]\n')
    result = plan("baseline_mtp")
    assert result.exit_code == 1
    source = DataSource(files=[f"{tmp_path}/data.jsonl"], format="prompt_completion", prompt="text", completion="code")
    with pytest.raises(DataError) as caught:
        read_documents(source, field="data.train")
    assert f"error: {caught.value}\nmore: " in result.stderr
    assert len(caught.value.faults) == 3


def test_data_without_a_document_has_no_plan(plan, tmp_path):
    (tmp_path / "data.jsonl").write_text("[\n]\n")
    result = plan("baseline_mtp")
    assert result.exit_code == 1
    assert f"error: data.train.files: there is no document in '{tmp_path}/data.jsonl'" in result.stderr


def test_faulty_validation_data_is_told_too(plan, tmp_path):
    (tmp_path / "valid.jsonl").write_text('{"text": "t", "code": 1}\n')
    result = plan("baseline_mtp", f"data.validation={{files: [{tmp_path}/valid.jsonl]}}")
    assert result.exit_code == 1
    assert f"{tmp_path}/valid.jsonl:1: 'code' is 1, expected text" in result.stderr


@pytest.mark.parametrize("form", ["array", "indented", "objects", "gzip"])
def test_every_form_of_json_is_estimated_alike(plan, tmp_path, form):
    lines = [{"text": "a" * 400, "code": "b" * 500} for _ in range(500)]
    whole = {
        "array": json.dumps(lines),
        "indented": json.dumps(lines, indent=1),
        "objects": "\n".join(json.dumps(line, indent=1) for line in lines),
        "gzip": "\n".join(map(json.dumps, lines)) + "\n",
    }[form].encode()
    (tmp_path / "data.jsonl").write_bytes(gzip.compress(whole) if form == "gzip" else whole)
    found = facts(plan("baseline_mtp", "--json", "data.validation=null"))["data"]
    assert found["documents"] == pytest.approx(500, rel=2e-2)
    # With the newline of the recipe's template.
    assert found["tokens"] == pytest.approx(500 * (num_tokens(f"{'a' * 400}\n{'b' * 500}") + 1), rel=2e-2)


def test_a_first_document_longer_than_the_sample_is_read_whole(plan, tmp_path):
    lines = [{"text": "task", "code": "c" * 300_000} for _ in range(8)]
    for text in ("\n".join(map(json.dumps, lines)), json.dumps(lines), json.dumps(lines[0], indent=1)):
        (tmp_path / "data.jsonl").write_text(text)
        found = facts(plan("baseline_mtp", "--json", "data.validation=null"))["data"]
        documents = 1 if text.startswith("{\n") else 8
        assert found["documents"] == pytest.approx(documents, abs=1)
        assert found["tokens"] == pytest.approx(documents * 300_005, rel=0.15)  # a letter a token


def test_what_a_directory_holds_besides_is_in_the_plan(plan, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.json").write_text('[{"text": "t", "code": "c"}]')
    for name in ("b.parquet", "c.parquet", "notes.md"):
        (tmp_path / "set" / name).write_text("x")
    result = plan("baseline_mtp", f"data.train.files=[{tmp_path}/set]", "data.validation=null")
    left = "left out of directories: 2 *.parquet ('b.parquet', 'c.parquet'); 1 *.md ('notes.md')"
    assert f"data.train: {left}" in result.stdout.splitlines()


def test_planning_imports_no_torch(plan, tmp_path):
    assert plan("critic_wmtp").exit_code == 0  # writes config and data
    words = ["plan", "--config", tmp_path / "config.yaml", "--recipe", RECIPES[0].with_name("critic_wmtp.yaml")]
    code = "import sys\nfrom wmtp.cli.main import app\ntry:\n    app()\nfinally:\n    print(*sys.modules)"
    command = [sys.executable, "-c", code, *map(str, words), f"data.train.files=[{tmp_path}/data.jsonl]"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("parts", [1, 3])
def test_documents_of_a_small_file_by_gzip_are_counted_and_not_guessed(tmp_path, parts):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "one"}\n') * parts)
    assert (
        estimate_data(Data.model_validate({"train": {"files": [str(path)]}}), [], TokenCounter(None)).documents == parts
    )


def test_what_is_not_trained_has_no_gradients_and_costs_less(plan, zoo):
    everything = facts(plan("baseline_mtp", "--json"))
    found = facts(plan("baseline_mtp", "--json", "train.trainable=heads"))
    trained, total = found["trained"], everything["models"]["base"]["num_parameters"]
    assert (everything["trained"]["what"], everything["trained"]["trunk"]) == ("all", total)
    assert (trained["what"], trained["trunk"] + trained["heads"]) == ("heads", total)
    assert found["memory"]["gradients"] == 4 * trained["heads"]
    assert found["memory"]["optimizer"] == 8 * trained["heads"]
    assert found["memory"]["weights"] == everything["memory"]["weights"]
    assert found["cost"]["training"] == found["cost"]["tokens"] * (2 * trained["trunk"] + 6 * trained["heads"])
    frozen = facts(plan("baseline_mtp", "--json", "mtp.trunk=frozen"))
    assert frozen["trained"] == trained
    assert (
        f"trained: heads alone, {trained['heads']:,} parameters; the trunk"
        in plan("baseline_mtp", "train.trainable=heads").stdout
    )


def test_heads_beyond_the_horizon_are_not_among_the_trained(plan):
    counts = {h: facts(plan("baseline_mtp", "--json", "train.trainable=heads", f"mtp.horizon={h}")) for h in (2, 4)}
    assert counts[4]["trained"]["heads"] == 3 * counts[2]["trained"]["heads"]


def test_adapters_are_counted_by_rank_and_layers(plan):
    words = ["train.trainable=lora", "train.lora={r: 4, target_modules: [q_proj, layers.1.mlp.up_proj]}"]
    found = facts(plan("baseline_mtp", "--json", *words))
    trained = found["trained"]
    assert (trained["adapted_layers"], trained["adapters"]) == (3, 4 * (32 + 32 + 32 + 32 + 48 + 32))
    assert found["memory"]["gradients"] == 4 * (trained["heads"] + trained["adapters"])
    assert facts(plan("baseline_mtp", "--json", "train.trainable=lora"))["trained"]["adapted_layers"] == 14
    assert (
        "trained: adapters on 3 layers of the trunk, 832 parameters, and heads" in plan("baseline_mtp", *words).stdout
    )


def test_heads_that_learn_first_save_compute_for_as_many_steps(plan):
    found = facts(plan("baseline_mtp", "--json", "train.heads_warmup_steps=1000"))
    tokens, trained = found["cost"]["tokens"] // 3, found["trained"]
    alone = 2 * trained["trunk"] + 6 * trained["heads"]
    assert found["cost"]["training"] == tokens * (alone + 2 * 6 * (trained["trunk"] + trained["heads"]))
    assert "trained at first: heads alone" in plan("baseline_mtp", "train.heads_warmup_steps=1000").stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train.trainable=heads", "mtp.horizon=1"], "train.trainable is heads, and only the next-token head is"),
        (["mtp.trunk=frozen", "mtp.horizon=1"], "mtp.trunk is frozen, and only the next-token head is trained"),
        (["train.heads_warmup_steps=3000"], "train.heads_warmup_steps is 3000, and the run has 3000 optimizer steps"),
        (["train.trainable=lora", "train.lora={target_modules: [query]}"], "names 'query', and"),
    ],
)
def test_a_plan_refuses_what_cannot_be_trained(plan, words, message):
    result = plan("baseline_mtp", *words)
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            {"loader_type": "huggingface", "transformers_class": "LlamaForCausalLM"},
            "the base model has no heads besides the next-token head, which is the trunk's own",
        ),
        (
            {"loader_type": "custom_mtp", "model_class_name": "Own", "custom_module_file": "modeling.py"},
            "the class of {base} does not say what its trunk is",
        ),
    ],
)
def test_a_model_that_has_no_other_heads_or_shows_no_trunk_is_known_by_its_metadata(
    plan, zoo, tmp_path, strategy, message
):
    base = shutil.copytree(zoo / "ref", tmp_path / "one")
    (base / "modeling.py").write_text("raise SystemExit")
    document = json.loads((base / "metadata.json").read_text())
    declared = {"wmtp_type": "base_model", "loading_strategy": {"required_files": ["config.json"], **strategy}}
    (base / "metadata.json").write_text(json.dumps(document | declared))
    result = plan("baseline_mtp", f"paths.models.base={base}", "mtp.horizon=null", "train.trainable=heads")
    assert result.exit_code == 1
    assert message.format(base=base) in result.stderr


@pytest.mark.parametrize(
    ("bits", "bytes_of_a_weight"), [pytest.param("int8", 1, marks=pytest.mark.slow), ("nf4", 0.5625)]
)
def test_a_reference_in_fewer_bits_takes_less_memory(plan, bits, bytes_of_a_weight):
    full, few = (
        facts(plan("rho1_online", "--json")),
        facts(plan("rho1_online", "--json", f"devices.quantize.ref={bits}")),
    )
    in_layers = 2 * (4 * 32 * 32 - 2 * 32 * 16 + 3 * 32 * 48)
    saved = full["memory"]["other_models"] - few["memory"]["other_models"]
    assert saved == in_layers * (4 - bytes_of_a_weight)
    assert any(note.startswith(f"ref scores with its linear layers in {bits}, by ") for note in few["notes"])
