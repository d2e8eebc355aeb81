"""README.md of a checkpoint, from what its files say; the Hub shows it as the model's page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wmtp.metadata.file import METADATA_FILE, load_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing.cards.loading import Kind, kind_of, loading_lines
from wmtp.publishing.cards.making import algorithm_of, hub_datasets, making_lines, run_name
from wmtp.publishing.cards.markdown import code, front_matter
from wmtp.publishing.cards.origin import CARD_FILE, Origin

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_WITHOUT_METADATA = {"medusa": Kind.MEDUSA, "vllm-medusa": Kind.MEDUSA, "meta": Kind.META}
_METRICS = re.compile(r"eval_(ce|top1)_(\d{1,3})")
_NAMES = {"ce": "cross-entropy, nats a token", "top1": "share of tokens predicted right"}
_NO_INTERVALS = (
    "Measured on the validation data at this step, without intervals; `wmtp evaluate path/to/this --data FILE` gives"
    " figures of every head on data of your own, with intervals."
)


@dataclass(frozen=True)
class Source:
    """What a card says beyond the files of its directory.

    Attributes:
        origin: Licence and origin of the base model.
        metadata: Of what it was made from; for an export that has none of its own, and for how that was trained.
        metrics: Of validation at the same step, as training logs them: `eval_ce_<k>`, `eval_top1_<k>`.
        target: The name of the export; None: it is none.
        parent: What an export without a metadata.json is made from, as `parent_record` has it.
    """

    origin: Origin = field(default_factory=Origin)
    metadata: ModelMetadata | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    target: str | None = None
    parent: Mapping[str, Any] | None = None


def write_card(directory: Path, source: Source) -> None:
    """Write README.md into a directory that is being published, from its metadata.json and what it was made from."""
    (directory / CARD_FILE).write_text("\n".join([*_lines(directory, source), ""]), encoding="utf-8")


def _lines(directory: Path, source: Source) -> Iterator[str]:
    own = load_metadata(directory) if (directory / METADATA_FILE).exists() else None
    if (metadata := own or source.metadata) is None:
        return
    kind = _WITHOUT_METADATA.get(source.target or "") or kind_of(metadata)
    provenance = (own.provenance or {}) if own else {"parent": source.parent}
    earlier = (source.metadata.provenance or {}) if source.metadata else {}
    trained = provenance if "recipe" in provenance else earlier
    yield from front_matter(_fields(kind, metadata, trained, source.origin))
    yield from ("", f"# {_title(trained, kind)}", "", *_what(kind, metadata, source), "")
    yield from ("## How to load it", "", *loading_lines(kind, metadata, directory), "")
    yield from _metrics(source.metrics)
    yield from making_lines(provenance)
    if trained is not provenance:
        yield from making_lines(trained, " of the model that it was made from")
    yield from ("## Licence", "", *_licence(source.origin))


def _fields(kind: Kind, metadata: ModelMetadata, trained: Mapping[str, Any], origin: Origin) -> dict[str, Any]:
    is_plain = kind is Kind.PLAIN
    algorithm = algorithm_of(trained) or ""
    tags = ["wmtp", *([] if is_plain else ["multi-token-prediction"])]
    tags += [algorithm] if _PLAIN_NAME.fullmatch(algorithm) else []
    fields: dict[str, Any] = {**origin.fields()}
    if origin.base_model is not None:
        fields["base_model"] = origin.base_model
    fields["library_name"] = "transformers" if is_plain else "wmtp"
    if metadata.wmtp_type == "base_model":
        fields["pipeline_tag"] = "text-generation"
    return fields | {"tags": tags, "datasets": hub_datasets(trained)}


def _title(trained: Mapping[str, Any], kind: Kind) -> str:
    name = run_name(trained)
    if name is None:
        return kind.value[:1].upper() + kind.value[1:]
    return name if _PLAIN_NAME.fullmatch(name) else code(name)


def _what(kind: Kind, metadata: ModelMetadata, source: Source) -> Iterator[str]:
    heads = metadata.num_heads
    said = f", {heads} of them with the next-token head" if heads and kind in (Kind.HEADS, Kind.NATIVE) else ""
    made = f"; exported for {code(source.target)}" if source.target else ""
    yield f"This is {kind.value}{said}{made}. Its architecture is {code(metadata.base_architecture)}."
    if source.origin.base_model is not None:
        yield f"It goes back to {code(source.origin.base_model)}."


def _metrics(metrics: Mapping[str, float]) -> Iterator[str]:
    found = [(match, value) for name, value in metrics.items() if (match := _METRICS.fullmatch(name))]
    if not found:
        return
    yield from ("## Metrics", "", _NO_INTERVALS, "", "| head | metric | value |", "|---|---|---|")
    for match, value in sorted(found, key=lambda each: (int(each[0][2]), each[0][1])):
        yield f"| {match[2]} | {_NAMES[match[1]]} | {value:.4f} |"
    yield ""


def _licence(origin: Origin) -> Iterator[str]:
    if origin.license is None:
        yield "The licence of the model that this was made from is not known: find it before you share or use this."
        return
    name = f" ({code(origin.license_name)})" if origin.license_name else ""
    link = f", whose text is at <{origin.license_link}>" if origin.license_link else ""
    yield f"{code(origin.license)}{name}{link}: that of the model that this was made from."
