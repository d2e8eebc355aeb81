"""config.yaml: where models live, where results go, on which device, and whose code may run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo

from wmtp.errors import URIError
from wmtp.faults import Fault, FieldFaults, StrictModel
from wmtp.manifest import RelativeName
from wmtp.settings.quantize import Quantize
from wmtp.settings.yaml_file import beside_file, read_document
from wmtp.storage.uri import parse_uri
from wmtp.untrusted import show


def _as_list(value: Any) -> Any:
    if value is None:
        return []
    return [value] if isinstance(value, str) else value


def _address(text: str, info: ValidationInfo) -> str:
    try:
        uri = parse_uri(text)
    except URIError as error:
        raise FieldFaults(Fault((), f"is no address: {error.problem}", error.hint)) from error
    return beside_file(uri.path, info) if uri.scheme == "file" else str(uri)


def matching(pattern: str, hint: str) -> AfterValidator:
    """Return a check of a text against a pattern, whose error says what to write instead of showing the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise FieldFaults(Fault((), f"is {show(text)}", hint))
        return text

    return AfterValidator(check)


_DEVICE, _SHA256 = r"auto|cpu|mps|cuda(:\d+)?", r"sha256:[0-9a-f]{64}"
OneOrMany = BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None)
Address = Annotated[str, AfterValidator(_address)]
PathBesideFile = Annotated[str, Field(min_length=1), AfterValidator(beside_file)]
Tracker = Literal["tensorboard", "mlflow", "wandb", "trackio"]
Consent = Annotated[str, matching(_SHA256, "write sha256:<64 hexadecimal digits>, as 'wmtp trust URI' prints it")]


class Models(StrictModel):
    """Where the models of each role are: one address, or candidates in order of preference."""

    base: Annotated[list[Address], Field(min_length=1), OneOrMany] = Field(description="The model to train.")
    ref: Annotated[list[Address], OneOrMany] = Field(default_factory=list, description="Reference: scores tokens.")
    rm: Annotated[list[Address], OneOrMany] = Field(default_factory=list, description="Reward: scores sequences.")


class Paths(StrictModel):
    """Places on disks and in object stores; relative ones are seen from the directory of config.yaml."""

    models: Models
    output_dir: PathBesideFile = Field(
        "./runs", validate_default=True, description="Each run writes a directory of its name in here."
    )
    cache_dir: PathBesideFile | None = Field(None, description="Cache of fetched files; null: the user's cache.")


class Devices(StrictModel):
    """What to compute on."""

    device: Annotated[str, matching(_DEVICE, "use auto, cpu, mps, cuda or cuda:0")] = Field(
        "auto", description="auto, cpu, mps, cuda or cuda:N."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: as stored.")
    quantize: Quantize = Field(default_factory=Quantize, description="Fewer bits for models that only score.")


class Tracking(StrictModel):
    """Where curves go."""

    report_to: Annotated[list[Tracker], OneOrMany] = Field(
        ["tensorboard"], description="Trackers; an empty list: none."
    )
    experiment: str = Field("wmtp", min_length=1, description="The name that trackers group runs under.")
    mlflow_uri: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Where MLflow keeps runs: a server, or a database; null: mlflow.db in paths.output_dir."
    )


class Trust(StrictModel):
    """Consent to run code that comes with checkpoints, by hash."""

    allow_code: dict[RelativeName, Consent] = Field(
        default_factory=dict, description="File name -> sha256:<64 hex digits>, as 'wmtp trust' prints it."
    )


class Config(StrictModel):
    """A parsed config.yaml."""

    model_config = ConfigDict(title="wmtp config.yaml")

    paths: Paths
    devices: Devices = Field(default_factory=Devices)
    tracking: Tracking = Field(default_factory=Tracking)
    trust: Trust = Field(default_factory=Trust)

    def with_consent(self, allow_code: Mapping[str, str]) -> Self:
        """Return the same settings with consent to run more code: file name -> `sha256:<64 hex digits>`."""
        return self.model_copy(update={"trust": Trust(allow_code={**self.trust.allow_code, **allow_code})})


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config.yaml.

    Args:
        path: The file. Relative paths in it are seen from its directory.
        overrides: `a.b=value` texts that take the place of what the file says, the value in YAML.

    Raises:
        SettingsError: With every fault of file and overrides at once, each with its line.
    """
    return read_document(path, overrides).validate(Config)


def config_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of config.yaml, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
