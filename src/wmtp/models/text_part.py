"""The text model's part of a larger model's configuration."""

from __future__ import annotations

from transformers import PretrainedConfig, PreTrainedModel


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
