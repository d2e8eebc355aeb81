"""The fields of metadata.json, storage version 2.0, and the rules that hold within the file itself.

What must agree with other files (config.json, tensors) is proven later, by the load plan.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from wmtp.faults import Fault, FieldFaults, StrictModel
from wmtp.manifest import SHA256, FileDigests, RelativeName, refuse_twins
from wmtp.metadata.heads import MTPInfo, PositiveInt
from wmtp.metadata.tensor_rules import TensorRules
from wmtp.metadata.transforms import MAX_RULE_BYTES, transform_fault
from wmtp.registry import Registry, algorithms, loading_strategies
from wmtp.untrusted import show

STORAGE_VERSION = "2.0"
_MAX_RULES = 256
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
_CLASS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")

WmtpType = Literal["base_model", "reference_model", "reward_model"]

# What the format asks of the built-in strategies; a plug-in checks its own fields when it plans.
_NEEDS = {"custom_mtp": "model_class_name", "huggingface": "transformers_class"}
_FORBIDS = {"custom_mtp": ("transformers_class",), "huggingface": ("model_class_name", "custom_module_file")}


def _known_in(registry: Registry[Any]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in registry.names():
            raise FieldFaults(Fault((), f"is {show(name)}", registry.hint_for(name)))
        return name

    return AfterValidator(check)


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise FieldFaults(Fault((), f"is {show(text)}, which is not {what}"))
        return text

    return AfterValidator(check)


Identifier = Annotated[str, _matching(_IDENTIFIER, "an identifier such as 'llama'")]
ClassName = Annotated[str, _matching(_CLASS_NAME, "the plain name of a class")]
AlgorithmName = Annotated[str, _known_in(algorithms)]
LoaderType = Annotated[str, _known_in(loading_strategies)]
Globs = Annotated[list[Annotated[str, Field(min_length=1, max_length=MAX_RULE_BYTES)]], Field(max_length=_MAX_RULES)]


class StateDictMapping(StrictModel):
    """How tensor names in the files become parameter names of the model.

    Applied to every tensor name in this order: `remove_prefix`, `key_transforms`, `add_prefix`.
    """

    remove_prefix: str | None = Field(None, min_length=1, description="Removed from the names that begin with it.")
    add_prefix: str | None = Field(None, min_length=1, description="Put before every name, last.")
    key_transforms: dict[str, str] = Field({}, description="RE2 pattern -> replacement, applied in file order.")
    tensors: TensorRules = Field({}, max_length=_MAX_RULES, description="How parameters are made of several tensors.")
    allow_missing: Globs = Field(
        [], description="Globs of parameter and persistent buffer names that may lack a tensor."
    )
    allow_unexpected: Globs = Field([], description="Globs of tensor names that may be left unused.")

    @field_validator("key_transforms")
    @classmethod
    def _transforms_are_bounded_and_compile(cls, transforms: dict[str, str]) -> dict[str, str]:
        if len(transforms) > _MAX_RULES:
            raise FieldFaults(Fault((), f"has {len(transforms):,} rules, at most {_MAX_RULES} are allowed"))
        if faults := [Fault((), problem) for rule in transforms.items() if (problem := transform_fault(*rule))]:
            raise FieldFaults(*faults)
        return transforms


def _without_twins(names: list[str]) -> list[str]:
    refuse_twins(names)
    return names


RequiredFiles = Annotated[list[RelativeName], AfterValidator(_without_twins)]


class LoadingStrategy(StrictModel):
    """Which code builds the model and how its tensors are named."""

    model_config = ConfigDict(validate_default=True)

    loader_type: LoaderType = Field(description="A registered strategy: custom_mtp, huggingface, or a plug-in's.")
    model_class_name: ClassName | None = Field(None, description="custom_mtp: its own or a registered class.")
    custom_module_file: RelativeName | None = Field(None, description="The *.py file of its own class; needs consent.")
    transformers_class: ClassName | None = Field(None, description="huggingface: a class that transformers exports.")
    state_dict_mapping: StateDictMapping = StateDictMapping()
    required_files: RequiredFiles = Field(min_length=1, description="Relative paths; all must be there.")

    @field_validator("model_class_name", "custom_module_file", "transformers_class")
    @classmethod
    def _field_fits_the_strategy(cls, value: str | None, info: ValidationInfo) -> str | None:
        loader_type, field = info.data.get("loader_type", ""), info.field_name
        if value is None and field == _NEEDS.get(loader_type):
            raise FieldFaults(Fault((), f"is missing, and loader_type {loader_type!r} needs it"))
        if value is not None and field in _FORBIDS.get(loader_type, ()):
            problem = f"is {show(value)}, and loader_type {loader_type!r} has no use for it"
            raise FieldFaults(Fault((), problem, "set it to null"))
        return value

    @field_validator("custom_module_file")
    @classmethod
    def _module_is_python(cls, value: str | None) -> str | None:
        # ASCII: people copy this name, with a hash, into the line by which they agree to run it.
        if value is not None and not (value.isascii() and value.endswith(".py")):
            raise FieldFaults(Fault((), f"is {show(value)}, which is not a plain ASCII name that ends in .py"))
        return value


class TokenizerInfo(StrictModel):
    """Fingerprint of a tokenizer; models of one run must agree where both give it."""

    sha256: SHA256 = Field(description="SHA-256 over vocabulary, merges and special tokens.")
    vocab_size: PositiveInt | None = None


class ModelMetadata(StrictModel):
    """One checkpoint's declaration of what it is and how it loads."""

    model_config = ConfigDict(title="wmtp metadata.json, storage version 2.0")

    schema_: str | None = Field(None, alias="$schema", description="Where the JSON Schema stands, for editors.")
    wmtp_type: WmtpType = Field(description="Trained (base), scores tokens (reference) or sequences (reward).")
    training_algorithm: Literal["mtp", "baseline", "critic", "rho1"] = Field(description="What made the checkpoint.")
    base_architecture: Identifier = Field(description="A model type such as llama; equal to that in config.json.")
    storage_version: Literal["2.0"]
    loading_strategy: LoadingStrategy
    algorithm_compatibility: list[AlgorithmName] = Field(description="Algorithms that it may serve, in its role.")
    horizon: PositiveInt | None = Field(None, description="Older spelling of mtp.n_future_tokens.")
    n_heads: PositiveInt | None = Field(None, description="Older spelling of mtp.n_future_tokens.")
    mtp: MTPInfo | None = None
    tokenizer: TokenizerInfo | None = None
    files: FileDigests | None = Field(None, description="Digests, checked when fetched and by validate --deep.")
    model_size: str | None = None
    created_by: str | None = None
    standardization_date: str | None = None
    original_format: str | None = None
    source_path: str | None = None
    dtype: str | None = None
    provenance: dict[str, Any] | None = Field(None, description="Written by training: recipe, data, parents, versions.")
    extra: dict[str, Any] | None = Field(None, description="Free-form; the place for anything else.")

    @field_validator("n_heads", "mtp")
    @classmethod
    def _head_counts_agree(cls, value: int | MTPInfo | None, info: ValidationInfo) -> int | MTPInfo | None:
        strategy = info.data.get("loading_strategy")
        # On a transformers class the older spellings describe the run that the model served.
        if value is None or strategy is None or strategy.transformers_class is not None:
            return value
        path, count = (("n_future_tokens",), value.n_future_tokens) if isinstance(value, MTPInfo) else ((), value)
        for field in ("horizon", "n_heads"):
            if (other := info.data.get(field)) not in (None, count):
                raise FieldFaults(Fault(path, f"is {count}, but {field} is {other}"))
        return value

    @property
    def num_heads(self) -> int | None:
        """Prediction heads, counting the next-token head; None when the file does not say."""
        if self.mtp is not None:
            return self.mtp.n_future_tokens
        if self.loading_strategy.transformers_class is not None:
            return 1
        return self.horizon or self.n_heads
