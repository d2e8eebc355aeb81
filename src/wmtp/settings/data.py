"""The `data` section of a recipe: which files are read, as what, and what is held out."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from typing_extensions import override

from wmtp.faults import Fault, FieldFaults, StrictModel
from wmtp.settings.config import OneOrMany
from wmtp.settings.yaml_file import beside_file
from wmtp.untrusted import show

_KEYS_OF_FORMAT = {
    "text": ("text",),
    "raw_text": (),
    "prompt_completion": ("prompt", "completion", "template"),
    "chat": ("messages",),
}
_ALL_KEYS = tuple(key for keys in _KEYS_OF_FORMAT.values() for key in keys)
_REMOTE = ("s3://", "gs://", "az://", "hf://datasets/")
_PLACES = ("{prompt}", "{completion}")


def _pattern(text: str, info: ValidationInfo) -> str:
    if text.startswith(_REMOTE):
        return text
    if "://" in text:
        problem = f"is {show(text)}, and data is read from local files, {', '.join(_REMOTE)}"
        raise FieldFaults(Fault((), problem, "copy it here and name the copy"))
    # The directory is a place, not a pattern: brackets in its name must not be read as one.
    return beside_file(text, info, quote=glob.escape)


def _template(text: str) -> str:
    places = [text.find(place) for place in _PLACES if text.count(place) == 1]
    if len(places) != len(_PLACES) or places != sorted(places):
        hint = 'write {prompt} once and {completion} once after it, as in "{prompt}\\n{completion}"'
        raise FieldFaults(Fault((), f"is {show(text)}", hint))
    return text


Pattern = Annotated[str, Field(min_length=1), AfterValidator(_pattern)]
JSONKey = Annotated[str, Field(min_length=1)]


class Reading(StrictModel):
    """Documents to read."""

    files: Annotated[list[Pattern], OneOrMany] = Field(
        default_factory=list, description="Files, directories or glob patterns, seen from the recipe's directory."
    )
    format: Literal["text", "raw_text", "prompt_completion", "chat"] = Field(
        "text",
        description="text: text files, and JSON with a text in each object; every token is learned. raw_text: the same,"
        " and JSON is learned as it stands. prompt_completion: JSON or tables; the completion is learned. chat: JSON or"
        " tables; what the assistant says is learned.",
    )
    text: JSONKey = Field("text", description="Format text: the key that holds the text in JSON files.")
    prompt: JSONKey = Field("prompt", description="Format prompt_completion: the key that holds the prompt.")
    completion: JSONKey = Field("completion", description="Format prompt_completion: the key of the completion.")
    messages: JSONKey = Field(
        "messages", description="Format chat: the key that holds the turns, each with role and content."
    )
    template: Annotated[str, AfterValidator(_template)] = Field(
        "".join(_PLACES),
        description="Format prompt_completion: what the model reads. What stands before {completion} is not learned.",
    )

    @model_validator(mode="after")
    def _keys_belong_to_the_format(self) -> Self:
        for other, keys in _KEYS_OF_FORMAT.items():
            for key in keys:
                value, default = getattr(self, key), type(self).model_fields[key].default
                if other != self.format and value != default:
                    problem = f"is {show(value)}, and format {self.format!r} does not use it"
                    raise FieldFaults(Fault((key,), problem, f"set format: {other}, or remove {key}"))
        return self


class WeightedSource(Reading):
    """One of several sources of training data. What is not given here is as in `train`."""

    files: Annotated[list[Pattern], Field(min_length=1), OneOrMany] = Field(
        description="Files, directories or glob patterns, seen from the recipe's directory."
    )
    weight: float = Field(1.0, gt=0, le=1e6, description="Share of the rows of an epoch, relative to other sources.")


class DataSource(Reading):
    """Documents to read, and how they become rows of tokens."""

    max_length: int = Field(2048, ge=2, description="Tokens in a row.")
    packing: bool = Field(True, description="Put several documents in a row; attention stays within each.")

    @property
    def parts(self) -> Sequence[Reading]:
        """What is read, source by source."""
        return [self]


class TrainingData(DataSource):
    """What is trained on: files, or several sources with weights."""

    sources: list[WeightedSource] = Field(
        default_factory=list,
        description="In the place of files: several sources, each with a weight; fields as in train where not given.",
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _the_rest_as_here(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, list):
            return value
        own = {name: info.data[name] for name in ("format", *_ALL_KEYS) if name in info.data}
        return [
            {**(own if each.get("format", own.get("format")) == own.get("format") else {}), **each}
            if isinstance(each, dict)
            else each
            for each in value
        ]

    @model_validator(mode="after")
    def _files_or_sources(self) -> Self:
        if bool(self.files) == bool(self.sources):
            raise FieldFaults(Fault(("files",), "needs either files or sources", "write one of the two"))
        return self

    @property
    @override
    def parts(self) -> Sequence[Reading]:
        return self.sources or [self]


class ValidationData(DataSource):
    """What is measured on: files of its own, or a share of the training documents. The rest is as in `train`."""

    fraction: float | None = Field(
        None, gt=0, lt=1, description="Share of the training documents to hold out; the same ones for every seed."
    )

    @model_validator(mode="after")
    def _files_or_fraction(self) -> Self:
        if bool(self.files) == (self.fraction is not None):
            raise FieldFaults(Fault((), "needs either files or fraction", "write one of the two"))
        return self


class Data(StrictModel):
    """What is read."""

    train: TrainingData
    validation: ValidationData | None = Field(
        None, description="Fields that are not given here are as in train; null: no validation."
    )
    num_proc: int = Field(1, ge=1, le=256, description="Processes that tokenize.")

    @property
    def packs(self) -> bool:
        """Whether any row may hold several documents."""
        return self.train.packing or (self.validation is not None and self.validation.packing)

    @field_validator("validation", mode="before")
    @classmethod
    def _the_rest_as_in_train(cls, value: Any, info: ValidationInfo) -> Any:
        train = info.data.get("train")
        if train is None or not isinstance(value, dict):
            return value
        inherited = train.model_dump(exclude={"files", "sources"})
        if value.get("fraction") is not None:
            _refuse_another_reading(value, train)
        if value.get("format", train.format) != train.format:
            inherited = {name: inherited[name] for name in ("max_length", "packing")}
        return {**inherited, **value}


def _refuse_another_reading(value: dict[str, Any], train: TrainingData) -> None:
    """Raise FieldFaults where documents that are held out of the training data should be read in another way."""
    names = ["format", *_ALL_KEYS]
    different = [name for name in names if name in value and value[name] != getattr(train, name)]
    if different:
        hint = "what is held out is read as data.train says: remove it, or name files in the place of fraction"
        problems = [
            (name, f"is {show(value[name])}, in data.train it is {show(getattr(train, name))}") for name in different
        ]
        raise FieldFaults(*(Fault((name,), problem, hint) for name, problem in problems))
