"""What an algorithm is: the models it needs, its section in recipe.yaml, and a weight for each token and head.

An algorithm is functions of tensors; it opens no file and knows no trainer and no device. The factory asks it for
roles, settings for its section, training for weights, and none of them knows any algorithm by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from wmtp.faults import StrictModel
from wmtp.metadata.schema import WmtpType

if TYPE_CHECKING:  # torch, only named in annotations: a recipe is read and a run planned without it
    from jaxtyping import Bool, Float
    from torch import Tensor


@dataclass(frozen=True)
class Role:
    """A model that an algorithm needs.

    Attributes:
        name: Its key in `paths.models` of config.yaml.
        wmtp_type: What the model's metadata.json must declare.
        purpose: What the algorithm does with it, as a phrase for people: "is trained".
    """

    name: Literal["base", "ref", "rm"]
    wmtp_type: WmtpType
    purpose: str


BASE = Role("base", "base_model", "is trained")


class Algorithm(ABC):
    """A way of weighing tokens.

    Attributes:
        name: As recipes and metadata.json write it.
        training_algorithm: What the metadata.json of a checkpoint made by it says under that name.
        roles: The models it needs.
        section: What its section in recipe.yaml may say; None when it has none.
        section_name: The key of that section.
        trainable: None when this version can train it, else one sentence that says it cannot.
    """

    name: ClassVar[str]
    training_algorithm: ClassVar[Literal["mtp", "baseline", "critic", "rho1"]]
    roles: ClassVar[tuple[Role, ...]]
    section: ClassVar[type[StrictModel] | None] = None
    section_name: ClassVar[str | None] = None
    trainable: ClassVar[str | None] = None

    def __init__(self, section: StrictModel | None = None) -> None:
        self.settings = section

    @abstractmethod
    def weights(
        self, ce: Float[Tensor, "batch seq future"], valid: Bool[Tensor, "batch seq future"]
    ) -> Float[Tensor, "batch seq future"]:
        """Return a weight for each pair of position and head.

        Args:
            ce: Cross-entropy in nats; 0 where not valid.
            valid: Where head `k` has a token `t + k` to predict.

        Returns:
            fp32, detached, at least 0, with mean 1 over valid pairs. The head prior is not in it.
        """
