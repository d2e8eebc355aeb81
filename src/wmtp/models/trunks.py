"""The causal LM that heads stand on, built from a configuration."""

from __future__ import annotations

import transformers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from wmtp.errors import CheckpointError
from wmtp.untrusted import did_you_mean, show

_HINT = "name the class in transformers of the model that the heads stand on, or leave the field out"


def build_trunk(config: PretrainedConfig, name: str | None, declared: str = "mtp_config.") -> PreTrainedModel:
    """Return a causal LM of this configuration.

    Args:
        config: Of the causal LM, or of a model of which it is the part that reads text.
        name: Its class, as transformers exports it. None: the one that AutoModelForCausalLM takes.
        declared: Where the field stands that names it, as a refusal says it.

    Raises:
        CheckpointError: If transformers has no such class, or it has another kind of configuration.
    """
    if name is None:
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)):
        candidates = [known for known in dir(transformers) if "For" in known]
        raise CheckpointError(
            f"{declared}trunk_class is {show(name)}, which is no model class of transformers"
            f" {transformers.__version__}",
            hint=_HINT + did_you_mean(name, candidates),
        )
    for own in (config, config.get_text_config(decoder=True)):
        if found.config_class is not None and isinstance(own, found.config_class):
            return found._from_config(own)
    raise CheckpointError(
        f"{declared}trunk_class is {show(name)}, and the configuration is of the model_type {show(config.model_type)}",
        hint=_HINT,
    )


def recorded_class(trunk: PreTrainedModel, config: PretrainedConfig) -> dict[str, str]:
    """Return what `mtp_config` has to say about the trunk's class: nothing where the configuration tells it."""
    taken = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    choices = taken if isinstance(taken, (list, tuple)) else (taken,)
    return {} if choices[0] is type(trunk) else {"trunk_class": type(trunk).__name__}


def as_trunk_type(config: PretrainedConfig, trunk_type: str | None) -> PretrainedConfig:
    """Return a configuration as one of the model type whose trunk is declared; its own where none is.

    Raises:
        CheckpointError: If transformers does not know that type.
    """
    if trunk_type is None:
        return config
    if trunk_type not in CONFIG_MAPPING:
        raise CheckpointError(
            f"metadata.json: mtp.conventions.trunk_type is {show(trunk_type)}, which transformers does not know",
            hint="name one of transformers' model types" + did_you_mean(trunk_type, CONFIG_MAPPING.keys()),
        )
    values = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "declared_mtp")}
    made: PretrainedConfig = CONFIG_MAPPING[trunk_type].from_dict(values)
    made.dtype = config.dtype
    return made
