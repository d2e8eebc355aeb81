"""What of the base model a run trains, counted from headers before anything is loaded; and what rules it out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import TrainingError
from wmtp.load_plan.matching import sources_of
from wmtp.metadata.schema import ModelMetadata
from wmtp.settings.trainable import Lora, keeps_trunk
from wmtp.untrusted import first_few, show

if TYPE_CHECKING:
    from wmtp.settings.recipe import Recipe

_TRUNK = "trunk."
_OF_HEAD = re.compile(r"heads\.(\d{1,4})\.")
# Module of the trunk that a native module holds too, under a second name: it stands still with the trunk.
_COPY_OF_TRUNK = {"embedding": "embed_tokens.", "unembedding": "unembedding."}
_OF_ALL_HEADS = "shared_post_norm."
_IN_A_LAYER = re.compile(r"\.\d{1,6}\.")
_WEIGHT = ".weight"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TrainedParameters:
    """Counts of parameters, and which of them are trained.

    Attributes:
        what: `all`, `heads` (the trunk stays as it is) or `lora`.
        trunk: Of the trunk, with its embedding and unembedding, and of what no head that is trained has.
        heads: Of heads 2 to H that are trained.
        adapters: Of adapters; 0 without them.
        adapted_layers: Linear layers that get one.
        heads_warmup_steps: Optimizer steps at the start in which heads alone are trained.
    """

    what: str
    trunk: int
    heads: int
    adapters: int = 0
    adapted_layers: int = 0
    heads_warmup_steps: int = 0

    @property
    def of_model(self) -> int:
        """Parameters of the model itself that are trained, adapters not among them."""
        return self.heads + (self.trunk if self.what == "all" else 0)

    def flops(self, tokens: int, *, heads_alone: bool = False) -> int:
        """Return about how many FLOPs so many tokens cost: 2 a parameter forward, 2 back through it, 2 to change it."""
        of_trunk = {"all": 6, "heads": 2, "lora": 4}["heads" if heads_alone else self.what]
        return tokens * (of_trunk * self.trunk + 6 * (self.heads + (0 if heads_alone else self.adapters)))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield what is trained in lines for a person; none where it is everything from the first step on."""
        if self.what == "heads":
            yield f"trained: heads alone, {self.heads:,} parameters; the trunk stays as it is, all {self.trunk:,}"
        elif self.what == "lora":
            heads = f", and heads, {self.heads:,}" if self.heads else ""
            layers = f"adapters on {self.adapted_layers} layers of the trunk, {self.adapters:,} parameters"
            yield f"trained: {layers}{heads}; the trunk's own {self.trunk:,} stay as they are"
        if self.heads_warmup_steps:
            yield f"trained at first: heads alone, {self.heads:,} parameters, for {self.heads_warmup_steps} steps"


def trained_parameters(recipe: Recipe, base: Checkpoint) -> TrainedParameters:
    """Return what a run trains.

    Raises:
        TrainingError: If the base model cannot be trained in this way: its class shows no trunk, it has no heads
            besides the next-token head, or no layers of the names that adapters are asked for. Or if the run ends
            before anything but heads is trained.
    """
    train = recipe.train
    if (setting := unusual(recipe)) is None:
        return TrainedParameters("all", sum(tensor.num_elements for tensor in base.tensors), 0)
    if base.metadata.loading_strategy.custom_module_file is not None:
        refuse_class(setting, f"the class of {base.where}")
    heads = recipe.mtp.horizon or base.metadata.num_heads
    if heads == 1 and (keeps_trunk(train, recipe.mtp.trunk) or train.heads_warmup_steps):
        refuse_headless(setting, base.where, has_more=base.metadata.num_heads != 1)
    check_warmup(train.heads_warmup_steps, train.max_steps)
    shapes = _shapes(base)
    num_heads = sum(math.prod(shapes[name]) for name in _of_heads(shapes, base.metadata, heads))
    layers = _adapted(shapes, train.lora, base) if train.lora is not None else {}
    return TrainedParameters(
        what="heads" if keeps_trunk(train, recipe.mtp.trunk) else train.trainable,
        trunk=sum(map(math.prod, shapes.values())) - num_heads,
        heads=num_heads,
        adapters=sum(train.lora.r * sum(shape) for shape in layers.values()) if train.lora is not None else 0,
        adapted_layers=len(layers),
        heads_warmup_steps=train.heads_warmup_steps,
    )


def trained_names(recipe: Recipe, base: Checkpoint) -> frozenset[str]:
    """Return the parameters of the base model that have gradients once everything that learns does, by name.

    Args:
        recipe: One that `trained_parameters` lets through.
        base: The model.
    """
    shapes, heads = _shapes(base), recipe.mtp.horizon or base.metadata.num_heads
    own = frozenset(_of_heads(shapes, base.metadata, heads))
    if keeps_trunk(recipe.train, recipe.mtp.trunk) or recipe.train.trainable == "lora":
        return own
    return frozenset(shapes) - (frozenset(_of_heads(shapes, base.metadata, None)) - own)


