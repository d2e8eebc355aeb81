"""What Meta's code would load of an export: names, values, and the arithmetic that they were made for."""

import json

import pytest
import torch
from safetensors.torch import save_file

import wmtp
from checkpoints import write_mtp_checkpoint
from meta_release import WIDTH, meta_logits, meta_tensors, write_meta
from tiny_models import around, gemma3_config, tiny_mtp
from wmtp.authoring.meta_release import declare, find_release
from wmtp.authoring.pickles.sources import PickledWeights
from wmtp.checkpoint.meta_release import feed_forward_fields
from wmtp.errors import CheckpointError
from wmtp.publishing.publish import verify_published
from wmtp.storage.opening import open_store

SIZES = {"vocab_size": 24, "intermediate_size": WIDTH, "rms_norm_eps": 1e-4}


def exported(directory):
    wmtp.export(directory, directory.parent / "out", to="meta")
    verify_published(directory.parent / "out")
    return directory.parent / "out", torch.load(directory.parent / "out" / "consolidated.pth", weights_only=True)


def own_model(**changes):
    """A model of ours that has the sizes of the tiny release."""
    rotary = {"rope_type": "default", "rope_theta": 500.0}
    return tiny_mtp(**SIZES, rope_parameters=rotary, **changes)


def test_a_converted_release_is_exported_byte_for_byte(tmp_path):
    release, tensors = write_meta(tmp_path / "release"), {n: t.bfloat16() for n, t in meta_tensors().items()}
    save_file(tensors, release / "model.safetensors", {"format": "pt"})
    declare(release, find_release(open_store(release), PickledWeights(("consolidated.pth",))), {})
    out, written = exported(release)
    assert type(written) is dict
    assert list(written) == list(meta_tensors())
    assert all(written[name].dtype == torch.bfloat16 for name in written)
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)
    assert (out / "params.json").read_bytes() == (release / "params.json").read_bytes()


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_of_ours_has_its_logits_in_metas_own_arithmetic(tmp_path, tied):
    model = own_model(tie_word_embeddings=tied)
    out, written = exported(write_mtp_checkpoint(tmp_path / "mtp", model))
    ids = torch.randint(0, 24, (2, 11), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(meta_logits(written, ids), model(ids).logits, rtol=1e-5, atol=1e-5)
    params = json.loads((out / "params.json").read_text())
    assert (params["n_layers"], params["n_future_tokens"], params["n_kv_heads"]) == (4, 3, 2)
    assert (params["rope_theta"], params["norm_eps"], params["multiple_of"]) == (500.0, 1e-4, 12)


def test_tensors_are_written_alone_and_not_with_what_they_are_a_part_of(tmp_path):
    _, written = exported(write_mtp_checkpoint(tmp_path / "mtp", own_model(tie_word_embeddings=True)))
    storages = {tensor.untyped_storage().data_ptr() for tensor in written.values()}
    assert len(storages) == len(written)
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in written.values())


@pytest.mark.parametrize(("dim", "width"), [(4096, 11008), (4096, 14336), (32, 85), (32, 48), (32, 86), (48, 129)])
def test_metas_code_computes_the_width_from_what_is_written(dim, width):
    fields = feed_forward_fields(dim, width)
    hidden = int(2 * (4 * dim) / 3)
    if (multiplier := fields.get("ffn_dim_multiplier")) is not None:
        hidden = int(multiplier * hidden)
    multiple_of = fields["multiple_of"]
    assert multiple_of * ((hidden + multiple_of - 1) // multiple_of) == width


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: tiny_mtp(head_type="linear"), "its heads are of the type 'linear', which Meta's code does not have"),
        (lambda: tiny_mtp("mistral"), "config.json: model_type is 'mistral'"),
        (lambda: tiny_mtp(hidden_act="gelu", head_dim=4), "config.json: hidden_act is 'gelu'; head_dim is 4"),
        (
            lambda: tiny_mtp(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "config.json: rope_parameters.rope_type is 'linear'",
        ),
        (lambda: around(gemma3_config()), "config.json: model_type is 'gemma3'"),  # whose sizes stand in parts of it
        (lambda: tiny_mtp(attention_bias=True), ": 16 tensors are not those of a plain llama"),
    ],
)
def test_what_metas_code_has_not_is_refused_and_nothing_is_written(tmp_path, model, said):
    write_mtp_checkpoint(tmp_path / "mtp", model())
    with pytest.raises(CheckpointError) as refused:
        wmtp.export(tmp_path / "mtp", tmp_path / "out", to="meta")
    assert refused.value.problem.endswith(said)
    assert not (tmp_path / "out").exists()
