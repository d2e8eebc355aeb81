"""Activations as planned, held to what autograd really keeps."""

import pytest
import torch

from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp, tokens
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.run_plan.activations import activations_of
from wmtp.run_plan.shapes import ModelShapes
from wmtp.settings.recipe import Recipe

ROWS, LENGTH = 4, 64
LLAMA = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "vocab_size": 128}
GPT2 = {"n_embd": 64, "n_layer": 4, "vocab_size": 128, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MODELS = {
    "llama": ("llama", "transformer", LLAMA),
    "gpt2": ("gpt2", "transformer", GPT2),
    "resblock": ("llama", "resblock", LLAMA),
    "linear": ("mistral", "linear", LLAMA | {"num_key_value_heads": 4}),
}


def kept_bytes(model, documents):
    """Return the bytes that a forward pass keeps for the backward pass, parameters aside."""
    held, own = {}, {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor too, so that no other gets its place
        return tensor

    ids = tokens(ROWS, LENGTH)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(ids, labels=ids, document_ids=documents).ce.sum()
    return sum(size for size, _ in held.values())


def recipe(**training):
    train = {"algo": "baseline-mtp", "max_steps": 1, "per_device_train_batch_size": ROWS} | training
    data = {"train": {"files": ["none.py"], "max_length": LENGTH}}
    return Recipe.model_validate({"run": {"name": "run"}, "data": data, "train": train})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("training", [{}, {"gradient_checkpointing": True}, {"trainable": "heads"}], ids=str)
@pytest.mark.parametrize("name", MODELS)
def test_activations_are_about_what_autograd_keeps(tmp_path, name, training, dtype):
    architecture, head_type, changes = MODELS[name]
    model = tiny_mtp(architecture, 3, head_type, **changes)
    base = open_checkpoint(write_mtp_checkpoint(tmp_path / "base", model))
    asked = recipe(**training)
    found = activations_of(asked, base, ModelShapes.of(asked, base), dtype.itemsize)
    model.to(dtype).train()
    if training.get("gradient_checkpointing"):
        model.activation_checkpointing_enable()
    if training.get("trainable"):
        model.trunk.requires_grad_(False)
    documents = torch.arange(LENGTH).div(16, rounding_mode="floor").expand(ROWS, -1)
    # Beside what is counted some numbers a token: losses, targets, places.
    assert found.kept == pytest.approx(kept_bytes(model, documents), rel=0.2, abs=150 * ROWS * LENGTH)
