"""The parts of a causal LM that heads are made from and stand on, found by structure and by the order of calls.

Nothing here knows an architecture by name: a trunk has an unembedding, a body that gives what it is applied to, and in
that body a list of decoder layers. What stands behind the last of them is seen in a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from torch import Tensor, nn
from transformers import PreTrainedModel

from wmtp.errors import CheckpointError


@dataclass(frozen=True)
class TrunkParts:
    """Where a causal LM keeps what heads need; names of submodules, as `get_submodule` takes them.

    Attributes:
        body: Answers with the hidden state that the unembedding is applied to.
        layers: The list of decoder layers in it, the first to the last. Empty where none was looked for.
        last_layer: The last decoder layer. Empty where none was looked for.
    """

    body: str
    layers: str = ""
    last_layer: str = ""


def find_parts(trunk: PreTrainedModel, *, with_layers: bool = True) -> TrunkParts:
    """Find the parts of a causal LM; reads no parameter's value.

    Args:
        trunk: The causal LM; of one that sees or hears too, the part that reads text is taken.
        with_layers: Find the decoder layers too; a head that needs none fits more models.

    Raises:
        CheckpointError: If a part is not found exactly once.
    """
    body = _body(trunk)
    unembedding: Any = trunk.get_output_embeddings()
    if unembedding is None or body is trunk:
        refuse_trunk(trunk, "it has no unembedding apart from its body")
    if getattr(type(unembedding), "forward", None) is not nn.Linear.forward:
        refuse_trunk(trunk, f"its unembedding is a {type(unembedding).__name__}, which is no plain linear layer")
    name = next(name for name, module in trunk.named_modules() if module is body)
    if not with_layers:
        return TrunkParts(name)
    layers = _decoder_layers(trunk, name)
    return TrunkParts(name, layers, f"{layers}.{len(list(trunk.get_submodule(layers).children())) - 1}")


def _body(trunk: PreTrainedModel) -> nn.Module:
    body: nn.Module = trunk
    # A causal LM may stand in another one, which sees images; the body is what has no unembedding of its own.
    while isinstance(body, PreTrainedModel) and body.get_output_embeddings() is not None:
        # A few call something else their decoder, and a few do not say where their body is.
        candidates = [body.get_decoder(), body.base_model, *body.children()]
        inner = [each for each in candidates if isinstance(each, PreTrainedModel) and each is not body]
        if not inner:
            return trunk
        body = inner[0]
    return body


def _decoder_layers(trunk: PreTrainedModel, body: str) -> str:
    expected = getattr(trunk.config.get_text_config(decoder=True), "num_hidden_layers", None)
    if expected is None:
        refuse_layer(trunk, "its configuration does not say how many decoder layers it has")
    found: list[str] = []
    for name, module in trunk.get_submodule(body).named_modules(prefix=body):
        # Lists inside a layer (experts, say) may happen to have the same length.
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == expected and not inside:
            found.append(name)
    if len(found) != 1:
        refuse_trunk(trunk, f"it has {len(found)} lists of {expected} layers, expected one")
    return found[0]


def final_norm_after(trunk: PreTrainedModel, parts: TrunkParts) -> str:
    """Return the name of the norm that stands beside the decoder layers, after them.

    Raises:
        CheckpointError: If there is not exactly one.
    """
    owner, _, layers = parts.layers.rpartition(".")
    children = list(trunk.get_submodule(owner).named_children())
    norms = [name for name, child in children if "norm" in type(child).__name__.lower()]
    names = [name for name, _ in children]
    # Some models have a norm on the embeddings too; it is declared before the layers.
    after = [name for name in norms if names.index(name) > names.index(layers)] or norms
    if len(after) != 1:
        refuse_trunk(trunk, f"it has {len(after)} norms beside its layers, expected one")
    return f"{owner}.{after[0]}"


def refuse_trunk(trunk: nn.Module, why: str) -> NoReturn:
    """Raise CheckpointError: heads cannot stand on this model."""
    raise CheckpointError(
        f"{type(trunk).__name__} cannot be the trunk of prediction heads: {why}",
        hint="write the model as a class of its own with forward_heads and unembedding, and name it in metadata.json",
    )


def refuse_layer(trunk: nn.Module, why: str) -> NoReturn:
    """Raise CheckpointError: heads with a layer of their own cannot stand on this model."""
    raise CheckpointError(
        f"{type(trunk).__name__} cannot have heads with a decoder layer of their own: {why}",
        hint="take heads that need none: 'wmtp grow --head-type linear'; or write the model as a class of its own"
        " (docs/extending.md)",
    )


@dataclass
class Watch:
    """What was seen of a forward pass.

    Attributes:
        arguments: Positional and named ones that the watched layer was called with, each time.
        calls: Of the modules beside the layers, and of the watched one: name, first argument, first result.
    """

    arguments: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    calls: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)

    def between(self, layer: str, result: Tensor) -> tuple[str, ...] | None:
        """Return the modules through which what the layer answered became the result, in order; None if by others."""
        at = max((index for index, call in enumerate(self.calls) if call[0] == layer), default=None)
        if at is None:
            return None
        path: list[str] = []
        reached = self.calls[at][2]
        for name, given, answered in self.calls[at + 1 :]:
            if _is_same(reached, result):
                break
            if _is_same(given, reached):
                path.append(name)
                reached = answered
        return tuple(path) if _is_same(reached, result) else None


@contextmanager
def watched(trunk: nn.Module, parts: TrunkParts, *, with_path: bool) -> Iterator[Watch]:
    """Watch the last layer while the block runs; nothing stays on the modules after it.

    Args:
        trunk: The model.
        parts: Its parts, layers included.
        with_path: Record what stands beside the layers too, for `Watch.between`.
    """
    watch = Watch()
    last = trunk.get_submodule(parts.last_layer)

    def record_arguments(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        watch.arguments.append((args, kwargs))

    handles = [last.register_forward_pre_hook(record_arguments, with_kwargs=True)]
    handles += [_record_calls(name, module, watch) for name, module in _beside(trunk, parts)] if with_path else []
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _beside(trunk: nn.Module, parts: TrunkParts) -> list[tuple[str, nn.Module]]:
    modules = trunk.get_submodule(parts.body).named_modules(prefix=parts.body)
    return [
        (name, module)
        for name, module in modules
        if name == parts.last_layer or not name.startswith(f"{parts.layers}.")
    ]


def _record_calls(name: str, module: nn.Module, watch: Watch) -> Any:
    def record(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        given = next((each for each in (*args, *kwargs.values()) if isinstance(each, Tensor)), None)
        answered = output[0] if isinstance(output, (tuple, list)) else output
        if isinstance(given, Tensor) and isinstance(answered, Tensor):
            watch.calls.append((name, given, answered))

    return module.register_forward_hook(record, with_kwargs=True)


def passed_through(trunk: nn.Module, names: tuple[str, ...], answered: Tensor) -> Tensor:
    """Return what modules of the trunk, one after the other, make of what a layer answered."""
    for name in names:
        answered = trunk.get_submodule(name)(answered)
    return answered


def _is_same(one: Tensor, other: Tensor) -> bool:
    # A view of all of it is the same too. What is compared is still held, so that no memory was used twice.
    return one is other or (
        not one.is_meta and one.shape == other.shape and one.dtype == other.dtype and _place(one) == _place(other)
    )


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), tensor.stride()
