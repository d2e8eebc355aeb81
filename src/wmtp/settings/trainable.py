"""What of a model a recipe trains: all of it, its heads alone, or adapters on its trunk with the heads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wmtp.faults import Fault, FieldFaults, StrictModel
from wmtp.settings.heads import Trunk

Trainable = Literal["all", "heads", "lora"]
ModuleName = Annotated[str, Field(min_length=1, max_length=256)]


class Lora(StrictModel):
    """Adapters on linear layers of the trunk, as the library peft has them."""

    r: int = Field(16, ge=1, le=4096, description="Rank: how many directions an adapter can change of its layer.")
    alpha: float = Field(32.0, gt=0, le=1e6, description="What adapters add is multiplied by alpha / r.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Of what goes into adapters while training.")
    target_modules: Annotated[list[ModuleName], Field(min_length=1)] | None = Field(
        None, description="Layers by name, or by the end of it (q_proj); null: every linear layer of the trunk."
    )


class TrainedPart(StrictModel):
    """The fields of `train` that say what is trained."""

    trainable: Trainable = Field(
        "all", description="all: everything. heads: heads 2 to H. lora: adapters on the trunk, and heads 2 to H."
    )
    heads_warmup_steps: int = Field(
        0, ge=0, description="Optimizer steps at the start in which heads 2 to H alone are trained."
    )
    lora: Lora | None = Field(None, description="Of trainable: lora; null there: every default of it.")

    @model_validator(mode="before")
    @classmethod
    def _adapters_have_settings(cls, value: Any) -> Any:
        # Written out, so that a checkpoint's record says which adapters it was made with.
        is_bare = isinstance(value, dict) and value.get("trainable") == "lora" and value.get("lora") is None
        return {**value, "lora": {}} if is_bare else value

    @model_validator(mode="after")
    def _settings_are_of_use(self) -> Self:
        if self.lora is not None and self.trainable != "lora":
            problem = f"is given, and train.trainable is {self.trainable!r}"
            raise FieldFaults(Fault(("lora",), problem, "set train.trainable: lora, or leave the section out"))
        if self.heads_warmup_steps and self.trainable == "heads":
            problem = f"is {self.heads_warmup_steps}, and train.trainable is 'heads': nothing follows them"
            raise FieldFaults(Fault(("heads_warmup_steps",), problem, "leave one of the two out"))
        return self


def keeps_trunk(train: TrainedPart, trunk: Trunk) -> bool:
    """Say whether the trunk stays as it is; `mtp.trunk: frozen` is the older way of saying it."""
    return train.trainable == "heads" or trunk == "frozen"


def check_trunk(train: TrainedPart, trunk: Trunk) -> None:
    """Refuse an `mtp.trunk` that contradicts what `train` says is trained.

    Raises:
        FieldFaults: With the one fault.
    """
    said = f"is {trunk!r}, and train.trainable is {train.trainable!r}"
    problem = None
    if trunk == "frozen" and train.heads_warmup_steps:
        problem = f"is 'frozen', and train.heads_warmup_steps is {train.heads_warmup_steps}: nothing follows them"
    elif trunk == "frozen" and train.trainable == "lora":
        problem = f"{said}: adapters change what the trunk says"
    elif trunk == "detached" and train.trainable == "heads":
        problem = f"{said}: no loss reaches the trunk"
    if problem is not None:
        raise FieldFaults(Fault(("mtp", "trunk"), problem, "leave one of the two out"))
