"""Whether what a model declares is what a role of a run needs: a rule about metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wmtp.metadata.file import METADATA_FILE
from wmtp.metadata.schema import ModelMetadata, WmtpType
from wmtp.storage.uri import parse_uri

_KEY_OF_TYPE = {"base_model": "base", "reference_model": "ref", "reward_model": "rm"}


@dataclass(frozen=True)
class Need:
    """What a role asks of a model.

    Attributes:
        role: Its key in `paths.models` of config.yaml.
        wmtp_type: What the model has to be.
        algorithm: What it has to be fit for.
        horizon: How many tokens ahead the trained model predicts; None when the recipe leaves that to the model.
        base_uri: The base model that was picked, whose tokenizer it has to share; None while none is.
        base: What that model declares.
    """

    role: str
    wmtp_type: WmtpType
    algorithm: str
    horizon: int | None
    base_uri: str | None = None
    base: ModelMetadata | None = None


def misfits(uri: str, declared: ModelMetadata, need: Need) -> Iterator[tuple[str, str]]:
    """Yield what keeps a model from a role, each with the one edit or path that would change that."""
    if declared.wmtp_type != need.wmtp_type:
        yield (
            f"wmtp_type is {declared.wmtp_type!r}, and this role needs {need.wmtp_type!r}",
            f"list it under paths.models.{_KEY_OF_TYPE[declared.wmtp_type]}, and a {need.wmtp_type} here{_made(need)}",
        )
    if need.algorithm not in declared.algorithm_compatibility:
        file = parse_uri(uri) / METADATA_FILE
        yield (
            f"algorithm_compatibility is {declared.algorithm_compatibility}, without {need.algorithm!r}",
            f'add "{need.algorithm}" to algorithm_compatibility in {file}, if the model may serve it',
        )
    yield from _too_few_heads(uri, declared, need)
    tokenizer, needed = declared.tokenizer, need.base.tokenizer if need.base else None
    if tokenizer and needed and tokenizer.sha256 != needed.sha256:
        yield (
            f"its tokenizer is {tokenizer.sha256[:12]}..., that of the base model is {needed.sha256[:12]}...",
            f"name a model with the tokenizer of {need.base_uri} under paths.models.{need.role}",
        )


def _made(need: Need) -> str:
    return ", such as 'wmtp grow' makes of a plain model" if need.wmtp_type == "base_model" else ""


def _too_few_heads(uri: str, declared: ModelMetadata, need: Need) -> Iterator[tuple[str, str]]:
    # Only the model that is trained predicts several tokens; one that does not say how many is counted when loaded.
    horizon, heads = need.horizon, declared.num_heads
    if need.wmtp_type == "base_model" and horizon and heads and heads < horizon:
        grow = f"make one with 'wmtp grow {uri} DST --heads {horizon}', or " if heads == 1 else ""
        yield f"has {heads} prediction head(s), and mtp.horizon is {horizon}", f"{grow}set mtp.horizon: {heads}"
