import json
from pathlib import Path

import pytest

import wmtp
from checkpoints import llama_metadata, write_custom, write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from wmtp.authoring.upgrade import upgrade_metadata, write_upgrade
from wmtp.errors import MetadataError, NotFoundError

OLDER = sorted((Path(__file__).parent.parent / "contracts" / "metadata" / "older").glob("*.json"))

# As public scripts of 2025 wrote it.
STANDARDIZED = {
    "wmtp_type": "mtp_native",
    "training_algorithm": "mtp",
    "horizon": 3,
    "n_heads": 3,
    "base_architecture": "toy",
    "model_size": "7b",
    "storage_version": "2.0",
    "created_by": "s3_standardize_all",
    "original_format": "consolidated_pth",
    "source_path": "s3://bucket/models_v2/llama-7b-mtp",
    "conversion_metadata": {"converter_version": "wmtp-v2.0"},
    "loading_strategy": {
        "loader_type": "custom_mtp",
        "model_class_name": "ToyModel",
        "custom_module_file": "modeling.py",
        "transformers_class": None,
        "state_dict_mapping": {"remove_prefix": "", "add_prefix": None, "key_transforms": {}},
        "required_files": ["config.json", "pytorch_model.bin", "modeling.py", "metadata.json"],
    },
    "algorithm_compatibility": ["baseline_mtp", "critic-wmtp", "rho1-wmtp", "ppo-wmtp"],
}


def written(directory, document):
    (directory / "metadata.json").write_text(json.dumps(document))
    return directory


def test_a_public_variant_becomes_metadata_that_loads(tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    found = upgrade_metadata(written(tmp_path / "toy", STANDARDIZED))
    new = found.metadata
    assert (new.wmtp_type, new.training_algorithm, new.num_heads) == ("base_model", "mtp", 3)
    assert new.algorithm_compatibility == ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]
    assert new.loading_strategy.required_files == ["config.json", "modeling.py", "metadata.json", "model.safetensors"]
    assert new.loading_strategy.state_dict_mapping.remove_prefix is None
    assert new.extra == {"conversion_metadata": {"converter_version": "wmtp-v2.0"}}
    assert new.source_path == "s3://bucket/models_v2/llama-7b-mtp"
    write_upgrade(tmp_path / "toy", found)
    wmtp.load_model(tmp_path / "toy", allow_code=consent)


def test_everything_guessed_moved_or_dropped_is_noted(tmp_path):
    write_custom(tmp_path / "toy")
    notes = upgrade_metadata(written(tmp_path / "toy", STANDARDIZED)).notes
    assert notes == (
        "moved to extra, as 2.0 has no such fields: 'conversion_metadata'",
        "wmtp_type: 'mtp_native' is now 'base_model'",
        "required_files: not there, so taken out: 'pytorch_model.bin'",
        "required_files: put in: 'model.safetensors'",
        "algorithm_compatibility: taken out, as no such algorithm is registered: ['ppo-wmtp']",
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"training_algorithm": "base_training"}, "baseline"),
        ({"training_algorithm": "base_training", "horizon": 4}, "mtp"),
        ({"training_algorithm": "base_training", "horizon": 4, "wmtp_type": "reference_model"}, "baseline"),
        ({"training_algorithm": "sheared_training"}, "baseline"),
        ({"training_algorithm": "reward_modeling", "wmtp_type": "reward_model"}, "critic"),
        ({"training_algorithm": "baseline_mtp", "wmtp_type": "mtp_model"}, "baseline"),
        ({"training_algorithm": "unknown"}, "baseline"),
        ({"training_algorithm": None}, "baseline"),
    ],
)
def test_older_spellings_of_the_training_algorithm(tmp_path, old, new):
    write_llama_checkpoint(tmp_path)
    written(tmp_path, llama_metadata(wmtp_type="base_model") | old)
    assert upgrade_metadata(tmp_path).metadata.training_algorithm == new


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_a_file_without_loading_strategy_gets_the_one_that_init_would_draft(tmp_path, path):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(heads=4))
    found = upgrade_metadata(written(tmp_path / "mtp", json.loads(path.read_text())))
    assert found.metadata.wmtp_type == "base_model"
    assert found.metadata.base_architecture == "llama"
    assert found.metadata.loading_strategy.model_class_name == "MTPForCausalLM"
    assert any(note.startswith("loading_strategy: drafted; ") for note in found.notes)
    write_upgrade(tmp_path / "mtp", found)
    wmtp.load_model(tmp_path / "mtp")


def test_an_up_to_date_file_is_left_alone(tmp_path):
    assert upgrade_metadata(write_llama_checkpoint(tmp_path)) is None


def test_what_has_no_counterpart_is_named_in_full(tmp_path):
    write_llama_checkpoint(tmp_path)
    written(tmp_path, llama_metadata(wmtp_type="student", training_algorithm="distillation"))
    with pytest.raises(MetadataError) as caught:
        upgrade_metadata(tmp_path)
    assert caught.value.problem == f"{tmp_path}/metadata.json, upgraded: 2 faults"
    assert "wmtp_type is 'student'" in caught.value.faults[0]
    assert "training_algorithm is 'distillation'" in caught.value.faults[1]


@pytest.mark.parametrize(
    "odd",
    [
        {"loading_strategy": []},
        {"loading_strategy": {"required_files": [{}, 3, "config.json", "config.json"]}},
        {"loading_strategy": {"loader_type": "huggingface", "state_dict_mapping": "x"}},
        {"algorithm_compatibility": "rho1", "wmtp_type": {}},
        {"extra": "text", "odd": 1, "training_algorithm": ["mtp"]},
        {"horizon": True, "n_heads": "4", "training_algorithm": "base_training"},
    ],
    ids=str,
)
def test_a_file_of_the_wrong_shape_is_a_typed_error(tmp_path, odd):
    write_llama_checkpoint(tmp_path)
    written(tmp_path, llama_metadata() | odd)
    with pytest.raises(MetadataError):
        upgrade_metadata(tmp_path)


def test_the_old_file_is_kept_byte_for_byte(tmp_path):
    write_llama_checkpoint(tmp_path)
    old = written(tmp_path, llama_metadata(training_algorithm="sheared_training")) / "metadata.json"
    before = old.read_bytes()
    backup = write_upgrade(tmp_path, upgrade_metadata(tmp_path))
    assert backup.read_bytes() == before
    assert old.read_bytes() != before
    assert upgrade_metadata(tmp_path) is None


def test_a_directory_without_metadata_points_to_init(tmp_path):
    with pytest.raises(NotFoundError, match=r"metadata\.json: no such file") as caught:
        upgrade_metadata(tmp_path)
    assert caught.value.hint == f"draft one with 'wmtp init {tmp_path}'"
