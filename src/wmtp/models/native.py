"""The built-in model of released checkpoints with native heads: a trunk, and the modules that lie beside it."""

from __future__ import annotations

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from typing_extensions import override

from wmtp.errors import CheckpointError
from wmtp.faults import faults_error, model_faults
from wmtp.metadata.heads import MTPInfo, SequentialConventions
from wmtp.models.caches import Memory, StepCache
from wmtp.models.calls import Call, recorded_calls, skipped
from wmtp.models.copies import fresh_copy
from wmtp.models.logits import declared_change
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.native_module import NativeModule, embedded
from wmtp.models.parts import final_norm_after, find_parts
from wmtp.models.targets import Rows
from wmtp.models.trunks import as_trunk_type, build_trunk
from wmtp.untrusted import show

_HEAD_TYPE = "deepseek"
_HINT = "'wmtp init' drafts mtp with its conventions for the families it knows; docs/native_heads.md explains each"


class NativeMTPForCausalLM(MTPForCausalLM):
    """A causal LM with native modules: module d reads what module d - 1 passed on, and is head d + 1.

    State-dict names are `trunk.<name in the causal LM>`, `heads.<k>.<part of NativeModule>`, and `shared_post_norm`
    where all modules have one norm.

    Args:
        config: The trunk's configuration, with what metadata.json declares under `mtp` as `declared_mtp`.

    Attributes:
        conventions: How the modules compute, as declared.
        detach_trunk: Keep the losses of heads 2..H from the trunk, its embedding and its unembedding.

    Raises:
        CheckpointError: If conventions are not declared, or the causal LM cannot be a trunk for them.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        nn.Module.__init__(self)
        declared = declared_heads(config)
        conventions = _conventions(declared)
        config = as_trunk_type(config, conventions.trunk_type)
        self._assemble_native(
            build_trunk(config, conventions.trunk_class, "metadata.json: mtp.conventions."), config, declared
        )

    @classmethod
    def on_trunk(cls, trunk: PreTrainedModel, declared: MTPInfo) -> NativeMTPForCausalLM:
        """Return a model with a loaded causal LM as its trunk, and modules of random values.

        Args:
            trunk: Used as it is, not copied.
            declared: The modules to make.
        """
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model._assemble_native(trunk, trunk.config, declared)
        return model.train(trunk.training)

    def _assemble_native(self, trunk: PreTrainedModel, config: PretrainedConfig, declared: MTPInfo) -> None:
        self.config = config
        self.conventions, self.recursion = _conventions(declared), declared.recursion or 1
        self.detach_trunk = False
        self.trunk = trunk
        self._parts = find_parts(trunk)
        self._final_norm = final_norm_after(trunk, self._parts)
        self.change = declared_change(config)
        norm = trunk.get_submodule(self._final_norm)
        std = getattr(config.get_text_config(), "initializer_range", None) or 0.02
        layers = [self.layer(number) for number in self.conventions.block_like]
        self.heads = nn.ModuleDict(
            {str(k): NativeModule(trunk, layer, norm, self.conventions, std) for k, layer in enumerate(layers, 2)}
        )
        if self.conventions.final_norm == "shared":
            self.shared_post_norm = fresh_copy(norm, std)

    @property
    def trunk_type(self) -> str | None:  # type: ignore[override]
        """The trunk's model type in transformers, where config.json's own is not known there."""
        return self.conventions.trunk_type

    def layer(self, number: int) -> nn.Module:
        """Return a layer of the trunk, from 0.

        Raises:
            CheckpointError: If it has fewer.
        """
        layers = cast("nn.ModuleList", self.trunk.get_submodule(self._parts.layers))
        if number >= len(layers):
            raise CheckpointError(
                f"metadata.json: mtp.conventions.block_like names layer {number} of {type(self.trunk).__name__}, which"
                f" has {len(layers)}, numbered from 0",
                hint="name a layer of the trunk that is of the same kind as the module's block",
            )
        return layers[number]

    @property
    @override
    def trunk_class(self) -> str:
        return self.conventions.trunk_class or "AutoModelForCausalLM"

    @property
    @override
    def num_heads(self) -> int:
        return len(self.heads) * self.recursion + 1

    def _module(self, k: int) -> NativeModule:
        # One module that runs several times is every head beyond the first.
        return cast("NativeModule", self.heads[str(k if self.recursion == 1 else 2)])

    @override
    def unembedding(self, k: int) -> tuple[Float[Tensor, "vocab dim"], Float[Tensor, " vocab"] | None]:
        own = self._module(k).unembedding if k > 1 and self.conventions.unembedding == "own" else None
        module: Any = own or self.trunk.get_output_embeddings()
        weight, bias = module.weight, getattr(module, "bias", None)
        if k == 1 or own is not None or not self.detach_trunk:
            return weight, bias
        return weight.detach(), None if bias is None else bias.detach()

    @override
    def _hidden(
        self, input_ids: Tensor, rows: Rows, num_heads: int, memory: Memory | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        hidden, passed, calls = self._read_trunk(input_ids, rows, memory)
        found = [hidden]
        for k in range(2, num_heads + 1):
            output, passed = self._run(k, self._embedding(k, input_ids, rows), passed, calls[self.block_like(k)])
            found.append(output)
        return hidden, [self.change.of_hidden(each) for each in found]

    def _read_trunk(
        self, input_ids: Tensor, rows: Rows, memory: Memory | None = None
    ) -> tuple[Tensor, Tensor, dict[nn.Module, Call]]:
        """Return the final hidden state, what module 1 reads, and what layers like the modules' were called with."""
        norm = self.trunk.get_submodule(self._final_norm)
        with recorded_calls(norm, *map(self.layer, self.conventions.block_like)) as calls:
            hidden = self._run_body(input_ids, rows, memory)
        passed = hidden if self.conventions.hidden == "after_norm" else calls[norm][0][0]
        return hidden, passed.detach() if self.detach_trunk else passed, calls

    def block_like(self, k: int) -> nn.Module:
        """Return the layer of the trunk that the block of head `k` (2..H) is built and called like."""
        return self.layer(self.conventions.block_like[k - 2 if self.recursion == 1 else 0])

    def _run(self, k: int, embedding: Tensor, passed: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        module = self._module(k)
        raw = module(embedding, passed, call)
        norms = {"own": module.post_norm, "shared": getattr(self, "shared_post_norm", None), "none": None}
        norm = norms[self.conventions.final_norm]
        output = raw if norm is None else norm(raw)
        return output, output if self.conventions.recycled == "after_norm" else raw

    def _embedding(self, k: int, input_ids: Tensor, rows: Rows) -> Tensor:
        """Return for each row j the embedding of token j + k - 1, which stands before the one that head k predicts."""
        vectors = self._vectors(k, rows.following(input_ids, k - 1))
        if k == 2 and self.conventions.first_embedding == "zeroed":
            # Only module 1 has a first position: a server gives later ones the positions of the tokens they read.
            vectors = vectors.masked_fill(rows.first_positions(input_ids).unsqueeze(-1), 0)
        return vectors

    def _vectors(self, k: int, ids: Tensor) -> Tensor:
        own = self._module(k).embed_tokens if self.conventions.embedding == "own" else None
        vectors = embedded(own or self.trunk.get_input_embeddings(), ids, bare=self.conventions.bare_embedding)
        return vectors.detach() if self.detach_trunk and own is None else vectors

    def read_trunk(self, input_ids: Int[Tensor, "1 seq"], memory: Memory | None) -> tuple[Tensor, Tensor]:
        """Return what `unembedding(1)` is applied to, and what module 1 reads, of tokens after those in memory."""
        hidden, passed, _ = self._read_trunk(input_ids, Rows(None, None, None), memory)
        return self.change.of_hidden(hidden), passed

    def run_rows(
        self,
        k: int,
        ids: Int[Tensor, "1 rows"],
        passed: Float[Tensor, "1 rows dim"],
        start: int,
        cache: StepCache | None,
    ) -> tuple[Float[Tensor, "1 rows dim"], Float[Tensor, "1 rows dim"]]:
        """Run the module of head `k` (2..H) on rows that follow those in its cache.

        Args:
            k: The head.
            ids: The token that each row reads: row j that of position j + k - 1.
            passed: What each row reads beside it: of the trunk, or of the module before.
            start: The first row's number.
            cache: Of the module, made for the layer of the trunk that its block is like; None: rows begin at 0.

        Returns:
            What `unembedding(k)` is applied to, and what the next module reads.
        """
        body: Any = self.trunk.get_submodule(self._parts.body)
        given = {"use_cache": False} if cache is None else cache.arguments(body)
        positions = torch.arange(start, start + ids.shape[1], device=ids.device).unsqueeze(0)
        with skipped(cast("nn.ModuleList", self.trunk.get_submodule(self._parts.layers))) as calls:
            body(input_ids=ids, position_ids=positions, **given)
        vectors = self._vectors(k, ids)
        if k == 2 and start == 0 and self.conventions.first_embedding == "zeroed":
            vectors = torch.cat([torch.zeros_like(vectors[:, :1]), vectors[:, 1:]], dim=1)
        output, passed = self._run(k, vectors, passed, calls[self.block_like(k)])
        return self.change.of_hidden(output), passed


def declared_heads(config: PretrainedConfig) -> MTPInfo:
    """Return what metadata.json declares under `mtp`, from where the loader left it on the configuration.

    Raises:
        CheckpointError: If nothing is declared, or what a caller put there is malformed.
    """
    found = getattr(config, "declared_mtp", None)
    if not isinstance(found, dict):
        raise CheckpointError(f"metadata.json: mtp is {show(found)}, and native modules need it", hint=_HINT)
    try:
        return MTPInfo.model_validate(found)
    except ValidationError as error:
        faults = model_faults(error, MTPInfo)
        raise faults_error(faults, where="metadata.json: mtp", error=CheckpointError, hint=_HINT) from error


def _conventions(declared: MTPInfo) -> SequentialConventions:
    if declared.head_type not in (None, _HEAD_TYPE):
        raise CheckpointError(
            f"metadata.json: mtp.head_type is {show(declared.head_type)}, and native modules are {_HEAD_TYPE!r}",
            hint=f"set it to {_HEAD_TYPE!r}; heads of other types are those of MTPForCausalLM",
        )
    if declared.kind != "sequential" or declared.conventions is None:
        lacking = "kind is not 'sequential'" if declared.kind != "sequential" else "conventions is missing"
        raise CheckpointError(
            f"metadata.json: mtp.{lacking}: how native modules compute is declared, and never guessed", hint=_HINT
        )
    return declared.conventions
