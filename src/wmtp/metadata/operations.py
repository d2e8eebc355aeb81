"""How a parameter is made of stored tensors: a closed set of operations, each of which can be undone.

`state_dict_mapping.tensors` of metadata.json is an object from a parameter's name to one of them. Names may have
places for numbers, such as `{i}`: a rule holds for every number that occurs. Whether it fits the tensors is proven by
the load plan; here stands what can be said of the text alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, ValidationInfo, field_validator

from wmtp.faults import CHOICE, Fault, FieldFaults, StrictModel
from wmtp.metadata.rearrangement import parse_rearrangement
from wmtp.untrusted import show, show_all

_MAX_NAME_BYTES = 512
_MAX_PARTS = 1024
_MAX_DIMENSION = 15
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_BESIDE_A_NUMBER = re.compile(r"\d\{|\}\d|\}\{")

Dimension = Annotated[int, Field(ge=0, le=_MAX_DIMENSION)]
Size = Annotated[int, Field(ge=1, le=1 << 40)]
Variable = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]


def name_fault(name: str) -> str | None:
    """Say what is wrong with a name that may have places for numbers, or return None."""
    if not name or len(name.encode()) > _MAX_NAME_BYTES:
        return f"is empty or longer than {_MAX_NAME_BYTES} bytes"
    if set("{}") & set(_PLACE.sub("", name)):
        return f"is {show(name)}, where a brace does not belong to a place such as {{i}}"
    if _BESIDE_A_NUMBER.search(name):
        return f"is {show(name)}, where a place for a number has a digit or another place beside it"
    return None


def places(name: str) -> list[str]:
    """Return the variables of a name, in order."""
    return _PLACE.findall(name)


class _Operation(StrictModel):
    """What has parts."""

    @property
    def parts(self) -> list[Part]:
        """What it is made of."""
        of: Part | list[Part] = self.of  # type: ignore[attr-defined]
        return of if isinstance(of, list) else [of]

    @property
    def variable(self) -> str | None:
        """What stands for the number of a part, where there is one part for every number that occurs."""
        return self.__dict__.get("each")


def _one_or_a_list(of: Part | list[Part], info: ValidationInfo) -> Part | list[Part]:
    if "each" not in info.data:
        return of  # at fault itself
    if isinstance(of, list) and info.data["each"] is not None:
        raise FieldFaults(Fault((), "is a list, and each goes with one part, which is used for every number"))
    if not isinstance(of, list) and info.data["each"] is None:
        raise FieldFaults(Fault((), "is one part: name in each the number that runs over it, or make it a list"))
    return of


class Stack(_Operation):
    """Parts of one shape, one behind the other along a new dimension."""

    stack: Dimension = Field(description="Which dimension of the result tells the parts apart.")
    each: Variable | None = Field(None, description="A number that runs from 0 over what occurs.")
    of: Annotated[Parts, AfterValidator(_one_or_a_list)] = Field(description="One part with each, else a list.")


class Concatenate(_Operation):
    """Parts joined along a dimension that they have."""

    concatenate: Dimension = Field(description="Along which dimension.")
    each: Variable | None = Field(None, description="A number that runs from 0 over what occurs.")
    of: Annotated[Parts, AfterValidator(_one_or_a_list)] = Field(description="One part with each, else a list.")


class Split(_Operation):
    """One of the pieces that a dimension is cut into."""

    split: Dimension = Field(description="Which dimension is cut.")
    sizes: Annotated[list[Size], Field(min_length=2, max_length=_MAX_PARTS)] = Field(description="Of all pieces.")
    take: Annotated[int, Field(ge=0)] = Field(description="Which of them, from 0; another rule takes each other one.")
    of: One

    @field_validator("take")
    @classmethod
    def _is_a_piece(cls, take: int, info: ValidationInfo) -> int:
        sizes = info.data.get("sizes", [])
        if sizes and take >= len(sizes):
            raise FieldFaults(Fault((), f"is {take}, and sizes has {len(sizes)} pieces, counted from 0"))
        return take


class Rearrange(_Operation):
    """Dimensions divided into axes, put in another order and joined again."""

    rearrange: Annotated[str, Field(max_length=256)] = Field(description="In einops' notation: '(a b) c -> (b a) c'.")
    sizes: dict[str, Size] = Field({}, description="Of axes, where the dimensions leave them open.")
    of: One

    @field_validator("rearrange")
    @classmethod
    def _is_a_rearrangement(cls, text: str) -> str:
        try:
            parse_rearrangement(text)
        except ValueError as error:
            raise FieldFaults(Fault((), str(error))) from error
        return text

    @field_validator("sizes")
    @classmethod
    def _are_of_its_axes(cls, sizes: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        if "rearrange" not in info.data:
            return sizes
        axes = {axis for group in parse_rearrangement(info.data["rearrange"]).before for axis in group}
        if unknown := [axis for axis in sizes if axis not in axes]:
            raise FieldFaults(Fault((), f"has {', '.join(show_all(unknown))}, which are no axes of the rearrangement"))
        return sizes


class Dequantise(_Operation):
    """Values stored in fewer bits, with scales beside them."""

    model_config = ConfigDict(validate_default=True)

    dequantise: Literal["fp8_block", "mxfp4"] = Field(
        description="fp8_block: one scale for a block of a matrix. mxfp4: two 4-bit values a byte, a scale for 32."
    )
    of: One
    scales: One
    block: Annotated[list[Size], Field(min_length=2, max_length=2)] | None = Field(
        None, description="fp8_block: rows and columns that have one scale."
    )
    dtype: Literal["BF16", "F16", "F32"] = Field("BF16", description="Of the values that come out.")

    @field_validator("block")
    @classmethod
    def _fits_the_kind(cls, block: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if (block is None) == (info.data.get("dequantise") == "fp8_block"):
            raise FieldFaults(Fault((), "is for fp8_block, which needs it, and for no other kind"))
        return block

    @property
    def parts(self) -> list[Part]:
        """The values in fewer bits, and their scales."""
        return [self.of, self.scales]


_KINDS = {kind.__name__.lower(): kind for kind in (Stack, Concatenate, Split, Rearrange, Dequantise)}


def _choice(value: Any) -> str | None:
    """Which of the types below a value is meant to be."""
    if isinstance(value, str):
        return f"{CHOICE}name"
    if isinstance(value, list):
        return f"{CHOICE}list"
    keys = value if isinstance(value, Mapping) else [type(value).__name__.lower()]
    return next((f"{CHOICE}{kind}" for kind in _KINDS if kind in keys), None)


def _chooser(expected: str) -> Discriminator:
    return Discriminator(_choice, custom_error_type="operation", custom_error_message=f"expected {expected}")


_ONE_OF = f"an object with one of {', '.join(_KINDS)}"
_Made = (
    Annotated[Stack, Tag(f"{CHOICE}stack")]
    | Annotated[Concatenate, Tag(f"{CHOICE}concatenate")]
    | Annotated[Split, Tag(f"{CHOICE}split")]
    | Annotated[Rearrange, Tag(f"{CHOICE}rearrange")]
    | Annotated[Dequantise, Tag(f"{CHOICE}dequantise")]
)
Operation = Annotated[_Made, _chooser(_ONE_OF)]
Part = Stack | Concatenate | Split | Rearrange | Dequantise | str
One = Annotated[Annotated[str, Tag(f"{CHOICE}name")] | _Made, _chooser(f"a tensor's name, or {_ONE_OF}")]
Parts = Annotated[
    Annotated[str, Tag(f"{CHOICE}name")]
    | Annotated[Annotated[list[One], Field(min_length=1, max_length=_MAX_PARTS)], Tag(f"{CHOICE}list")]
    | _Made,
    _chooser(f"a tensor's name, a list of parts, or {_ONE_OF}"),
]
for _kind in _KINDS.values():
    _kind.model_rebuild()


def operations_in(part: Part) -> Iterator[Operation]:
    """Yield a rule's operation and all those within it."""
    waiting = [part]
    while waiting:
        if not isinstance(part := waiting.pop(), str):
            yield part
            waiting += part.parts


def tensor_names(part: Part) -> Iterator[str]:
    """Yield the names of the tensors that a part is made of, with their places for numbers, in order."""
    if isinstance(part, str):
        yield part
        return
    for inside in part.parts:
        yield from tensor_names(inside)
