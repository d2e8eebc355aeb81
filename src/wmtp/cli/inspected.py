"""What `wmtp inspect` says to a person."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wmtp.cli.output import table
from wmtp.untrusted import first_few, plain
from wmtp.wording import counted, size

if TYPE_CHECKING:
    from wmtp.checkpoint.tensors import TensorInfo
    from wmtp.load_plan.heads import StoredHead
    from wmtp.metadata.heads import MTPInfo, SequentialConventions
    from wmtp.metadata.operations import Operation
    from wmtp.metadata.schema import ModelMetadata, StateDictMapping

# In which dtype the values of each kind of quantisation are stored.
_STORED_AS = {"fp8_block": "F8_E4M3", "mxfp4": "U8"}


def inspected(
    facts: dict[str, Any], metadata: ModelMetadata, heads: list[StoredHead], tensors: list[TensorInfo]
) -> Iterator[str]:
    """Yield the facts of a checkpoint in lines.

    Args:
        facts: As `--json` gives them.
        metadata: Its declaration.
        heads: Where its files hold prediction heads.
        tensors: Those to list.
    """
    strategy = metadata.loading_strategy
    code = f" from {plain(strategy.custom_module_file)}" if strategy.custom_module_file else ""
    yield plain(facts["uri"])
    yield f"  type        {metadata.wmtp_type}, made by {metadata.training_algorithm}"
    yield f"  class       {strategy.model_class_name or strategy.transformers_class}{code} ({strategy.loader_type})"
    yield f"  model       {metadata.base_architecture}, {_number_of_heads(metadata.num_heads)}"
    yield from _heads(metadata.mtp, heads) if metadata.mtp is not None else ()
    yield f"  algorithms  {', '.join(metadata.algorithm_compatibility) or 'none'}"
    for target, rule in strategy.state_dict_mapping.tensors.items():
        yield f"  made        {plain(target)} {_how(rule)}"
    if unused := strategy.state_dict_mapping.allow_unexpected:
        yield f"  left unused {', '.join(first_few([plain(glob) for glob in unused]))}"
    yield f"  tensors     {facts['num_tensors']}, {facts['num_parameters']:,} parameters, {size(facts['tensor_bytes'])}"
    values = _loaded_as(strategy.state_dict_mapping)
    for dtype, counts in facts["dtypes"].items():
        becomes = f", loaded as {values[dtype]}" if dtype in values else ""
        num_tensors = counted(counts["num_tensors"], "tensor")
        yield f"  {dtype:<11} {num_tensors}, {counts['num_parameters']:,} parameters{becomes}"
    yield ""
    yield from table([(plain(f["name"]), size(f["size_bytes"])) for f in facts["files"]], ("FILE", "SIZE"))
    if tensors:
        yield ""
        rows = [(plain(t.name), t.dtype, list(t.shape), plain(t.file)) for t in tensors]
        yield from table(rows, ("TENSOR", "DTYPE", "SHAPE", "FILE"))


def _number_of_heads(num_heads: int | None) -> str:
    return "number of heads not declared" if num_heads is None else counted(num_heads, "head")


def _heads(mtp: MTPInfo, heads: list[StoredHead]) -> Iterator[str]:
    of_type = f" of the type {mtp.head_type}" if mtp.head_type is not None else ""
    yield f"  heads       {mtp.kind}{of_type}{_modules(mtp)}"
    for head in heads:
        begins = ", ".join(first_few([plain(begin) for begin in head.begins]))
        yield f"  head {head.number:<6} {counted(head.num_tensors, 'tensor')} in {begins}"
    if mtp.conventions is not None:
        yield f"  conventions {_said(mtp.conventions)}"


def _modules(mtp: MTPInfo) -> str:
    if mtp.conventions is None:
        return ""
    again = f", run {mtp.recursion} times" if (mtp.recursion or 1) > 1 else ""
    return f": {counted(len(mtp.conventions.block_like), 'native module')} after the trunk's next-token head{again}"


def _said(conventions: SequentialConventions) -> str:
    values = conventions.model_dump(mode="json", exclude_none=True)
    return ", ".join(f"{field} {plain(json.dumps(value).strip(chr(34)))}" for field, value in values.items())


def _how(rule: Operation) -> str:
    from wmtp.metadata.operations import operations_in, tensor_names

    names = ", ".join(first_few([plain(name) for name in tensor_names(rule)]))
    kinds = dict.fromkeys(type(operation).__name__.lower() for operation in operations_in(rule))
    return f"of {names} by {', '.join(kinds)}"


def _loaded_as(mapping: StateDictMapping) -> dict[str, str]:
    """Return the dtypes of values in fewer bits that rules dequantise, with what these become."""
    from wmtp.metadata.operations import Dequantise, operations_in

    operations = [each for rule in mapping.tensors.values() for each in operations_in(rule)]
    return {_STORED_AS[each.dequantise]: each.dtype for each in operations if isinstance(each, Dequantise)}
