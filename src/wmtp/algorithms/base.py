"""What an algorithm is: the models it needs, its section in recipe.yaml, and a weight for each token and head.

An algorithm is functions of tensors; it opens no file and knows no trainer and no device. The factory asks it for
roles, settings for its section, scoring for the scores it reads, training for weights, and none of them knows any
algorithm by name. A class of a third party that an entry point names is one more algorithm, and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from wmtp.errors import CheckpointError
from wmtp.faults import StrictModel
from wmtp.metadata.schema import WmtpType

if TYPE_CHECKING:  # torch, only named in annotations: a recipe is read and a run planned without it
    from jaxtyping import Float
    from torch import Tensor

    from wmtp.algorithms.explained import ValueStates
    from wmtp.algorithms.signals import Signals

RoleName = Literal["base", "ref", "rm"]


@dataclass(frozen=True)
class Role:
    """A model that an algorithm needs.

    Attributes:
        name: Its key in `paths.models` of config.yaml.
        wmtp_type: What the model's metadata.json must declare.
        purpose: What the algorithm does with it, as a phrase for people: "is trained".
    """

    name: RoleName
    wmtp_type: WmtpType
    purpose: str


BASE = Role("base", "base_model", "is trained")


@dataclass(frozen=True)
class Score:
    """A figure beside every token that an algorithm reads.

    Attributes:
        name: Its key in `Signals.scores`.
        what: `nll`: -log P(x_j | x_<j) in nats by a model. `reward`: the reward of a document by a model, the same at
            all of its tokens. `column`: a number of the data, the same at all tokens of a document.
        role: Whose figure it is; None for `column`.
        column: The key of JSONL data that holds it; None unless `what` is `column`.
        label: Which label of a reward model is the reward; None where it must have one only.
        online: Whether the model runs while training, rather than once before it.
    """

    name: str
    what: Literal["nll", "reward", "column"]
    role: RoleName | None = None
    column: str | None = None
    label: int | None = None
    online: bool = False


class Algorithm(ABC):
    """A way of weighing tokens.

    Attributes:
        name: As recipes and metadata.json write it.
        training_algorithm: What the metadata.json of a checkpoint made by it says under that name.
        roles: The models it needs; may depend on its section.
        scores: The figures beside the tokens that it reads; may depend on its section.
        weighs_evenly: Whether all tokens of a head weigh the same; then a step saves a quarter of the loss's time.
        least_heads: How many heads it needs to be anything but equal weights; may depend on its section.
        section: What its section in recipe.yaml may say; None when it has none.
        section_name: The key of that section.
    """

    name: ClassVar[str]
    training_algorithm: ClassVar[Literal["mtp", "baseline", "critic", "rho1"]]
    roles: tuple[Role, ...]
    scores: tuple[Score, ...] = ()
    weighs_evenly: bool = False
    least_heads: int = 1
    section: ClassVar[type[StrictModel] | None] = None
    section_name: ClassVar[str | None] = None

    def __init__(self, section: StrictModel | None = None) -> None:
        self.settings = section

    @abstractmethod
    def weights(self, signals: Signals) -> Float[Tensor, "batch seq future"]:
        """Return a weight for each pair of position and head.

        Args:
            signals: What is known about the batch.

        Returns:
            fp32, detached, at least 0. Their mean over valid pairs, each pair counted with its head's prior, is 1, or
            becomes 1 on average where the algorithm says so. The head prior is not in them.
        """

    def explain(self, signals: Signals) -> Mapping[str, Float[Tensor, "batch seq"]]:  # noqa: ARG002  most need nothing
        """Return what lies behind the weights of tokens, for people to read beside them in a report.

        Returns:
            Figures by a name in words, each with its unit where it has one, indexed by token; detached. They are read
            at learned tokens alone. Nothing unless the algorithm has something to say.
        """
        return {}

    def rule(self) -> str:
        """Return what the weight of a token is, with the settings as they are, in plain sentences for a report.

        Returns:
            Nothing unless the algorithm has something to say.
        """
        return ""

    def begin(self, scores: Mapping[str, Float[Tensor, "documents"]]) -> None:  # noqa: B027  most need nothing
        """See the scores of all training documents before the first step: those that are one figure a document.

        Raises:
            TrainingError: If nothing can be learned from them.
        """

    def end_step(self, total: Callable[[Tensor], Tensor]) -> None:  # noqa: B027  most keep nothing
        """Take what the micro-batches of an optimizer step have shown into running figures.

        Within a step those figures stand still, so that neither accumulation nor the number of processes changes them.

        Args:
            total: Returns the sum of a tensor over all processes; every process calls it equally often.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the running figures that a checkpoint has to keep."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned; exactly that.

        Raises:
            CheckpointError: If a figure is missing, unknown, or of another shape.
        """
        expected = self.state()
        shapes = [{name: list(figure.shape) for name, figure in figures.items()} for figures in (state, expected)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"the state of {self.name} holds {shapes[0]}, expected {shapes[1]}",
                hint="take it from a checkpoint that the same algorithm has written",
            )


class ValueAlgorithm(Algorithm):
    """An algorithm that reads value heads on the trunk: `Signals.values` is there.

    Attributes:
        fit_steps: Optimizer steps before the first in which only the value heads are trained.
        value_learning_rate: Of the value heads: in those steps throughout, and after them the peak of the schedule.
        detach_trunk: Whether the value loss is kept from the trunk.
        folds: Into how many parts documents are divided, with heads for each; 1: all documents have the same heads.
        values_tokens: Whether there are heads that value each token that is chosen: `Signals.token_values` is there.
    """

    fit_steps: int
    value_learning_rate: float
    detach_trunk: bool
    folds: int = 1
    values_tokens: bool = False

    @abstractmethod
    def value_loss(self, signals: Signals) -> Float[Tensor, ""]:
        """Return the loss of the value heads, a sum over learned tokens, with its coefficient; 0-dim, fp32.

        The trainer divides by the number of learned tokens in the whole optimizer step. Its gradient reaches
        `signals.values` and `signals.token_values` alone.
        """

    @abstractmethod
    def value_states(self, signals: Signals) -> ValueStates:
        """Return what value heads say where the algorithm relies on it, and what came true."""

    @abstractmethod
    def require_fit(self, explained: Sequence[float]) -> None:
        """Refuse to go on with value heads that have learned nothing.

        Args:
            explained: Explained variance by relative position: equal parts of a document, the last one its end.

        Raises:
            TrainingError: If weights from such values would be noise.
        """
