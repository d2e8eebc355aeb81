"""`train` in a recipe: by which algorithm, how long, in which steps, and what is kept of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wmtp.faults import Fault, FieldFaults
from wmtp.metadata.schema import AlgorithmName
from wmtp.settings.trainable import TrainedPart

PositiveInt = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class TrainSection(TrainedPart):
    """How to train; names and meanings as in transformers' TrainingArguments."""

    algo: AlgorithmName = Field(description="A registered algorithm.")
    learning_rate: float = Field(2e-5, gt=0, le=1, description="Peak learning rate.")
    max_steps: PositiveInt | None = Field(None, description="Optimizer steps. Either this or num_train_epochs.")
    num_train_epochs: float | None = Field(None, gt=0, description="Passes over the data.")
    per_device_train_batch_size: PositiveInt = Field(2, description="Rows in one forward pass on one device.")
    per_device_eval_batch_size: PositiveInt = Field(8, description="The same, while validating.")
    gradient_accumulation_steps: PositiveInt = Field(8, description="Forward passes in one optimizer step.")
    warmup_ratio: Share | None = Field(None, description="Share of the steps over which the rate rises from zero.")
    warmup_steps: int | None = Field(None, ge=0, description="The same in steps. Either this or warmup_ratio.")
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
    ] = Field("cosine", description="How the rate falls after the warm-up.")
    max_grad_norm: float = Field(1.0, ge=0, description="Gradients are scaled down to this norm; 0: never.")
    weight_decay: float = Field(0.0, ge=0, lt=1, description="Of AdamW; not applied to biases and norms.")
    adam_beta1: Share = Field(0.9, description="Of Adam, first moment.")
    adam_beta2: Share = Field(0.999, description="Of Adam, second moment.")
    adam_epsilon: float = Field(1e-8, gt=0, le=1e-2, description="Of Adam.")
    optim: Literal["adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "adafactor", "sgd"] = Field(
        "adamw_torch_fused", description="Optimizer; adamw_bnb_8bit needs the package bitsandbytes."
    )
    logging_steps: PositiveInt = Field(10, description="Steps between log lines.")
    eval_steps: PositiveInt = Field(200, description="Steps between validations, where there is validation data.")
    save_steps: PositiveInt = Field(500, description="Steps between checkpoints.")
    save_total_limit: PositiveInt | None = Field(3, description="Checkpoints kept, newest first; null: all.")
    save_optimizer: bool = Field(
        True,
        description="Keep in checkpoints what going on with the run needs; false: smaller ones, of the model alone.",
    )
    on_save_error: Literal["stop", "continue"] = Field(
        "stop", description="What to do when a checkpoint cannot be written: end the run, or warn and train on."
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, about 30 % slower.")
    sharding: Literal["none", "fsdp"] = Field(
        "none", description="fsdp: each process keeps a share of parameters, gradients and optimizer state (FSDP2)."
    )
    dataloader_num_workers: int = Field(0, ge=0, le=256, description="Processes that prepare rows; 0: none.")

    @model_validator(mode="after")
    def _length_is_given_once(self) -> Self:
        if (self.max_steps is None) == (self.num_train_epochs is None):
            raise FieldFaults(Fault((), "needs either max_steps or num_train_epochs", "give one; null takes one away"))
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise FieldFaults(Fault((), "has both warmup_ratio and warmup_steps", "give one; null takes one away"))
        return self

    @model_validator(mode="after")
    def _adapters_are_whole(self) -> Self:
        if self.sharding != "none" and self.trainable == "lora":
            problem = f"is {self.sharding!r}, and train.trainable is 'lora': adapters are not put into shards"
            raise FieldFaults(Fault(("sharding",), problem, "set train.sharding: none, or train.trainable: heads"))
        return self

    @property
    def warmup(self) -> float:
        """Warm-up as TrainingArguments.warmup_steps takes it: steps, or below 1 a share of all steps."""
        return self.warmup_steps or self.warmup_ratio or 0.0
