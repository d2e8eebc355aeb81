"""The parts of a causal LM, found by structure, and the prediction heads made from them.

Nothing here knows an architecture by name: a trunk has a list of decoder layers, a norm after them and an unembedding,
and a model in which these are not found is refused, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from pydantic import Field, ValidationError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from typing_extensions import override

from wmtp.errors import CheckpointError
from wmtp.faults import StrictModel, faults_error, model_faults
from wmtp.models.copies import fresh_copy
from wmtp.untrusted import show

HeadType = Literal["linear", "transformer"]

# What a configuration calls a change of the logits after the unembedding, and the values that change nothing.
_LOGIT_CHANGES: dict[str, tuple[float | None, ...]] = {
    "final_logit_softcapping": (None, 0),
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "lm_head_multiplier": (None, 1),
    "output_multiplier": (None, 1),
    "softcap": (None, 0),
}


class MTPConfig(StrictModel):
    """`mtp_config` in config.json: the prediction heads of a built-in model class."""

    n_future_tokens: int = Field(ge=1, description="Heads, counting the trunk's own next-token head.")
    head_type: HeadType = Field(description="linear: an unembedding a head; transformer: a decoder layer a head.")

    @classmethod
    def of(cls, config: PretrainedConfig) -> MTPConfig:
        """Return the `mtp_config` of a transformers configuration.

        Raises:
            CheckpointError: If there is none, or it is malformed.
        """
        found = getattr(config, "mtp_config", None)
        if isinstance(found, MTPConfig):
            return found
        hint = 'write "mtp_config": {"n_future_tokens": 4, "head_type": "transformer"} as the heads are'
        if not isinstance(found, dict):
            raise CheckpointError(f"mtp_config is {show(found)}, expected an object", hint=hint)
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            faults = model_faults(error, cls)
            raise faults_error(faults, where="mtp_config", error=CheckpointError, hint=hint) from error


@dataclass(frozen=True)
class TrunkParts:
    """Where a causal LM keeps what heads are made from; names of submodules, as `get_submodule` takes them.

    Attributes:
        last_layer: The last decoder layer.
        final_norm: The norm between the last layer and the unembedding.
    """

    last_layer: str
    final_norm: str


def find_parts(trunk: PreTrainedModel) -> TrunkParts:
    """Find the last decoder layer and the final norm of a causal LM; reads no parameter's value.

    Raises:
        CheckpointError: If the model changes its logits after the unembedding, or a part is not found exactly once.
    """
    _refuse_changed_logits(trunk)
    if trunk.get_output_embeddings() is None or trunk.base_model is trunk:
        _refuse(trunk, "it has no unembedding apart from its body")
    layers = _decoder_layers(trunk)
    owner_name = layers.rpartition(".")[0]
    norm = _norm_after(trunk, owner_name, layers.rpartition(".")[2])
    num_layers = len(list(trunk.get_submodule(layers).children()))
    return TrunkParts(f"{layers}.{num_layers - 1}", f"{owner_name}.{norm}")


def _refuse_changed_logits(trunk: PreTrainedModel) -> None:
    config = trunk.config.get_text_config()
    for field, harmless in _LOGIT_CHANGES.items():
        if (found := getattr(config, field, None)) not in harmless:
            _refuse(trunk, f"its {field} is {found}, which changes the logits after the unembedding")


def _decoder_layers(trunk: PreTrainedModel) -> str:
    expected = trunk.config.get_text_config().num_hidden_layers
    found: list[str] = []
    for name, module in trunk.named_modules():
        # Lists inside a layer (experts, say) may happen to have the same length.
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == expected and not inside:
            found.append(name)
    if len(found) != 1:
        _refuse(trunk, f"it has {len(found)} lists of {expected} layers, expected one")
    return found[0]


def _norm_after(trunk: PreTrainedModel, owner: str, layers: str) -> str:
    children = list(trunk.get_submodule(owner).named_children())
    norms = [name for name, child in children if "norm" in type(child).__name__.lower()]
    names = [name for name, _ in children]
    # Some models have a norm on the embeddings too; it is declared before the layers.
    after = [name for name in norms if names.index(name) > names.index(layers)] or norms
    if len(after) != 1:
        _refuse(trunk, f"it has {len(after)} norms beside its layers, expected one")
    return after[0]


def _refuse(trunk: PreTrainedModel, why: str) -> NoReturn:
    raise CheckpointError(
        f"{type(trunk).__name__} cannot be the trunk of MTPForCausalLM: {why}",
        hint="write the model as a class of its own with forward_heads and unembedding, and name it in metadata.json",
    )


class LinearHead(nn.Module):
    """A head with an unembedding of its own on the trunk's final hidden state."""

    def __init__(self, like: nn.Module, std: float) -> None:
        super().__init__()
        self.unembedding = fresh_copy(like, std)

    def copy_from(self, unembedding: nn.Module) -> None:
        """Become equal to the trunk's next-token head."""
        self.unembedding.load_state_dict(unembedding.state_dict())


class TransformerHead(nn.Module):
    """A head with a decoder layer of its own in place of the trunk's last one; norm and unembedding are shared.

    Source: Gloeckle et al. 2024 (arXiv 2404.19737), section 2, where the next-token head too has a layer of its own:
        here that layer is the trunk's last one.
    """

    def __init__(self, like: nn.Module, std: float) -> None:
        super().__init__()
        self.layer = fresh_copy(like, std)

    def copy_from(self, layer: nn.Module) -> None:
        """Become equal to the trunk's next-token head."""
        self.layer.load_state_dict(layer.state_dict())

    @override
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output = self.layer(*args, **kwargs)
        return output[0] if isinstance(output, tuple) else output
