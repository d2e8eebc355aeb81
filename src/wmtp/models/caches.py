"""What layers keep of the tokens they have read, for decoding: keys, values and states that can be taken back."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from torch import nn
from transformers import DynamicCache, PretrainedConfig

from wmtp.models.calls import Call


class StepCache:
    """A cache of transformers for one row of tokens, of which the last ones can be forgotten again.

    Keys and values are cropped. A recurrent state cannot be: it is copied before tokens are read that may turn out
    wrong (`mark`), and put back (`restore`).

    Args:
        config: Of the causal LM whose layers use it.
        layer: The one layer that uses it, where it is of a module beside the trunk. None: all of them.
        takes_back: Keep what is needed to forget tokens. Plain decoding forgets none, and is faster without.

    Attributes:
        held: The cache, as layers take it.
    """

    def __init__(self, config: PretrainedConfig, layer: int | None = None, *, takes_back: bool = True) -> None:
        self.held = DynamicCache(config=config)
        if layer is not None:
            own = self.held.layers[layer]
            # Masks are made as long as the first layer of a kind is: that must be the one which is used.
            self.held.layers = [own if type(each) is type(own) else each for each in self.held.layers]
        self._takes_back = takes_back
        if takes_back:
            self.held.activate_past_recording()
        self._marks: list[tuple[Any, dict[str, Any]]] = []

    def _used(self) -> Iterator[Any]:
        # One layer may stand in several places; and some of transformers cannot be cropped before they hold anything.
        yield from {id(layer): layer for layer in self.held.layers if _holds_something(layer)}.values()

    @property
    def can_crop(self) -> bool:
        """Whether the last tokens can be forgotten without a mark; known once tokens were read."""
        return not any(_has_state(layer) for layer in self._used())

    def mark(self) -> None:
        """Remember the states that no crop brings back, as they are now."""
        self._marks = [(layer, copy.deepcopy(vars(layer))) for layer in self._used() if _has_state(layer)]

    def crop(self, num_tokens: int) -> None:
        """Forget the last tokens; to be called once after each pass, with 0 too, as windows are cut to size then.

        Raises:
            RuntimeError: If that cannot be done without a mark.
        """
        if num_tokens and not self.can_crop:
            raise RuntimeError("a layer carries a state from token to token, which cannot be taken back")
        for layer in self._used() if self._takes_back else ():
            layer.crop(-num_tokens)
        self._marks = []

    def restore(self, num_tokens: int) -> None:
        """Forget the last tokens, all that were read since `mark`."""
        marked = {id(layer) for layer, _ in self._marks}
        for layer in self._used():
            if id(layer) not in marked:
                layer.crop(-num_tokens)
        for layer, values in self._marks:
            vars(layer).clear()
            vars(layer).update(values)
        self._marks = []

    def arguments(self, module: nn.Module) -> dict[str, Any]:
        """Return what a model, or its body, is called with to read on from here."""
        return {_argument_name(type(module).forward): self.held, "use_cache": True}

    def in_place_of(self, other: StepCache, call: Call) -> Call:
        """Return a call of a layer with this cache where it has another one."""
        args, kwargs = call
        return (
            tuple(self.held if each is other.held else each for each in args),
            {name: self.held if each is other.held else each for name, each in kwargs.items()},
        )


@cache
def _argument_name(forward: Callable[..., Any]) -> str:
    # transformers called it past_key_values before 5.24.
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def _holds_something(layer: Any) -> bool:
    kinds = ("is_conv_states_initialized", "is_recurrent_states_initialized")
    return bool(getattr(layer, "is_initialized", False)) or any(any(getattr(layer, k, {}).values()) for k in kinds)


def _has_state(layer: Any) -> bool:
    return not layer.is_croppable


class Memory:
    """The caches of one row: the trunk's, and one for each head that has a layer of its own.

    Args:
        config: The trunk's.
        layers: Such heads, each with the layer of the trunk that its own is like. None: it stands in that layer's place
            and is called as that one is, with the same tokens.
        takes_back: As for `StepCache`.

    Attributes:
        trunk: The trunk's cache.
        heads: Those of heads, by number.
    """

    def __init__(self, config: PretrainedConfig, layers: Mapping[int, int | None], *, takes_back: bool = True) -> None:
        self.trunk = StepCache(config, takes_back=takes_back)
        self.heads = {k: StepCache(config, layer, takes_back=takes_back) for k, layer in layers.items()}

    def call_of(self, k: int, call: Call) -> Call:
        """Return the call of a head's layer from that of the trunk's layer in whose place it stands."""
        return self.heads[k].in_place_of(self.trunk, call)
