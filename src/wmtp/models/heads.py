"""What a configuration says about prediction heads, and the heads themselves, made from parts of a causal LM."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from torch import Tensor, nn
from transformers import PretrainedConfig
from typing_extensions import override

from wmtp.errors import CheckpointError
from wmtp.faults import Fault, FieldFaults, StrictModel, faults_error, model_faults
from wmtp.models.copies import fresh_copy
from wmtp.models.logits import Scaling
from wmtp.untrusted import show

HeadType = Literal["linear", "transformer", "resblock"]
_OF_RESBLOCK = ("num_blocks", "block_bias", "shared_unembedding")


class MTPConfig(StrictModel):
    """`mtp_config` in config.json: the prediction heads of a built-in model class."""

    n_future_tokens: int = Field(ge=1, description="Heads, counting the trunk's own next-token head.")
    head_type: HeadType = Field(
        description="linear: an unembedding a head; transformer: a decoder layer; resblock: residual blocks."
    )
    trunk_class: str | None = Field(
        None,
        description="The trunk's class in transformers; null: the one that AutoModelForCausalLM takes.",
        pattern=r"^[A-Za-z][A-Za-z0-9_]{0,127}$",
    )
    scaling: Scaling | None = Field(
        None,
        description="How the trunk applies the factor of the logits that its configuration names: multiply, divide,"
        " divide_hidden (hidden states are divided) or ignore. Null: as most classes whose configurations name it do.",
    )
    num_blocks: int = Field(1, ge=1, description="resblock: blocks of a head, one after the other.")
    block_bias: bool = Field(False, description="resblock: whether blocks have a bias.")
    shared_unembedding: bool = Field(False, description="resblock: whether the heads use the trunk's unembedding.")

    @field_validator(*_OF_RESBLOCK)
    @classmethod
    def _only_resblock_has_blocks(cls, value: bool | int, info: ValidationInfo) -> bool | int:
        head_type = info.data.get("head_type", "resblock")  # one that is wrong is named by itself
        if head_type != "resblock":
            problem = f"is {show(value)}, and head_type {head_type!r} has no use for it"
            raise FieldFaults(Fault((), problem, f"leave {info.field_name} out, or set head_type to 'resblock'"))
        return value

    def to_dict(self) -> dict[str, Any]:
        """Return what config.json says: every field that these heads have."""
        unused = () if self.head_type == "resblock" else _OF_RESBLOCK
        return self.model_dump(exclude={*unused}, exclude_none=True)

    @classmethod
    def of(cls, config: PretrainedConfig) -> MTPConfig:
        """Return the `mtp_config` of a transformers configuration.

        Raises:
            CheckpointError: If there is none, or it is malformed; or if metadata.json, whose `mtp` the loader left on
                the configuration as `declared_mtp`, declares heads one after the other.
        """
        _refuse_sequential(getattr(config, "declared_mtp", None))
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


def _refuse_sequential(declared: Any) -> None:
    if isinstance(declared, dict) and declared.get("kind") == "sequential":
        raise CheckpointError(
            "metadata.json: mtp.kind is 'sequential', and the heads of mtp_config in config.json are parallel ones",
            hint='set "kind": "parallel_heads", without conventions; native modules are loaded by the class'
            " NativeMTPForCausalLM",
        )


class LinearHead(nn.Module):
    """A head with an unembedding of its own on the trunk's final hidden state."""

    def __init__(self, like: nn.Module, std: float) -> None:
        super().__init__()
        self.unembedding = fresh_copy(like, std)

    def copy_from(self, unembedding: nn.Module) -> None:
        """Become equal to the trunk's next-token head."""
        self.unembedding.load_state_dict(unembedding.state_dict())

    @override
    def forward(self, hidden: Tensor) -> Tensor:
        return hidden


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
        return output[0] if isinstance(output, (tuple, list)) else output
