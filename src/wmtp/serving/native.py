"""Would a program load the native heads of a checkpoint, and draft with them? From config.json and headers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.families import HeadFamily
from wmtp.checkpoint.tensors import FLOATING, TensorInfo
from wmtp.serving.counts import count_obstacles, text_part, whole_number
from wmtp.serving.modules import FoundModules, find_modules
from wmtp.serving.programs import Modules, Program, Support
from wmtp.serving.table import programs_for
from wmtp.serving.verdict import Obstacle, Verdict
from wmtp.untrusted import first_few, plain, show, show_all

_MAX_MODULES = 64  # released models have three at most


@dataclass(frozen=True)
class NativeHeads:
    """A checkpoint of a known family, as it is asked about.

    Attributes:
        family: Its family.
        config: config.json.
        tensors: What the headers declare.
        weights: The file that tells of them.
        found: The modules that they hold.
    """

    family: HeadFamily
    config: Mapping[str, Any]
    tensors: Sequence[TensorInfo]
    weights: str
    found: FoundModules

    @property
    def text(self) -> Mapping[str, Any]:
        """The part of config.json that describes the language model."""
        return text_part(self.config)


def native_heads(
    family: HeadFamily, config: Mapping[str, Any], tensors: Sequence[TensorInfo], weights: str
) -> NativeHeads:
    """Find the modules that the tensors of a checkpoint hold."""
    depth = whole_number(text_part(config).get("num_hidden_layers")) or 0
    spread = (text_part(config).get(key) for key in family.sublayers)
    num_sublayers = next((len(value) for value in spread if isinstance(value, str | list) and value), 2)
    found = find_modules(
        family.layout,
        [tensor.name for tensor in tensors],
        depth=depth,
        num_sublayers=num_sublayers if family.sublayers else 1,
    )
    return NativeHeads(family, config, tensors, weights, found)


def native_verdict(program: Program, heads: NativeHeads, where: str) -> Verdict:
    """Return what a program does with heads in whose way nothing stands."""
    support, layout = program.drafts[heads.family.name], heads.family.layout
    conventions = {"hidden": layout.hidden, "order": layout.order, "zeroes_first": layout.zeroes_first}
    return Verdict(
        program,
        heads.family.name,
        len(heads.found.blocks),
        support.evidence,
        conventions,
        tuple(_notes(program, support, heads)),
        program.command.format(uri=where),
    )


def native_obstacles(program: Program, heads: NativeHeads) -> list[Obstacle]:
    """Return everything by which a program would not draft with these heads; nothing: it would."""
    structure = list(_structure(heads))
    if structure:
        return structure  # whatever else would be said rests on it
    support = program.drafts.get(heads.family.name)
    if support is None:
        return [_unknown(program, heads)]
    return [
        *_class(program, support, heads),
        *count_obstacles(program, support, heads.family, heads.config, len(heads.found.blocks)),
        *_modules(program, support, heads),
        *_projections(heads),
        *_needs(program, support, heads),
        *_nesting(heads),
    ]


def _structure(heads: NativeHeads) -> Iterator[Obstacle]:
    """Yield what makes the configuration unreadable, and heads that stand where no program looks."""
    nested = heads.config.get("text_config")
    if nested is not None and not isinstance(nested, dict):
        yield Obstacle(CONFIG_FILE, f"text_config is {show(nested)}, not an object", "take config.json of the release")
    needs_depth = heads.family.layout.repeats_trunk or "{n}" in heads.family.layout.block
    if needs_depth and whole_number(heads.text.get("num_hidden_layers")) is None:
        found = show(heads.text.get("num_hidden_layers"))
        yield Obstacle(
            CONFIG_FILE, f"num_hidden_layers is {found}, not a number of layers", "take config.json of the release"
        )
    elif len(heads.found.blocks) > _MAX_MODULES:
        problem = (
            f"the names are those of {len(heads.found.blocks):,} modules, and no model has more than {_MAX_MODULES}"
        )
        yield Obstacle(heads.weights, problem, "compare num_hidden_layers with that of the release")
    elif heads.found.strays and not heads.found.blocks:
        block = heads.family.layout.block.format(i=0, n=heads.found.depth)
        problem = (
            f"{show(heads.found.strays[0])} is where {heads.family.name} has no heads: theirs begin with {show(block)}"
        )
        yield Obstacle(
            heads.weights, problem, "write the modules under the names that the release has, with its num_hidden_layers"
        )


def _unknown(program: Program, heads: NativeHeads) -> Obstacle:
    reason = program.reasons.get(heads.family.name, "they are not among those that it reads")
    others = programs_for(heads.family.name)
    hint = f"serve it plainly, or draft with {' or '.join(others)}" if others else "serve it plainly"
    problem = f"model_type {show(heads.config.get('model_type'))}: {program.label} does not draft with these heads"
    return Obstacle(CONFIG_FILE, f"{problem}: {reason}", hint)


def _class(program: Program, support: Support, heads: NativeHeads) -> Iterator[Obstacle]:
    architectures = heads.config.get("architectures")
    is_sound = isinstance(architectures, list) and architectures and isinstance(architectures[0], str)
    wanted = ", ".join(map(repr, support.architectures)) or "the class of the release"
    if program.needs_class and not is_sound:
        problem = f"architectures is {show(architectures)}, and {program.label} picks the model by its first entry"
        yield Obstacle(CONFIG_FILE, problem, f"set it to a list that begins with {wanted}")
    elif support.architectures and isinstance(architectures, list) and architectures[0] not in support.architectures:
        problem = f"architectures begins with {show(architectures[0])}, whose heads {program.label} does not look for"
        yield Obstacle(CONFIG_FILE, problem, f"it has to begin with {wanted}, in a checkpoint of that class")
    model_type = heads.config.get("model_type")
    if support.model_types and model_type not in support.model_types:
        problem = f"model_type is {show(model_type)}, whose heads {program.label} does not look for"
        wanted = ", ".join(map(repr, support.model_types))
        yield Obstacle(CONFIG_FILE, problem, f"it looks for those of {wanted}: write a checkpoint of that class")


def _modules(program: Program, support: Support, heads: NativeHeads) -> Iterator[Obstacle]:
    modules, depth = sorted(heads.found.blocks), heads.found.depth
    if modules != list(range(len(modules))):
        numbers = ", ".join(first_few([str(module)[:12] for module in modules]))
        problem = f"the modules are numbered {numbers}, and not from 0 on without a gap"
        yield Obstacle(heads.weights, problem, "take all modules from the original checkpoint")
        return
    if support.modules is Modules.ONE and len(modules) > 1:
        problem = f"there are {len(modules)} modules of {heads.family.name}, and {program.label} takes one and no more"
        yield Obstacle(heads.weights, problem, "keep module 0 only, and count one")
    if support.depths and depth not in support.depths:
        problem = f"num_hidden_layers is {depth}: {program.label} finds these heads behind"
        known = " or ".join(map(str, support.depths))
        others = [label for label in programs_for(heads.family.name) if label != program.label]
        yield Obstacle(CONFIG_FILE, f"{problem} {known} layers only", f"draft with {' or '.join(others)}")
    for module in modules:
        yield from _lacking(program, heads, module)


def _lacking(program: Program, heads: NativeHeads, module: int) -> Iterator[Obstacle]:
    lacking = heads.found.lacking(heads.family.layout, module)
    if not lacking:
        return
    refused = [name for name in lacking if name.endswith(program.refused)]
    silent = [name for name in lacking if name not in refused]
    hint = "take them from the original checkpoint; transformers leaves heads out when it saves"
    if refused:
        names = ", ".join(show_all(refused))
        yield Obstacle(heads.weights, f"module {module} lacks {names}: {program.label} refuses to load it", hint)
    if silent:
        problem = f"module {module} lacks {', '.join(show_all(silent))}: {program.label} starts without a word"
        yield Obstacle(heads.weights, f"{problem}, and no draft of it is accepted", hint)


def _projections(heads: NativeHeads) -> Iterator[Obstacle]:
    hidden_size = whole_number(heads.text.get("hidden_size"))
    template = heads.family.layout.projection
    wanted = {template.format(i=i, n=heads.found.depth + i) for i in heads.found.blocks}
    for tensor in heads.tensors:
        if tensor.name not in wanted or tensor.dtype not in FLOATING:
            continue
        if hidden_size is None or tensor.shape != (hidden_size, 2 * hidden_size):
            problem = f"{show(tensor.name)} has the shape {show(list(tensor.shape))}"
            size = show(heads.text.get("hidden_size"))
            hint = "it projects from twice the hidden size to the hidden size: take both from one release"
            yield Obstacle(tensor.file, f"{problem}, and config.json has the hidden_size {size}", hint)


def _needs(program: Program, support: Support, heads: NativeHeads) -> Iterator[Obstacle]:
    for need in support.needs:
        found = heads.text.get(need.key, heads.config.get(need.key))
        if found == need.value and type(found) is type(need.value):
            continue
        if found is None and need.may_be_absent:
            continue
        problem = f"{need.key} is {show(found) if found is not None else 'missing'}, and {program.label} needs"
        wanted = show(need.value)
        yield Obstacle(CONFIG_FILE, f"{problem} {wanted}: {need.why}", f"set {need.key} to {wanted}")
    for name in support.tensors:
        if name not in heads.found.names:
            problem = f"{show(name)} is missing, and {program.label} needs it beside the heads"
            yield Obstacle(heads.weights, problem, "write it out, a copy of the embedding where they are tied")


def _nesting(heads: NativeHeads) -> Iterator[Obstacle]:
    """Hold the names of the trunk to the class: heads beside a trunk of the other class are not found."""
    start = heads.family.nested_trunk
    if start is None:
        return
    has_nested = any(name.startswith(start) for name in heads.found.names)
    is_nested = heads.text is not heads.config
    if is_nested and not has_nested:
        problem = f"config.json has a text_config, and no name of the trunk begins with {show(start)}"
        yield Obstacle(heads.weights, problem, "write config.json and names as the release has them, both of one class")
    elif has_nested and not is_nested:
        problem = f"names of the trunk begin with {show(start)}, and config.json has no text_config"
        yield Obstacle(heads.weights, problem, "write config.json and names as the release has them, both of one class")


def _notes(program: Program, support: Support, heads: NativeHeads) -> Iterator[str]:
    num_modules = len(heads.found.blocks)
    if support.modules is Modules.FIRST and num_modules > 1:
        yield f"note: {program.label} {support.modules.value}, of {num_modules}; the others draft nothing"
    if heads.found.strays:
        names = ", ".join(plain(name) for name in first_few(heads.found.strays))
        yield f"note: skipped in silence, as not of the family: {names}"
    if program.has_medusa and heads.text is not heads.config and heads.config.get("vocab_size") is None:
        yield "note: as a target of Medusa heads, config.json would need a vocab_size at its top level too"
