"""Which way a model can be decoded: found out by asking it, on eight tokens, before the first prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wmtp.errors import GenerationError, TrainingError
from wmtp.generation.choosing import Greedy
from wmtp.generation.sequential import SequentialState
from wmtp.generation.states import DecodingState, ForeignState, ParallelState, PlainState
from wmtp.models.adapter import trainable
from wmtp.models.caches import Memory, StepCache
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.untrusted import show

_PROBE_TOKENS = 8
_HALF = _PROBE_TOKENS // 2
# Right caches differ in rounding, wrong ones by as much as logits do.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_COARSE_TOLERANCE = 0.1
# What a class raises that was not made for a cache, or not for tokens that follow others.
_INCAPABLE = (RuntimeError, TypeError, ValueError, LookupError, AttributeError)
# Number of drafts, and whether there is a cache.
NewState = Callable[[int, bool], DecodingState]


@dataclass(frozen=True)
class Decoder:
    """How a model is decoded.

    Attributes:
        new_state: Makes the state of a row, given how many tokens are drafted at most.
        num_drafts: Drafted a round at most.
        notes: What it cannot do that was to be expected, and why.
    """

    new_state: Callable[[int], DecodingState]
    num_drafts: int
    notes: tuple[str, ...] = ()

    def plainly(self) -> Decoder:
        """Return the same without drafts."""
        return replace(self, num_drafts=0)


def open_decoder(model: nn.Module, drafts: int | None, *, kv_cache: bool) -> Decoder:
    """Find out how a model can be decoded.

    With a cache its own answers say whether they are those of the model without one: after tokens that were drafted
    and taken back. If not, it is decoded plainly; and if its cache is of no use at all, without one.

    Args:
        model: A causal LM, with or without heads, in eval mode.
        drafts: Tokens to draft a round at most; None: as many as there are heads for.
        kv_cache: False: use none.

    Raises:
        GenerationError: If the model is no language model, or there are more drafts than heads for them.
    """
    new_state, most, has_cache = _states_of(model)
    if drafts is not None and drafts > most:
        heads = f"has heads for {most}" if most else "has no head beside its next-token head"
        hint = f"ask for {most} or fewer" if most else "leave drafts out; 'wmtp grow' makes a model with heads of it"
        raise GenerationError(f"drafts is {drafts}, and the model {heads}", hint=hint)
    num_drafts = most if drafts is None else drafts
    expected = _whole(new_state(0, False), model)
    if not kv_cache or not has_cache:
        notes = () if has_cache else ("its class has no cache that is known here: every pass reads the whole row",)
        return Decoder(lambda count: new_state(count, False), num_drafts, notes)
    cached = Decoder(lambda count: new_state(count, True), num_drafts)
    return _checked(cached, Decoder(lambda count: new_state(count, False), num_drafts), expected)


def _states_of(model: nn.Module) -> tuple[NewState, int, bool]:
    """Return what makes states of a model, how many tokens it can draft, and whether it may have a cache."""
    if isinstance(model, NativeMTPForCausalLM):
        layers = (
            model.conventions.block_like if model.recursion == 1 else model.conventions.block_like * model.recursion
        )
        return _sequential(model, layers), model.num_heads - 1, True
    if isinstance(model, MTPForCausalLM):
        return _parallel(model), model.num_heads - 1, True
    if isinstance(model, PreTrainedModel) and model.can_generate() and model.get_output_embeddings() is not None:
        plain = model
        return (
            lambda _, cached: PlainState(plain, StepCache(plain.config, takes_back=False) if cached else None),
            0,
            True,
        )
    return _foreign(model)


def _sequential(model: NativeMTPForCausalLM, layers: list[int]) -> NewState:
    def new_state(num_drafts: int, cached: bool) -> DecodingState:
        likes = dict(enumerate(layers[:num_drafts], 2))
        memory = Memory(model.trunk.config, likes, takes_back=num_drafts > 0) if cached else None
        return SequentialState(model, memory, num_drafts)

    return new_state


def _parallel(model: MTPForCausalLM) -> NewState:
    def new_state(num_drafts: int, cached: bool) -> DecodingState:
        own = range(2, 2 + num_drafts) if model.head_type == "transformer" else ()
        memory = Memory(model.trunk.config, dict.fromkeys(own), takes_back=num_drafts > 0) if cached else None
        return ParallelState(model, memory, num_drafts)

    return new_state


def _foreign(model: nn.Module) -> tuple[NewState, int, bool]:
    wrapped, device = trainable(model), next(model.parameters()).device
    assert isinstance(wrapped, ForeignModel)
    try:
        logits = wrapped(_probe(model)).logits
    except TrainingError as error:
        hint = (
            "generate with a language model: one whose logits are [batch, seq, vocab], or [batch, seq, future, vocab]"
        )
        raise GenerationError(error.problem, hint=hint) from error
    foreign = wrapped
    return lambda _, __: ForeignState(foreign, device), logits.shape[2] - 1, False


def _probe(model: nn.Module) -> Tensor:
    device = next(model.parameters()).device
    return torch.arange(_PROBE_TOKENS, device=device).unsqueeze(0)


def _whole(state: DecodingState, model: nn.Module) -> Tensor:
    ids = _probe(model)[0].tolist()
    return state.read(ids, len(ids)).float()


def _checked(cached: Decoder, uncached: Decoder, expected: Tensor) -> Decoder:
    if cached.num_drafts:
        why = _difference(cached.new_state, cached.num_drafts, expected)
        if why is None:
            return cached
        note = f"decoded plainly, as drafts cannot be taken back: {why}"
        cached, uncached = (Decoder(each.new_state, 0, (note,)) for each in (cached, uncached))
    why = _difference(cached.new_state, 0, expected)
    if why is None:
        return cached
    return Decoder(uncached.new_state, 0, (*cached.notes, f"decoded without a cache: {why}"))


def _difference(new_state: Callable[[int], DecodingState], num_drafts: int, expected: Tensor) -> str | None:
    """Say how a model with its cache differs from itself without one; None where it does not."""
    try:
        found = _walked(new_state(num_drafts), num_drafts, len(expected))
    except _INCAPABLE as error:
        return f"{type(error).__name__}: {show(str(error))}"
    tolerance = _TOLERANCE.get(found.dtype, _COARSE_TOLERANCE) * float(expected.abs().max())
    difference = float((found.float() - expected[-len(found) :]).abs().max())
    if difference <= tolerance:
        return None
    return f"logits with the cache differ by {difference:.2g} from those without, of at most {tolerance:.2g} allowed"


def _walked(state: DecodingState, num_drafts: int, num_tokens: int) -> Tensor:
    """Return logits of the second half of the probe, read on after drafts that were all wrong."""
    state.read(range(_HALF), 1)
    state.keep(_HALF)
    rest, found = list(range(_HALF, num_tokens)), []
    while rest:
        choose: Any = Greedy().choose
        drafted = [draft.token for draft in state.draft(rest[0], num_drafts, choose)]
        wrong = [0] * len(drafted)  # none is the token that follows
        found.append(state.read([rest[0], *wrong], 1 + len(wrong))[:1])
        state.keep(1)
        del rest[0]
    return torch.cat(found)