def trained_record(recipe: Recipe, base: Checkpoint) -> dict[str, Any]:
    """Return counts for a run's records under `trained`; nothing where everything is trained in every step."""
    return {} if unusual(recipe) is None else {"trained": trained_parameters(recipe, base).to_dict()}


def unusual(recipe: Recipe) -> str | None:
    """Return in words the setting by which a recipe trains other than everything at once; None without one."""
    train = recipe.train
    if train.trainable != "all":
        return f"train.trainable is {train.trainable}"
    if recipe.mtp.trunk == "frozen":
        return "mtp.trunk is frozen"
    return f"train.heads_warmup_steps is {train.heads_warmup_steps}" if train.heads_warmup_steps else None


def check_warmup(heads_alone: int, steps: int | None) -> None:
    """Refuse a run that would be over before anything but heads is trained; `steps` is its length, None: not known."""
    if heads_alone and steps is not None and heads_alone >= steps:
        raise TrainingError(
            f"train.heads_warmup_steps is {heads_alone}, and the run has {steps} optimizer steps",
            hint="lower it, or set train.trainable: heads, which trains heads alone to the end",
        )


def refuse_headless(setting: str, where: str, *, has_more: bool) -> NoReturn:
    """Raise TrainingError: nothing would learn."""
    if has_more:
        why, hint = "only the next-token head is trained, which is the trunk's own", "train more heads (mtp.horizon)"
    else:
        why = "the base model has no heads besides the next-token head, which is the trunk's own"
        hint = f"make a model with more ('wmtp grow {where} DST --heads 4')"
    raise TrainingError(f"{where}: {setting}, and {why}: nothing learns", hint=f"{hint}, or train the trunk too")


def refuse_class(setting: str, whose: str) -> NoReturn:
    """Raise TrainingError: it is not known what of a model is its trunk."""
    raise TrainingError(
        f"{setting}, and {whose} does not say what its trunk is",
        hint="train all of it (train.trainable: all, mtp.trunk: trained); only models of wmtp's built-in classes have a"
        " trunk that is known",
    )


def refuse_layers(lacking: list[str], known: list[str], where: str) -> NoReturn:
    """Raise TrainingError: adapters are asked for on layers that do not exist."""
    names = ", ".join(show(name) for name in lacking)
    raise TrainingError(
        f"train.lora.target_modules names {names}, and {where} has no such linear layer in its trunk",
        hint=f"name some of {', '.join(first_few(known))}; or leave it out, for all of them",
    )


def ends_of(names: list[str]) -> list[str]:
    """Return what names of layers end in, each once: q_proj, k_proj."""
    return sorted({name.rpartition(".")[2] for name in names})


def is_named(layer: str, target: str) -> bool:
    """Say whether a layer is meant by a name, or by the end of one."""
    return layer == target or layer.endswith(f".{target}")


def _shapes(base: Checkpoint) -> Shapes:
    mapping = base.metadata.loading_strategy.state_dict_mapping
    return {name: source.shape for name, (source, _) in sources_of(mapping, base.tensors, where=base.where).items()}


def _of_heads(shapes: Shapes, metadata: ModelMetadata, heads: int | None) -> Iterator[str]:
    """Yield the names of what heads 2 to H have of their own; `heads` is H, None: all."""
    mtp = metadata.mtp
    conventions = None if mtp is None else mtp.conventions
    copies = tuple(part for field, part in _COPY_OF_TRUNK.items() if getattr(conventions, field, None) == "copied")
    last = None if mtp is not None and mtp.recursion is not None else heads  # one module may be all heads
    for name in shapes:
        if found := _OF_HEAD.match(name):
            is_trained = last is None or int(found[1]) <= last
            if is_trained and not name[found.end() :].startswith(copies):
                yield name
        elif name.startswith(_OF_ALL_HEADS):
            yield name


def _adapted(shapes: Shapes, lora: Lora, base: Checkpoint) -> Shapes:
    """Return the shapes of layers that get adapters: matrices in the trunk's numbered layers, or those that are named.

    What has a row for each token is never one of them.
    """
    matrices = {
        name.removeprefix(_TRUNK).removesuffix(_WEIGHT): shape
        for name, shape in shapes.items()
        if name.endswith(_WEIGHT) and len(shape) == 2 and not _OF_HEAD.match(name)
    }
    inside = {name: shape for name, shape in matrices.items() if _IN_A_LAYER.search(name)}
    if (targets := lora.target_modules) is None:
        return inside
    vocab_size = base.config.get("vocab_size")
    known = inside | {name: shape for name, shape in matrices.items() if shape[0] != vocab_size}
    if lacking := [each for each in targets if not any(is_named(name, each) for name in known)]:
        refuse_layers(lacking, ends_of(list(inside)), base.where)
    return {name: shape for name, shape in known.items() if any(is_named(name, each) for each in targets)}
