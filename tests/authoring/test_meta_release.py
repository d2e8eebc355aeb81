"""Meta's multi-token release becomes a checkpoint that loads, with the logits that its own arithmetic gives."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import wmtp
from meta_release import meta_logits, meta_tensors, write_meta
from wmtp.authoring.convert import convert
from wmtp.authoring.meta_release import declare, find_release, refuse_undeclared_heads
from wmtp.authoring.pickles.sources import PickledWeights, find_weights
from wmtp.errors import CheckpointError, FormatError
from wmtp.publishing.publish import verify_published
from wmtp.storage.opening import open_store

IDS = torch.randint(0, 24, (2, 11), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A release that went the whole way, and the report of it."""
    directory = tmp_path_factory.mktemp("meta")
    return directory / "made", convert(write_meta(directory / "source"), directory / "made")


def declared(directory, tensors=None, same=None, **changes):
    """The same from what the limited process writes, without that process: starting one takes seconds."""
    write_meta(directory, tensors := meta_tensors() if tensors is None else tensors, **changes)
    release = find_release(open_store(directory), PickledWeights(("consolidated.pth",)))
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    declare(directory, release, same or {})
    return directory


def refusal(*arguments, **keywords):
    with pytest.raises(FormatError) as refused:
        declared(*arguments, **keywords)
    assert not (arguments[0] / "metadata.json").exists()
    return refused.value


@torch.no_grad()
def test_every_head_has_the_logits_of_metas_own_arithmetic(converted):
    made, _ = converted
    expected = meta_logits(meta_tensors(), IDS)
    torch.testing.assert_close(wmtp.load_model(made)(IDS).logits, expected, rtol=1e-5, atol=1e-5)
    assert (expected[:, :, 1:] - expected[:, :, :1]).abs().mean() > 0.1


def test_the_report_says_what_was_made_and_what_comes_next(converted):
    made, report = converted
    assert report.num_heads == 3
    assert report.next_step == f"wmtp validate {made}"
    assert "config.json and metadata.json were made from params.json: 3 heads" in report.summary()
    verify_published(made)


def test_names_and_bytes_stay_metas_and_loading_turns_the_rows(converted):
    made, _ = converted
    stored, tensors = load_file(made / "model.safetensors"), meta_tensors()
    assert set(stored) == set(tensors)
    assert all(torch.equal(stored[name], tensors[name]) for name in tensors)
    loaded = wmtp.load_model(made).state_dict()
    assert torch.equal(loaded["heads.3.layer.self_attn.v_proj.weight"], tensors["extra_heads.1.attention.wv.weight"])
    turned = loaded["heads.3.layer.self_attn.k_proj.weight"]
    assert torch.equal(turned[8:12], tensors["extra_heads.1.attention.wk.weight"][8:16:2])


def test_what_is_declared_is_what_params_json_says(tmp_path):
    made = declared(tmp_path / "made", with_all_keys(), n_kv_heads=None, vocab_size=-1)
    config = json.loads((made / "config.json").read_text())
    assert (config["num_hidden_layers"], config["num_key_value_heads"], config["head_dim"]) == (2, 4, 8)
    assert (config["intermediate_size"], config["vocab_size"], config["rms_norm_eps"]) == (96, 24, 1e-4)
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 500.0}
    assert config["dtype"] == "bfloat16"
    metadata = wmtp.load_metadata(made)
    assert metadata.loading_strategy.required_files == ["config.json", "params.json", "model.safetensors"]
    assert metadata.loading_strategy.state_dict_mapping.allow_unexpected == ["rope.freqs"]
    assert metadata.algorithm_compatibility == ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]


def with_all_keys():
    """As many heads of keys as of queries, in bfloat16, with the frequencies that older code saved."""
    tensors = {
        name: torch.cat([t, t]) if name.endswith(("wk.weight", "wv.weight")) else t
        for name, t in meta_tensors().items()
    }
    return {name: t.bfloat16() for name, t in tensors.items()} | {"rope.freqs": torch.ones(4)}


def test_an_embedding_that_is_the_unembedding_too_is_stored_once_and_tied(tmp_path):
    tensors = meta_tensors()
    del tensors["output.weight"]
    made = declared(tmp_path / "made", tensors, {"output.weight": "tok_embeddings.weight"})
    model = wmtp.load_model(made)
    assert model.trunk.lm_head.weight is model.trunk.model.embed_tokens.weight


