"""The fields of metadata.json, storage version 2.0, and the rules that hold within the file itself.

What must agree with other files (config.json, tensors) is proven later, by the load plan.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from wmtp.manifest import SHA256, FileDigest, RelativeName
from wmtp.registry import Registry, algorithms, loading_strategies
from wmtp.untrusted import StrictModel, show

STORAGE_VERSION = "2.0"
_MAX_RULES, _MAX_RULE_BYTES = 256, 1024
# In a replacement only \1..\9 and \\ are special.
_REPLACEMENT = re.compile(r"(?:[^\\]|\\[1-9\\])*", re.DOTALL)
_GROUP = re.compile(r"\\\\|\\([1-9])")
_IDENTIFIER = re.compile(r"^[A-Za-z][A-Za-z0-9_.-]{0,127}$")
_CLASS_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,127}$")

WmtpType = Literal["base_model", "reference_model", "reward_model"]

# What the format asks of the built-in strategies; a plug-in checks its own fields when it plans.
_NEEDS = {"custom_mtp": "model_class_name", "huggingface": "transformers_class"}
_FORBIDS = {"custom_mtp": ("transformers_class",), "huggingface": ("model_class_name", "custom_module_file")}


def _known_in(registry: Registry[Any]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in registry.names():
            raise ValueError(f"is {show(name)}; {registry.hint_for(name)}")
        return name

    return AfterValidator(check)


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.match(text):
            raise ValueError(f"is {show(text)}, which is not {what}")
        return text

    return AfterValidator(check)


Identifier = Annotated[str, _matching(_IDENTIFIER, "an identifier such as 'llama'")]
ClassName = Annotated[str, _matching(_CLASS_NAME, "the plain name of a class")]
AlgorithmName = Annotated[str, _known_in(algorithms)]
LoaderType = Annotated[str, _known_in(loading_strategies)]
PositiveInt = Annotated[int, Field(ge=1)]


class StateDictMapping(StrictModel):
    """How tensor names in the files become parameter names of the model.

    Applied to every tensor name in this order: `remove_prefix`, `key_transforms`, `add_prefix`.
    """

    remove_prefix: str | None = Field(None, min_length=1, description="Removed from the names that begin with it.")
    add_prefix: str | None = Field(None, min_length=1, description="Put before every name, last.")
    key_transforms: dict[str, str] = Field(
        default_factory=dict,
        description=r"RE2 pattern, found anywhere in the name -> replacement, in file order; \1..\9 are groups.",
    )
    allow_missing: list[str] = Field(
        default_factory=list, description="Shell globs of parameter or persistent buffer names that may lack a tensor."
    )
    allow_unexpected: list[str] = Field(
        default_factory=list, description="Shell globs of tensor names that may be left unused."
    )

    @model_validator(mode="after")
    def _transforms_are_bounded_and_compile(self) -> Self:
        if len(self.key_transforms) > _MAX_RULES:
            raise ValueError(f"key_transforms has {len(self.key_transforms)} rules, at most {_MAX_RULES} are allowed")
        for pattern, replacement in self.key_transforms.items():
            _check_transform(pattern, replacement)
        return self


def _check_transform(pattern: str, replacement: str) -> None:
    import re2  # only checkpoints with transforms pay for it

    if max(len(pattern.encode()), len(replacement.encode())) > _MAX_RULE_BYTES:
        raise ValueError(f"key_transforms has a rule longer than {_MAX_RULE_BYTES} bytes: {show(pattern)}")
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options=options)
    except re2.error as error:
        raise ValueError(f"key_transforms: {show(pattern)} is not an RE2 pattern: {show(str(error))}") from error
    if not _REPLACEMENT.fullmatch(replacement):
        raise ValueError(
            f"key_transforms: in {show(replacement)} a backslash is followed by neither 1-9 nor a backslash"
        )
    groups = [int(group) for group in _GROUP.findall(replacement) if group]
    if groups and max(groups) > compiled.groups:
        raise ValueError(
            f"key_transforms: {show(replacement)} names group {max(groups)}, but {show(pattern)} has {compiled.groups}"
        )


class LoadingStrategy(StrictModel):
    """Which code builds the model and how its tensors are named."""

    loader_type: LoaderType = Field(
        description="A registered loading strategy: custom_mtp, huggingface, or a plug-in's."
    )
    model_class_name: ClassName | None = Field(
        None,
        description="custom_mtp: the class in custom_module_file, or a registered class when there is no such file.",
    )
    custom_module_file: RelativeName | None = Field(
        None, description="A *.py file inside the checkpoint; running it needs the operator's consent by hash."
    )
    transformers_class: ClassName | None = Field(
        None, description="huggingface: an AutoModel* class or a model class that transformers exports."
    )
    state_dict_mapping: StateDictMapping = Field(default_factory=StateDictMapping)
    required_files: list[RelativeName] = Field(
        min_length=1, description="Relative paths; all must be there, and they are what is fetched."
    )

    @model_validator(mode="after")
    def _fields_fit_the_strategy(self) -> Self:
        needed = _NEEDS.get(self.loader_type)
        if needed and getattr(self, needed) is None:
            raise ValueError(f"{needed} is missing, and loader_type {self.loader_type!r} needs it")
        for field in _FORBIDS.get(self.loader_type, ()):
            if (found := getattr(self, field)) is not None:
                raise ValueError(
                    f"{field} is {show(found)}, and loader_type {self.loader_type!r} has no use for it: set it to null"
                )
        if self.custom_module_file and not self.custom_module_file.endswith(".py"):
            raise ValueError(f"custom_module_file is {show(self.custom_module_file)}, which does not end in .py")
        if len(set(self.required_files)) != len(self.required_files):
            raise ValueError("required_files names a file twice")
        return self


class MTPInfo(StrictModel):
    """The prediction heads of a multi-token prediction model."""

    kind: Literal["parallel_heads", "sequential"] = "parallel_heads"
    n_future_tokens: PositiveInt = Field(
        description="Heads, counting the next-token head: head k predicts token t + k."
    )
    head_type: Literal["linear", "transformer", "resblock", "deepseek"] | None = None


class TokenizerInfo(StrictModel):
    """Fingerprint of a tokenizer; models of one run must agree where both give it."""

    sha256: SHA256 = Field(description="SHA-256 over vocabulary, merges and special tokens.")
    vocab_size: PositiveInt | None = None


class ModelMetadata(StrictModel):
    """One checkpoint's declaration of what it is and how it loads."""

    model_config = ConfigDict(title="wmtp metadata.json, storage version 2.0", populate_by_name=True)

    schema_: str | None = Field(None, alias="$schema", description="Where the JSON Schema stands, for editors.")
    wmtp_type: WmtpType = Field(
        description="base_model is trained, reference_model scores tokens, reward_model sequences."
    )
    training_algorithm: Literal["mtp", "baseline", "critic", "rho1"] = Field(description="What made the checkpoint.")
    base_architecture: Identifier = Field(
        description="A model type such as llama; must equal config.json's model_type."
    )
    storage_version: Literal["2.0"]
    loading_strategy: LoadingStrategy
    algorithm_compatibility: list[AlgorithmName] = Field(
        description="The registered algorithms that this model may serve, in the role of its wmtp_type."
    )
    horizon: PositiveInt | None = Field(None, description="Older spelling of mtp.n_future_tokens.")
    n_heads: PositiveInt | None = Field(None, description="Older spelling of mtp.n_future_tokens.")
    mtp: MTPInfo | None = None
    tokenizer: TokenizerInfo | None = None
    files: list[FileDigest] | None = Field(None, description="Digests, checked when fetched and by validate --deep.")
    model_size: str | None = None
    created_by: str | None = None
    standardization_date: str | None = None
    original_format: str | None = None
    source_path: str | None = None
    dtype: str | None = None
    provenance: dict[str, Any] | None = Field(None, description="Written by training: recipe, data, parents, versions.")
    extra: dict[str, Any] | None = Field(None, description="Free-form; the place for anything else.")

    @model_validator(mode="after")
    def _head_counts_agree(self) -> Self:
        # On a transformers class the older spellings describe the run that the model served.
        if self.loading_strategy.transformers_class is None and len(set(self._declared_heads().values())) > 1:
            listed = ", ".join(f"{field} {count}" for field, count in self._declared_heads().items())
            raise ValueError(f"declares different numbers of heads: {listed}")
        return self

    def _declared_heads(self) -> dict[str, int]:
        declared = {
            "mtp.n_future_tokens": self.mtp.n_future_tokens if self.mtp else None,
            "horizon": self.horizon,
            "n_heads": self.n_heads,
        }
        return {field: count for field, count in declared.items() if count is not None}

    @property
    def num_heads(self) -> int | None:
        """Prediction heads, counting the next-token head; None when the file does not say."""
        if self.mtp is not None:
            return self.mtp.n_future_tokens
        if self.loading_strategy.transformers_class is not None:
            return 1
        return next(iter(self._declared_heads().values()), None)
