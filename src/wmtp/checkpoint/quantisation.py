"""What config.json says of values that are stored in fewer bits, held to what metadata.json declares of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from wmtp.errors import MetadataError
from wmtp.faults import StrictModel, faults_error, model_faults
from wmtp.metadata.operations import Dequantise, Operation, operations_in
from wmtp.untrusted import show

_KEY = "quantization_config"
_KINDS = {"fp8": "fp8_block", "mxfp4": "mxfp4"}


class _Quantisation(StrictModel):
    """The keys that are known; of what others mean for the values nothing is known."""

    quant_method: Literal["fp8", "mxfp4"]
    fmt: Literal["e4m3"] = "e4m3"
    scale_fmt: Literal["ue8m0", "float"] | None = None
    weight_block_size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    activation_scheme: Literal["dynamic"] = "dynamic"  # of computation in 8 bits, which is not done here
    modules_to_not_convert: list[str] | None = None
    ignored_layers: list[str] | None = None
    dequantize: bool = False


def without_quantisation(config: dict[str, Any], rules: dict[str, Operation], *, where: str) -> dict[str, Any]:
    """Return config.json as that of the plain model, where metadata.json declares how plain values are made.

    Without such a rule it is returned as it is: `quantization_config` is then refused like other keys that change what
    a model is.

    Args:
        config: config.json.
        rules: `state_dict_mapping.tensors`.
        where: The checkpoint, as errors show it.

    Raises:
        MetadataError: If `quantization_config` has unknown keys, or another kind or block than the rules.
    """
    found = config.get(_KEY)
    used = [each for rule in rules.values() for each in operations_in(rule) if isinstance(each, Dequantise)]
    if not used or not isinstance(found, dict) or found.get("quant_method") not in _KINDS:
        return config
    try:
        declared = _Quantisation.model_validate(found)
    except ValidationError as error:
        raise faults_error(
            model_faults(error, _Quantisation),
            where=f"{where}/config.json: {_KEY}",
            error=MetadataError,
            hint="of values stored like this it is not known how plain ones are made: take the plain checkpoint",
        ) from error
    for operation in used:
        _check(operation, declared, where)
    return {key: value for key, value in config.items() if key != _KEY}


def _check(operation: Dequantise, declared: _Quantisation, where: str) -> None:
    field = f"{where}/metadata.json: loading_strategy.state_dict_mapping.tensors has dequantise"
    if operation.dequantise != _KINDS[declared.quant_method]:
        raise MetadataError(
            f"{field} {show(operation.dequantise)}, but config.json has {_KEY}.quant_method"
            f" {show(declared.quant_method)}",
            hint=f"the operation for it is {_KINDS[declared.quant_method]!r}",
        )
    if operation.block and declared.weight_block_size and operation.block != declared.weight_block_size:
        raise MetadataError(
            f"{field} with block {operation.block}, but config.json has {_KEY}.weight_block_size"
            f" {declared.weight_block_size}",
            hint="set block in metadata.json to what config.json has",
        )
