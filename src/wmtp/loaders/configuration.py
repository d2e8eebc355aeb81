"""The transformers configuration object that a checkpoint's config.json gives."""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, PretrainedConfig

from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import CheckpointError, MetadataError
from wmtp.untrusted import did_you_mean, show


def model_config(checkpoint: Checkpoint, dtype: torch.dtype, *, must_be_known: bool = False) -> PretrainedConfig:
    """Return the configuration object for the architecture that the checkpoint declares.

    For a `model_type` that transformers does not know, a plain PretrainedConfig with the same attributes.

    Args:
        checkpoint: The checkpoint.
        dtype: Becomes the configuration's `dtype`, so that sub-models are built in it.
        must_be_known: Refuse an architecture that transformers does not know.

    Raises:
        MetadataError: For an unknown architecture, with the nearest known one.
        CheckpointError: If the architecture's class refuses the values.
    """
    values = {key: value for key, value in checkpoint.config.items() if key not in ("dtype", "torch_dtype")}
    architecture = checkpoint.metadata.base_architecture
    if must_be_known and architecture not in CONFIG_MAPPING:
        raise MetadataError(
            f"{checkpoint.where}/metadata.json: base_architecture is {show(architecture)},"
            " which transformers does not know",
            hint="name one of transformers' model types" + did_you_mean(architecture, CONFIG_MAPPING.keys()),
        )
    # The mapping is lazy: its `get` knows only what was imported already.
    config_class = CONFIG_MAPPING[architecture] if architecture in CONFIG_MAPPING else PretrainedConfig  # noqa: SIM401
    try:
        config: PretrainedConfig = config_class.from_dict(values)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = f"{type(error).__name__}: {show(str(error))}"
        raise CheckpointError(
            f"{checkpoint.where}/config.json: {config_class.__name__} refuses it: {said}",
            hint="compare config.json with the one that the weights were saved with",
        ) from error
    config.dtype = dtype
    return config
