"""ls, inspect, validate, load."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import change_tensors, write_custom
from made_models import MAPPINGS, declare, save_model
from native_files import write_native
from tiny_tokenizer import build_tokenizer
from wmtp.manifest import digest_file
from wmtp.publishing.publish import publish_directory


def test_ls_lists_every_model_below_a_directory(wmtp, llama):
    shutil.copytree(llama, llama.parent / "deep" / "er")
    result = wmtp("ls", llama.parent)
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["NAME", "TYPE", "ARCHITECTURE", "SIZE", "HEADS", "ALGORITHMS"]
    assert first.split() == ["deep/er", "reference_model", "llama", *first.split()[3:5], "1", "rho1-wmtp"]
    assert second.startswith("llama ")


def test_ls_goes_on_after_a_malformed_metadata(wmtp, llama, edit_metadata):
    edit_metadata(shutil.copytree(llama, llama.parent / "broken"), wmtp_type="student_model", horizn=3)
    result = wmtp("ls", llama.parent)
    assert result.exit_code == 0
    assert f"broken: {llama.parent}/broken/metadata.json: 2 faults" in result.stdout
    assert "\nllama " in result.stdout
    listed = json.loads(wmtp("ls", llama.parent, "--json").stdout)["models"]
    assert [(model["name"], "error" in model) for model in listed] == [("broken", True), ("llama", False)]
    assert listed[1]["size_bytes"] == sum(file.stat().st_size for file in llama.iterdir())


def test_ls_of_a_checkpoint_itself_lists_it(wmtp, llama):
    assert wmtp("ls", llama).stdout.splitlines()[1].startswith(". ")


def test_ls_leaves_out_checkpoints_in_the_making(wmtp, llama):
    llama.rename(llama.with_name("step-5.tmp-0123456789abcdef0123456789abcdef"))
    assert json.loads(wmtp("ls", llama.parent, "--json").stdout)["models"] == []


def test_inspect_counts_tensors_and_parameters_from_headers(wmtp, llama):
    tensors = load_file(llama / "model.safetensors")
    facts = json.loads(wmtp("inspect", llama, "--json").stdout)
    assert facts["num_tensors"] == len(tensors)
    assert facts["num_parameters"] == sum(tensor.numel() for tensor in tensors.values())
    assert facts["dtypes"] == {"F32": {"num_tensors": len(tensors), "num_parameters": facts["num_parameters"]}}
    assert facts["metadata"]["loading_strategy"]["transformers_class"] == "LlamaForCausalLM"
    assert {"name": "model.safetensors", "size_bytes": (llama / "model.safetensors").stat().st_size} in facts["files"]
    assert "tensors" not in facts


def test_inspect_lists_tensors_when_asked(wmtp, llama):
    shown = wmtp("inspect", llama, "--tensors").stdout
    assert "llama, 1 head\n" in shown
    assert any(line.split() == ["model.norm.weight", "F32", "[32]", "model.safetensors"] for line in shown.splitlines())
    assert "model.norm.weight" not in wmtp("inspect", llama).stdout


def test_foreign_text_reaches_no_terminal_as_it_is(wmtp, llama):
    weights = load_file(llama / "model.safetensors")
    save_file(weights, llama / "model.safetensors")
    (llama / "notes\x1b[2Jé.txt").write_text("x")
    shown = wmtp("inspect", llama).stdout
    assert "notes\\x1b[2J\\xe9.txt" in shown
    assert "\x1b" not in shown


def test_validate_proves_the_plan(wmtp, llama):
    result = wmtp("validate", llama)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1].startswith("proven: every parameter has its tensor")
    facts = json.loads(wmtp("validate", llama, "--json").stdout)
    assert (facts["valid"], facts["proven"], facts["left"]) == (True, True, [])
    assert facts["plan"]["model_class"] == "LlamaForCausalLM"


def test_validate_names_every_fault_and_exits_with_1(wmtp, llama):
    tensors = load_file(llama / "model.safetensors")
    tensors["stray"] = tensors.pop("model.norm.weight")
    save_file(tensors, llama / "model.safetensors")
    result = wmtp("validate", llama, "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["type"] == "PlanError"
    file = " in model.safetensors"
    assert {f"missing: no tensor for model.norm.weight{file}", f"unexpected: no parameter for stray{file}"} <= set(
        error["faults"]
    )


def test_what_is_made_of_what_is_shown_before_and_after_loading(wmtp, tmp_path):
    save_model(tmp_path, "mixtral")
    stored = "model.layers.{i}.block_sparse_moe.experts.{e}"
    down = "model.layers.{i}.mlp.experts.down_proj"
    assert f"  made        {down} of {stored}.w2.weight by stack\n" in wmtp("inspect", tmp_path).stdout
    assert f"\n{down}: 2 parameters made of 8 tensors\n" in wmtp("validate", "--deep", tmp_path).stdout
    assert f"\ntensors '{down}': 2 parameters made of 8 tensors\n" in wmtp("load", tmp_path).stdout


def test_native_heads_are_shown_by_kind_layout_and_conventions(wmtp, tmp_path):
    write_native(tmp_path / "m", "mellum")
    assert wmtp("init", tmp_path / "m").exit_code == 0
    shown = wmtp("inspect", tmp_path / "m").stdout
    assert "  heads       sequential of the type deepseek: 1 native module after the trunk's next-token head\n" in shown
    assert " tensors in mtp.fc, mtp.layers.0, mtp.norm, mtp.pre_fc_norm_embedding, mtp.pre_fc_norm_hidden\n" in shown
    assert "  conventions hidden after_norm, concatenation embedding_hidden, first_embedding kept, " in shown
    assert "input_norms true" in shown
    facts = json.loads(wmtp("inspect", tmp_path / "m", "--json").stdout)
    assert [(head["head"], head["begins"][0]) for head in facts["heads"]] == [(2, "mtp.fc")]
    change_tensors(tmp_path / "m", lambda held: held.pop("mtp.fc.weight"))
    assert wmtp("inspect", tmp_path / "m").exit_code == 0  # what does not fit is for validate to say
    assert "head 2, which is declared, lacks its heads.2.eh_proj" in wmtp("validate", tmp_path / "m").stderr


def test_values_in_fewer_bits_are_shown_with_what_they_become(wmtp, tmp_path):
    save_model(tmp_path, "llama")
    name = "model.layers.{i}.mlp.up_proj.weight"
    rule = {"dequantise": "fp8_block", "block": [16, 16], "of": name, "scales": f"{name}_scale_inv"}
    declare(tmp_path, "llama", {"tensors": {name: rule}})
    change_tensors(tmp_path, lambda held: held.update({"w": torch.zeros(2).to(torch.float8_e4m3fn)}))
    shown = wmtp("inspect", tmp_path).stdout
    assert f"  made        {name} of {name}, {name}_scale_inv by dequantise\n" in shown
    assert "  F8_E4M3     1 tensor, 2 parameters, loaded as BF16\n" in shown


def test_a_rule_for_what_is_no_parameter_is_refused_with_what_it_would_make(wmtp, tmp_path):
    save_model(tmp_path, "mixtral")
    tensors = dict(MAPPINGS["mixtral"]["tensors"])
    tensors["model.layers.{i}.mlp.down"] = tensors.pop("model.layers.{i}.mlp.experts.down_proj")
    declare(tmp_path, "mixtral", {**MAPPINGS["mixtral"], "tensors": tensors})
    result = wmtp("validate", tmp_path)
    assert result.exit_code == 1
    assert "no parameter model.layers.0.mlp.down, which the rule for model.layers.{i}.mlp.down makes" in result.stderr
    assert "of model.layers.0.block_sparse_moe.experts.0.w2.weight and 3 more" in result.stderr
    assert "hint: mend the names in state_dict_mapping.tensors" in result.stderr


def test_validate_without_consent_checks_all_else_and_says_what_is_left(wmtp, tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    result = wmtp("validate", tmp_path / "toy")
    assert result.exit_code == 0
    assert "metadata, files, headers and mapping are in order" in result.stdout
    assert f"--allow-code modeling.py={consent['modeling.py']}" in result.stdout
    facts = json.loads(wmtp("validate", tmp_path / "toy", "--json").stdout)
    assert (facts["proven"], len(facts["left"])) == (False, 1)


def test_validate_with_consent_proves_a_class_of_the_checkpoint(wmtp, tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    agreed = f"modeling.py={consent['modeling.py']}"
    assert "proven" in wmtp("validate", tmp_path / "toy", "--allow-code", agreed).stdout
    refused = wmtp("validate", tmp_path / "toy", "--allow-code", f"modeling.py=sha256:{'0' * 64}")
    assert refused.exit_code == 1
    assert "consent was given for 'sha256:000" in refused.stderr


def test_validate_without_consent_still_refuses_a_mapping_that_matches_nothing(wmtp, tmp_path, edit_metadata):
    write_custom(tmp_path / "toy")
    strategy = json.loads((tmp_path / "toy" / "metadata.json").read_text())["loading_strategy"]
    edit_metadata(
        tmp_path / "toy", loading_strategy={**strategy, "state_dict_mapping": {"remove_prefix": "base_model."}}
    )
    result = wmtp("validate", tmp_path / "toy")
    assert result.exit_code == 1
    assert "remove_prefix 'base_model.' matches no tensor" in result.stderr


def test_validate_deep_names_tensors_that_are_not_finite(wmtp, llama):
    tensors = load_file(llama / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    tensors["lm_head.weight"][0, :2] = torch.inf
    save_file(tensors, llama / "model.safetensors")
    assert wmtp("validate", llama).exit_code == 0
    result = wmtp("validate", llama, "--deep")
    assert result.exit_code == 1
    assert "2 tensors have values that are not finite" in result.stderr
    assert "'model.norm.weight' in 'model.safetensors': 1 NaN, 0 infinite" in result.stderr
    assert "'lm_head.weight' in 'model.safetensors': 0 NaN, 2 infinite" in result.stderr


def test_validate_deep_checks_the_digests_of_metadata(wmtp, llama, edit_metadata):
    edit_metadata(llama, files=[digest_file(llama, "config.json").model_dump()])
    assert "1 files have the digests that metadata.json gives" in wmtp("validate", llama, "--deep").stdout
    with (llama / "config.json").open("a") as file:
        file.write(" ")
    result = wmtp("validate", llama, "--deep")
    assert result.exit_code == 1
    assert "config.json has sha256 " in result.stderr


def test_load_prints_what_was_loaded(wmtp, llama):
    result = wmtp("load", llama, "--dtype", "bfloat16")
    assert result.exit_code == 0
    assert result.stdout.startswith("LlamaForCausalLM on cpu: ")
    assert "cast from F32 to BF16" in result.stdout
    receipt = json.loads(wmtp("load", llama, "--json").stdout)
    assert {entry["loaded_dtype"] for entry in receipt["parameters"]} == {"F32"}


def test_a_published_checkpoint_may_have_its_metadata_edited(wmtp, llama, tmp_path, edit_metadata):
    with publish_directory(tmp_path / "published") as draft:
        for path in llama.iterdir():
            shutil.copy(path, draft)
    edit_metadata(tmp_path / "published", algorithm_compatibility=[])
    assert wmtp("validate", tmp_path / "published", "--deep").exit_code == 0
    with (tmp_path / "published" / "config.json").open("a") as file:
        file.write(" ")
    result = wmtp("validate", tmp_path / "published", "--deep")
    assert result.exit_code == 1
    assert "config.json has sha256 " in result.stderr


def test_validate_compares_the_tokenizer_with_its_fingerprint(wmtp, llama, edit_metadata):
    build_tokenizer().save_pretrained(llama)
    edit_metadata(llama, tokenizer={"sha256": "0" * 64})
    result = wmtp("validate", llama)
    assert result.exit_code == 1
    assert f"tokenizer.sha256 is {'0' * 64}, that of tokenizer.json is " in result.stderr


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8\n"
SMALL = ("metadata.json", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", [*SMALL, "model.safetensors", "merges.txt", "added_tokens.json", "manifest.json"])
def test_a_git_lfs_pointer_is_called_one_in_any_file(wmtp, llama, name):
    (llama / name).write_text(POINTER)
    refused = wmtp("validate", llama, "--deep")
    assert refused.exit_code == 1
    assert f"error: {llama}/{name}: this is a Git LFS pointer, not " in refused.stderr
    assert "hint: fetch the real file: 'git lfs pull' in the clone that it came from" in refused.stderr


def test_a_git_lfs_pointer_in_the_place_of_an_index_is_called_one(wmtp, llama):
    (llama / "model.safetensors").rename(llama / "other.safetensors")
    (llama / "model.safetensors.index.json").write_text(POINTER)
    document = json.loads((llama / "metadata.json").read_text())
    document["loading_strategy"]["required_files"] = ["config.json"]
    (llama / "metadata.json").write_text(json.dumps(document))
    for words in (("inspect", llama), ("load", llama), ("convert", llama, llama.parent / "made")):
        assert "model.safetensors.index.json: this is a Git LFS pointer" in wmtp(*words).stderr


def test_a_git_lfs_pointer_in_the_place_of_code_is_called_one_and_never_agreed_to(wmtp, tmp_path):
    write_custom(tmp_path / "toy")
    (tmp_path / "toy/modeling.py").write_text(POINTER)
    for words in (("trust", tmp_path / "toy", "--yes"), ("load", tmp_path / "toy"), ("validate", tmp_path / "toy")):
        refused = wmtp(*words)
        assert refused.exit_code == 1
        assert "modeling.py: this is a Git LFS pointer, not the file itself" in refused.stderr


def test_load_says_in_its_log_and_in_its_receipt_what_it_cast(wmtp, llama):
    tensors = load_file(llama / "model.safetensors")
    norms = sum("norm" in name for name in tensors)
    stored = {name: tensor if "norm" in name else tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(stored, llama / "model.safetensors", {"format": "pt"})
    result = wmtp("load", llama)
    assert f"cast from F32 to BF16: {norms} tensors" in result.stdout
    assert f"{llama}: {norms} tensors are cast from F32 to BF16" in result.stderr
    assert f"cast from F32 to BF16: {norms} tensors" in wmtp("validate", llama).stdout
    asked = wmtp("load", llama, "--dtype", "float32")
    assert f"{llama}: {len(tensors) - norms} tensors are cast from BF16 to F32" in asked.stderr
