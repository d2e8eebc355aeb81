"""What modules of the trunk are called with, for parts that are called in the same way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def recorded_calls(*modules: nn.Module) -> Iterator[dict[nn.Module, Call]]:
    """Record what each module is called with, last, while the block runs; nothing stays on the modules after it.

    Yields:
        Arguments and keyword arguments by module, filled as the calls come.
    """
    calls: dict[nn.Module, Call] = {}

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls[module] = (args, kwargs)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(record, with_kwargs=True).remove)
        yield calls


@contextmanager
def skipped(layers: nn.ModuleList) -> Iterator[dict[nn.Module, Call]]:
    """Let layers pass on what they are given, and record what each is called with, while the block runs.

    For a model that shall say what it would call a layer with: its masks and rotary embeddings, at no cost to speak of.

    Yields:
        Arguments and keyword arguments by layer, filled as the calls come.
    """

    def pass_on(hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden

    with ExitStack() as undone, recorded_calls(*layers) as calls:
        for layer in layers:
            layer.forward = pass_on  # of this one object: found before the method of its class
            undone.callback(delattr, layer, "forward")
        yield calls
