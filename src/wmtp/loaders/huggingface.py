"""Strategy `huggingface`: any model class that transformers exports."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from wmtp.checkpoint.configuration import GENERATION_FILE, read_json
from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import MetadataError
from wmtp.loaders.configuration import model_config
from wmtp.loaders.construction import Blueprint
from wmtp.models.text_part import own_part
from wmtp.settings.loading import LoadOptions
from wmtp.trust.guards import construction_errors, quiet_transformers
from wmtp.untrusted import did_you_mean, show


class HuggingFaceStrategy:
    """Builds what `from_pretrained` would build, but fills it by the plan."""

    def blueprint(self, checkpoint: Checkpoint, options: LoadOptions, dtype: torch.dtype) -> Blueprint:  # noqa: ARG002
        """Return how to build the declared class; no option of the operator changes which one that is.

        Raises:
            MetadataError: If transformers exports no such class, or does not know the architecture.
        """
        name = str(checkpoint.metadata.loading_strategy.transformers_class)
        build = _exported_class(checkpoint, name)
        config = model_config(checkpoint, dtype, must_be_known=True)
        generation = read_json(checkpoint.store, GENERATION_FILE) if checkpoint.store.has(GENERATION_FILE) else None

        def construct() -> nn.Module:
            model: PreTrainedModel = build(config)
            _keep_in_float32(model, dtype)
            if generation is not None and model.can_generate():
                with construction_errors(checkpoint.store.where(GENERATION_FILE), "the generation settings"):
                    model.generation_config = GenerationConfig.from_dict(generation)
            return model

        # transformers' models need one dtype throughout, whatever mixture is stored.
        return Blueprint(construct, f"{checkpoint.where}/config.json", False, guard=checkpoint.construction_errors)


def _exported_class(checkpoint: Checkpoint, name: str) -> Callable[[PretrainedConfig], PreTrainedModel]:
    with quiet_transformers:  # what is no model may import half of what is installed
        found: Any = getattr(transformers, name, None)
    if isinstance(found, type) and issubclass(found, PreTrainedModel):
        return lambda config: found._from_config(own_part(config, found))
    if name.startswith("AutoModel") and hasattr(found, "from_config"):
        return found.from_config
    candidates = [known for known in dir(transformers) if known.startswith("AutoModel") or "For" in known]
    raise MetadataError(
        f"{checkpoint.where}/metadata.json: loading_strategy.transformers_class is {show(name)},"
        f" which is no model class of transformers {transformers.__version__}",
        hint="use an AutoModel class such as 'AutoModelForCausalLM'" + did_you_mean(name, candidates),
    )


def _keep_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give parameters and buffers that an architecture wants in float32 that dtype, as `from_pretrained` does."""
    patterns = [pattern.replace("*", ".*") for pattern in model._get_dtype_plan(dtype)]
    if not patterns:
        return
    wanted = re.compile("|".join(patterns))
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if wanted.search(name) and tensor.is_floating_point():
            tensor.data = tensor.data.to(torch.float32)
