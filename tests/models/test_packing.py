"""What is said of packed documents from config.json alone agrees with what models do."""

from contextlib import nullcontext

import pytest
import torch

from native_models import EXPERT_FAMILIES, FAMILIES, native
from wmtp.errors import TrainingError
from wmtp.models.adapter import check_packing
from wmtp.models.packing import mixing_of


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERT_FAMILIES])
def test_families_of_native_heads_are_known_to_keep_documents_apart_or_not(family):
    # transformers' latent attention of this size answers no rows of several documents at all.
    model = native(family, config={"head_dim": 8, "qk_rope_head_dim": 8})
    knows = mixing_of(model.trunk.config.to_dict()) is None
    with torch.no_grad(), nullcontext() if knows else pytest.raises(TrainingError, match="see each other"):
        check_packing(model)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "opt"}, "layers of 'opt' take no bounds from position_ids"),
        ({"model_type": "qwen3_5_text"}, "layers of 'qwen3_5_text' carry a state from token to token"),
        ({"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}}, "layers of 'qwen3_5' carry a state"),
        (
            {"model_type": "qwen3_5_text", "layer_types": ["linear_attention", "full_attention"]},
            "it has layers of the kind 'linear_attention', which carry a state from token to token",
        ),
        ({"model_type": "qwen3_5_text", "layer_types": ["full_attention"]}, None),
        ({"model_type": "granitemoehybrid", "layers_block_type": ["attention"]}, None),
        ({"model_type": "unheard_of", "layer_types": ["mamba", 3]}, "it has layers of the kind 'mamba'"),
        ({"model_type": 3, "text_config": [], "layer_types": "x"}, None),
    ],
)
def test_what_mixes_documents_is_named(config, why):
    found = mixing_of(config)
    assert found is None if why is None else found.startswith(why)
