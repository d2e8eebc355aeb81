"""The text model's part of a larger model's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from torch import nn
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel

# Of a text model, which the larger model's configuration often says beside its parts.
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def own_part(config: PretrainedConfig, model_class: type[PreTrainedModel]) -> PretrainedConfig:
    """Return what of a configuration is for a class: the text model's part where it is of that part, else all.

    So a text model loads from the files of a model that also sees or hears.
    """
    wanted = model_class.config_class
    if wanted is None or isinstance(config, wanted):
        return config
    text = config.get_text_config()
    if not isinstance(text, wanted):
        return config
    # What the larger model ties is said by its own configuration; the part's is often another one and never looked at.
    text.tie_word_embeddings = getattr(config, "tie_word_embeddings", text.tie_word_embeddings)
    return text


def is_text_part(model: nn.Module, architecture: str) -> TypeGuard[PreTrainedModel]:
    """Say whether a model of transformers was built from the text model's part of an architecture's configuration."""
    if not isinstance(model, PreTrainedModel) or architecture not in CONFIG_MAPPING:
        return False
    return not isinstance(model.config, CONFIG_MAPPING[architecture])


def text_configuration(model: PreTrainedModel, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json of a text model that came out of a larger one, as `save_pretrained` would write it.

    Args:
        model: The text model.
        config: config.json of the larger one, which says how a text begins and ends.
    """
    values = json.loads(model.config.to_json_string())  # infinite numbers in transformers' own spelling
    tokens = {key: config[key] for key in _TOKENS if config.get(key) is not None}
    return values | tokens | {"architectures": [type(model).__name__]}
