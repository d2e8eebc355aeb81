"""init, upgrade, grow, export."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3_5ForConditionalGeneration

import wmtp as library
from native_files import write_vision_language


def test_init_writes_a_draft_that_validates_and_says_what_to_check(wmtp, llama):
    (llama / "metadata.json").unlink()
    result = wmtp("init", llama)
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((llama / "metadata.json").read_text())
    assert "wmtp_type: reference_model" in result.stderr
    assert wmtp("validate", llama).exit_code == 0


def test_init_never_overwrites(wmtp, llama):
    before = (llama / "metadata.json").read_bytes()
    result = wmtp("init", llama)
    assert result.exit_code == 1
    assert f"error: {llama}/metadata.json: already there" in result.stderr
    assert "for another draft, such as of another class, move it away first" in result.stderr
    assert (llama / "metadata.json").read_bytes() == before


def test_upgrade_shows_a_diff_and_writes_only_with_yes(wmtp, llama, edit_metadata):
    edit_metadata(llama, training_algorithm="sheared_training")
    before = (llama / "metadata.json").read_bytes()
    shown = wmtp("upgrade", llama)
    assert shown.exit_code == 0
    assert '-  "training_algorithm": "sheared_training",' in shown.stdout.splitlines()
    assert '+  "training_algorithm": "baseline",' in shown.stdout.splitlines()
    assert "nothing was written" in shown.stderr
    assert (llama / "metadata.json").read_bytes() == before
    assert wmtp("upgrade", llama, "--yes").exit_code == 0
    assert (llama / "metadata.json.bak").read_bytes() == before
    assert wmtp("validate", llama).exit_code == 0
    assert "is up to date" in wmtp("upgrade", llama).stdout


def test_upgrade_never_overwrites_an_older_backup(wmtp, llama, edit_metadata):
    edit_metadata(llama, training_algorithm="sheared_training")
    (llama / "metadata.json.bak").write_text("precious")
    before = (llama / "metadata.json").read_bytes()
    result = wmtp("upgrade", llama, "--yes")
    assert result.exit_code == 1
    assert "an older backup is there" in result.stderr
    assert (llama / "metadata.json.bak").read_text() == "precious"
    assert (llama / "metadata.json").read_bytes() == before


@pytest.mark.parametrize("head_type", ["linear", "transformer", "resblock"])
def test_grow_then_export_gives_the_source_back(wmtp, llama, tmp_path, head_type):
    grown, exported = tmp_path / "grown", tmp_path / "exported"
    result = wmtp("grow", llama, grown, "--heads", "3", "--head-type", head_type)
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()[-3:]] == ["  head 1", "  head 2", "  head 3"]
    assert ("--head-type resblock" if head_type == "transformer" else "--to vllm-medusa") in result.stderr
    assert wmtp("validate", grown, "--deep").exit_code == 0
    assert wmtp("export", grown, exported).stdout == f"wrote {exported}\n"
    ids = torch.arange(8).unsqueeze(0)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(exported)(ids).logits
        assert torch.equal(plain, library.load_model(llama)(ids).logits)


def test_grow_overwrites_nothing(wmtp, llama, tmp_path):
    (tmp_path / "there").mkdir()
    result = wmtp("grow", llama, tmp_path / "there", "--heads", "2", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["type"] == "StorageError"
    assert list((tmp_path / "there").iterdir()) == []


def test_blocks_are_declared_and_refused_where_heads_have_none(wmtp, llama, tmp_path):
    words = ("--heads", "2", "--num-blocks", "2", "--shared-unembedding")
    assert wmtp("grow", llama, tmp_path / "grown", *words, "--head-type", "resblock").exit_code == 0
    assert json.loads((tmp_path / "grown" / "config.json").read_text())["mtp_config"] == {
        "n_future_tokens": 2, "head_type": "resblock", "num_blocks": 2, "block_bias": False, "shared_unembedding": True
    }  # fmt: skip
    refused = wmtp("grow", llama, tmp_path / "linear", *words, "--head-type", "linear")
    assert refused.exit_code == 1
    assert "num_blocks is 2, and head_type 'linear' has no use for it" in refused.stderr
    assert not (tmp_path / "linear").exists()


@pytest.mark.parametrize(
    ("target", "file"), [("medusa", "medusa_lm_head.safetensors"), ("vllm-medusa", "model.safetensors")]
)
def test_heads_are_exported_for_servers_and_the_next_step_is_said(wmtp, llama, tmp_path, target, file):
    wmtp("grow", llama, tmp_path / "grown", "--heads", "3", "--head-type", "resblock")
    result = wmtp("export", tmp_path / "grown", tmp_path / "heads", "--to", target)
    assert result.stdout == f"wrote {tmp_path / 'heads'}\n"
    assert f"export the trunk too (wmtp export {tmp_path / 'grown'} TRUNK)" in result.stderr
    assert ('"num_speculative_tokens": 2}' in result.stderr) is (target == "vllm-medusa")
    assert (tmp_path / "heads" / file).is_file()


def test_an_export_of_a_trunk_names_the_class_that_loads_it(wmtp, tmp_path):
    write_vision_language(tmp_path / "m")
    assert wmtp("init", tmp_path / "m").exit_code == 0
    for words, name in ((("--to", "native", "--drop-heads"), "dropped"), ((), "plain")):
        result = wmtp("export", tmp_path / "m", tmp_path / name, *words)
        assert "it loads with Qwen3_5ForConditionalGeneration.from_pretrained, as head 1 alone" in result.stderr
        model, report = Qwen3_5ForConditionalGeneration.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not report["missing_keys"]
        assert model.lm_head.weight.shape == (64, 32)


def test_heads_are_dropped_only_from_a_form_of_both_and_the_hint_says_which(wmtp, tmp_path):
    result = wmtp("export", tmp_path / "m", tmp_path / "made", "--to", "medusa", "--drop-heads")
    assert result.exit_code == 1
    assert "use --drop-heads with --to native; the trunk alone is also what" in result.stderr


def test_an_unknown_reader_is_wrong_usage(wmtp, llama, tmp_path):
    result = wmtp("export", llama, tmp_path / "out", "--to", "vllm-medsua")
    assert result.exit_code == 2
    assert "did you mean 'vllm-medusa'" in " ".join(result.stderr.split())


def test_one_head_is_nothing_to_grow(wmtp, llama, tmp_path):
    assert wmtp("grow", llama, tmp_path / "grown", "--heads", "1").exit_code == 2


@pytest.mark.parametrize(
    "words", [("init", "s3://lab/m"), ("upgrade", "hf://org/name"), ("grow", "src", "s3://lab/m", "--heads", "2"),
              ("export", "src", "gs://lab/m"), ("convert", "src", "az://lab/m"), ("push", "s3://lab/m", "s3://lab/n"),
              ("fetch", "s3://lab/m", "s3://lab/n")]
)  # fmt: skip
def test_an_address_where_a_directory_has_to_be_is_wrong_usage(wmtp, words):
    result = wmtp(*words)
    assert result.exit_code == 2
    assert "is an address, and this has to be a directory on this machine" in " ".join(result.stderr.split())
