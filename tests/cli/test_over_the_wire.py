"""What is asked of a server, and how much of it comes: metadata and headers, never weights."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from servers.environment import use_server
from servers.faulty import FaultyServer

CONFIG = (
    "paths: {models: {base: [s3://lab/zoo/none, s3://lab/zoo/llama, s3://lab/zoo/second]}}\ndevices: {device: cpu}\n"
)
RECIPE = "run: {name: tiny}\ndata: {train: {files: code.txt}}\ntrain: {algo: baseline-mtp, max_steps: 1}\n"
PADDING_BYTES = 5_000_000


@pytest.fixture
def server(monkeypatch, tmp_path):
    with FaultyServer() as server:
        use_server(monkeypatch, server.endpoint, home=tmp_path / "home")
        yield server


@pytest.fixture
def lab(server, llama, edit_metadata):
    """Two models in a bucket whose weights are large beside everything else."""
    metadata = json.loads((llama / "metadata.json").read_text())
    strategy = metadata["loading_strategy"] | {"state_dict_mapping": {"allow_unexpected": ["padding"]}}
    edit_metadata(llama, wmtp_type="base_model", algorithm_compatibility=["baseline-mtp"], loading_strategy=strategy)
    weights = load_file(llama / "model.safetensors")
    save_file({**weights, "padding": torch.zeros(PADDING_BYTES, dtype=torch.uint8)}, llama / "model.safetensors")
    for model in ("llama", "second"):
        for path in llama.iterdir():
            server.put("lab", f"zoo/{model}/{path.name}", path.read_bytes())
    return server


def moved_bytes(server) -> int:
    return sum(request.sent_bytes for request in server.requests)


def asked(server) -> list[str]:
    return sorted({request.key for request in server.requests if request.method != "LIST"})


def test_picking_models_reads_nothing_but_the_metadata_of_each_candidate(lab, tmp_path):
    import wmtp

    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    config, recipe = wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml")
    resolution = wmtp.resolve_models(config, recipe)
    assert resolution.chosen["base"].uri == "s3://lab/zoo/llama"
    assert asked(lab) == ["zoo/llama/metadata.json", "zoo/none/metadata.json"]
    assert lab.asked("LIST") == []


def test_inspect_reads_metadata_and_headers(lab, wmtp):
    facts = json.loads(wmtp("inspect", "s3://lab/zoo/llama", "--json").stdout)
    assert facts["tensor_bytes"] > PADDING_BYTES
    assert asked(lab) == ["zoo/llama/metadata.json", "zoo/llama/model.safetensors"]
    assert moved_bytes(lab) < 200_000


def test_plan_and_validate_read_small_files_and_headers(lab, wmtp, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "code.txt").write_text("x = 1\n")
    for command in (
        ["plan", "--config", tmp_path / "config.yaml", "--recipe", tmp_path / "recipe.yaml"],
        ["validate", "s3://lab/zoo/llama"],
    ):
        lab.heal()
        result = wmtp(*command, "--json")
        assert result.exit_code == 0, result.stdout
        assert moved_bytes(lab) < 1_000_000


def test_a_catalogue_is_listed_once_and_its_metadata_read_at_once(lab, wmtp):
    listed = json.loads(wmtp("ls", "s3://lab/zoo", "--json").stdout)
    assert [model["name"] for model in listed["models"]] == ["llama", "second"]
    assert all(model["size_bytes"] > PADDING_BYTES for model in listed["models"])
    assert len(lab.asked("LIST")) == 1
    assert asked(lab) == ["zoo/llama/metadata.json", "zoo/second/metadata.json"]


def test_a_second_load_fetches_no_weights(lab):
    import wmtp

    wmtp.load("s3://lab/zoo/llama")
    lab.heal()
    wmtp.load("s3://lab/zoo/llama")
    assert lab.asked("GET", "*/model.safetensors") == []


def test_without_a_cache_every_used_byte_is_asked_for_once_and_nothing_is_kept(lab, tmp_path):
    import wmtp

    model = wmtp.load_model("s3://lab/zoo/llama", cache=False)
    used = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    assert sum(request.sent_bytes for request in lab.asked("GET", "*/model.safetensors")) < used + 100_000
    assert not (tmp_path / "home" / "cache").exists()
