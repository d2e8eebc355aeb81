"""The prediction heads of a model, as metadata.json declares them; of native ones how they compute, too."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wmtp.faults import Fault, FieldFaults, StrictModel

_MAX_MODULES = 64

PositiveInt = Annotated[int, Field(ge=1)]
Norm = Literal["before_norm", "after_norm"]
# shared: the trunk's is used, and none is stored. copied: stored in each module too, equal to the trunk's.
Owner = Literal["shared", "copied", "own"]
LayerNumbers = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=_MAX_MODULES)]


class SequentialConventions(StrictModel):
    """How native modules compute: a wrong one never shows in a load, only in what the heads predict."""

    hidden: Norm = Field(description="Which hidden state of the trunk module 1 reads: before or after its final norm.")
    concatenation: Literal["embedding_hidden", "hidden_embedding"] = Field(
        description="In which order the projection takes its two inputs."
    )
    first_embedding: Literal["kept", "zeroed"] = Field(
        description="zeroed: module 1 sees zeros for the embedding at the first position of a document."
    )
    recycled: Norm = Field(description="What the next module reads: a module's output before or after its norm.")
    input_norms: bool = Field(description="Whether embedding and hidden state each pass a norm of the module first.")
    final_norm: Literal["own", "shared", "none"] = Field(
        description="What a module's output passes: a norm of its own, one for all modules, or none."
    )
    embedding: Owner = Field(description="Whose embedding a module reads: the trunk's, a copy of it, or its own.")
    unembedding: Owner = Field(description="The same for what turns its output into logits.")
    bare_embedding: bool = Field(
        False, description="The embedding's rows alone, without what the trunk's module makes of them (a norm)."
    )
    block_like: LayerNumbers = Field(
        description="For each module the layer of the trunk, from 0, that its decoder layer is built and called like."
    )
    trunk_class: str | None = Field(
        None, min_length=1, max_length=128, description="The trunk's class in transformers; null: AutoModelForCausalLM."
    )
    trunk_type: str | None = Field(
        None, min_length=1, max_length=128, description="Its model type there, where config.json's is not known to it."
    )


class MTPInfo(StrictModel):
    """The prediction heads of a multi-token prediction model."""

    kind: Literal["parallel_heads", "sequential"] = "parallel_heads"
    n_future_tokens: PositiveInt = Field(description="Heads, counting the next-token head; head k predicts t + k.")
    head_type: Literal["linear", "transformer", "resblock", "deepseek"] | None = None
    conventions: SequentialConventions | None = Field(None, description="sequential: how the modules compute.")
    recursion: PositiveInt | None = Field(
        None, description="sequential: how often the only module runs, each time on its own output; a head each."
    )

    @model_validator(mode="after")
    def _modules_make_the_heads(self) -> Self:
        for field in ("conventions", "recursion"):
            if self.kind != "sequential" and getattr(self, field) is not None:
                raise FieldFaults(Fault((field,), f"is given, and kind is {self.kind!r}", 'set "kind": "sequential"'))
        if self.conventions is None:
            return self
        modules = len(self.conventions.block_like)
        if self.recursion is not None and modules != 1:
            raise FieldFaults(Fault(("recursion",), f"is {self.recursion}, and block_like names {modules} modules"))
        if self.n_future_tokens != 1 + (heads := self.recursion or modules):
            problem = f"is {self.n_future_tokens}, but the next-token head and {heads} by modules are {1 + heads}"
            raise FieldFaults(Fault(("n_future_tokens",), problem, f"set it to {1 + heads}, or mend block_like"))
        return self
