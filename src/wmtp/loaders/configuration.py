"""The transformers configuration object that a checkpoint's config.json gives."""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, PretrainedConfig

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.quantisation import without_quantisation
from wmtp.errors import MetadataError
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
    plain = without_quantisation(checkpoint.config)  # what it describes, the mapping undoes
    values = {key: value for key, value in plain.items() if key not in ("dtype", "torch_dtype")}
    architecture = checkpoint.metadata.base_architecture
    is_known = architecture in CONFIG_MAPPING
    if must_be_known and not is_known:
        raise MetadataError(
            f"{checkpoint.where}/metadata.json: base_architecture is {show(architecture)},"
            " which transformers does not know",
            hint="name one of transformers' model types" + did_you_mean(architecture, CONFIG_MAPPING.keys()),
        )
    config_class: type[PretrainedConfig] = CONFIG_MAPPING[architecture] if is_known else PretrainedConfig
    with checkpoint.construction_errors(f"{checkpoint.where}/config.json"):
        values = config_class._decode_special_floats(values)  # infinite numbers, as transformers writes them
        # from_dict would warn that the base class is not the model type's own.
        config = config_class.from_dict(values) if is_known else config_class(**values)
    config.dtype = dtype
    return config