def _counts(layers):
    return f"layers: {layers}, extra_heads: 2"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n_heads": "4"}, "n_heads is '4': input should be a valid integer"),
        ({"n_layers": True}, "n_layers is true: input should be a valid integer"),
        ({"n_layers": 5}, f"n_layers is 5 and n_future_tokens is 3: {_counts(3)}; the weights have {_counts(2)}"),
        ({"n_layers": 10**9}, "n_layers is 1000000000: input should be less than or equal to 4096"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0: input should be greater than 0"),
        ({"dim": None}, "dim is missing"),
        ({"n_heads": 3}, "n_heads is 3, which does not divide dim, 32, into heads of even size"),
        ({"n_kv_heads": 3}, "n_kv_heads is 3, which does not divide n_heads, 4"),
        ({"n_future_tokens": 5}, "n_future_tokens is 5, and n_layers, which counts a layer for each, is 4"),
        ({"use_scaled_rope": True}, "use_scaled_rope is not a known field"),
        ({"dim": 64}, "dim is 64, and 'tok_embeddings.weight' has 32 columns"),
        ({"vocab_size": 32000}, "vocab_size is 32000, and 'tok_embeddings.weight' has 24 rows"),
    ],
)
def test_a_field_that_is_wrong_is_named_with_its_file(tmp_path, changes, said):
    assert refusal(tmp_path / "meta", **changes).problem == f"{tmp_path / 'meta'}/params.json: {said}"


def test_heads_that_params_json_does_not_count_are_refused(tmp_path):
    store = open_store(write_meta(tmp_path / "meta", n_future_tokens=None))
    assert find_release(store, PickledWeights(("consolidated.pth",))) is None
    with pytest.raises(FormatError) as refused:
        refuse_undeclared_heads(store, meta_tensors())
    assert refused.value.problem == (
        f"{store.uri}/params.json: n_future_tokens is missing, and the weights have 'extra_heads.0.attention.wq.weight'"
    )


def test_every_tensor_that_is_not_as_declared_is_named(tmp_path):
    tensors = meta_tensors() | {"layers.0.attention.wq.bias": torch.ones(32)}
    tensors["extra_heads.1.ffn_norm.weight"] = torch.ones(31)
    del tensors["layers.1.attention.wo.weight"]
    source = tmp_path / "meta"
    error = refusal(source, tensors, n_kv_heads=4)
    assert error.problem == f"{source}/consolidated.pth: 11 tensors are not those that {source}/params.json declares"
    assert error.faults[:3] == (
        "missing: 'layers.1.attention.wo.weight'",
        "unexpected: 'layers.0.attention.wq.bias'",
        "'extra_heads.0.attention.wk.weight' has the shape [16, 32], and params.json makes it [32, 32]",
    )


def test_weights_of_another_model_are_refused(tmp_path):
    error = refusal(tmp_path / "meta", {"model.norm.weight": torch.ones(2)})
    assert error.problem == f"{tmp_path / 'meta'}/consolidated.pth: has no matrix 'tok_embeddings.weight'"


def test_model_parallel_shards_are_refused_by_name_before_they_are_opened(tmp_path):
    source = write_meta(tmp_path / "source")
    for number in (0, 1):
        (source / f"consolidated.0{number}.pth").write_bytes((source / "consolidated.pth").read_bytes())
    (source / "consolidated.pth").unlink()
    with pytest.raises(CheckpointError) as refused:
        convert(source, tmp_path / "made")
    assert refused.value.problem.startswith(
        f"{source}: 'consolidated.00.pth', 'consolidated.01.pth' are 2 files, and {source}/params.json has n_future_to"
    )


def test_one_shard_of_a_model_that_is_not_divided_is_the_whole(tmp_path):
    source = write_meta(tmp_path / "source")
    (source / "consolidated.pth").rename(source / "consolidated.00.pth")
    found = find_release(open_store(source), find_weights(open_store(source)))
    assert found.params.n_future_tokens == 3
    assert found.weights_file == f"{source}/consolidated.00.pth"


def test_a_config_json_that_stands_there_is_not_overwritten(tmp_path):
    source = write_meta(tmp_path / "source")
    (source / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json: stands beside params\.json, from which it would be made"):
        convert(source, tmp_path / "made")
