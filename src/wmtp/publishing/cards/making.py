"""How a checkpoint was made, from its provenance: recipe, data, parents, each with its fingerprint.

A provenance may be a stranger's, when a checkpoint that they trained is exported: whatever has another form than
training writes is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wmtp.publishing.cards.markdown import code
from wmtp.publishing.cards.origin import REPOSITORY

_MAX_LISTED = 20
_DATASETS = "hf://datasets/"
# Of a recipe, what a reader asks for first; the whole of it stands in metadata.json.
_FACTS = {
    "algorithm": ("train", "algo"),
    "heads trained": ("mtp", "horizon"),
    "learning rate": ("train", "learning_rate"),
    "trained parameters": ("train", "trainable"),
    "seed": ("run", "seed"),
}

Provenance = Mapping[str, Any]


def making_lines(provenance: Provenance, whose: str = "") -> Iterator[str]:
    """Yield the sections about training, data and parents; those of which the provenance says nothing are left out.

    Args:
        provenance: Of metadata.json.
        whose: Behind each heading, where it is not the provenance of the checkpoint itself.
    """
    recipe = _mapping(provenance, "recipe")
    if recipe:
        yield from (f"## Training{whose}", "", *_facts(recipe, provenance), "")
    if data := _mapping(provenance, "data"):
        yield from (f"## Data{whose}", "", "Fingerprints are of the rows of tokens that were read.", "")
        yield from (*_data(data, recipe), *_scores(provenance), "")
    if parent := _mapping(provenance, "parent"):
        yield from (f"## Origin{whose}", "", *_parent(parent), "")


def algorithm_of(provenance: Provenance) -> str | None:
    """Return the name of the algorithm that trained it."""
    found = _mapping(_mapping(provenance, "recipe"), "train").get("algo")
    return found if isinstance(found, str) else None


def run_name(provenance: Provenance) -> str | None:
    """Return what the run was called."""
    found = _mapping(_mapping(provenance, "recipe"), "run").get("name")
    return found if isinstance(found, str) else None


def data_files(provenance: Provenance) -> list[str]:
    """Return all files and patterns that the recipe names as training data."""
    train = _mapping(_mapping(_mapping(provenance, "recipe"), "data"), "train")
    return [*_texts(train.get("files")), *(file for each in _list(train, "sources") for file in _files(each))]


def hub_datasets(provenance: Provenance) -> list[str]:
    """Return the data sets of the Hub among them, `org/name`, each once."""
    names = [file.removeprefix(_DATASETS) for file in data_files(provenance) if file.startswith(_DATASETS)]
    whole = ["/".join(name.partition("?")[0].split("/")[:2]).partition("@")[0] for name in names]
    return list(dict.fromkeys(name for name in whole if REPOSITORY.fullmatch(name)))


def _facts(recipe: Mapping[str, Any], provenance: Provenance) -> Iterator[str]:
    yield f"- optimizer steps: {code(provenance.get('step'))}"
    for what, (section, key) in _FACTS.items():
        if (value := _mapping(recipe, section).get(key)) is not None:
            yield f"- {what}: {code(value)}"
    if versions := _mapping(provenance, "versions"):
        yield f"- versions: {_some([f'{name} {found}' for name, found in versions.items()])}"
    for change in _list(provenance, "changes"):
        values = _mapping(change, "values")
        named = ", ".join(code(key) for key in list(values)[:_MAX_LISTED])
        yield f"- changed after step {code(_mapping({'': change}, '').get('step'))}: {named}"


def _data(data: Mapping[str, Any], recipe: Mapping[str, Any]) -> Iterator[str]:
    for name, fingerprint in list(data.items())[:_MAX_LISTED]:
        files = data_files({"recipe": recipe}) if name == "train" else _files(_mapping(recipe, "data").get(name))
        of = f", of {_some(files)}" if files else ""
        yield f"- {code(name)}: {code(fingerprint)}{of}"


def _scores(provenance: Provenance) -> Iterator[str]:
    for name, fingerprint in list(_mapping(provenance, "scores").items())[:_MAX_LISTED]:
        yield f"- figures beside the tokens, {code(name)}: {code(fingerprint)}"


def _parent(parent: Mapping[str, Any]) -> Iterator[str]:
    yield f"Made from {code(parent.get('uri'))}, with these files:"
    yield ""
    files = _list(parent, "files")
    for file in files[:_MAX_LISTED]:
        facts = _mapping({"": file}, "")
        yield f"- {code(facts.get('path'))}: {code('sha256:' + str(facts.get('sha256')))}"
    if len(files) > _MAX_LISTED:
        yield f"- and {len(files) - _MAX_LISTED:,} more, which `metadata.json` lists"


def _some(files: list[str]) -> str:
    more = f" and {len(files) - _MAX_LISTED:,} more" if len(files) > _MAX_LISTED else ""
    return ", ".join(map(code, files[:_MAX_LISTED])) + more


def _mapping(document: Any, key: str) -> Mapping[str, Any]:
    found = document.get(key) if isinstance(document, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _list(document: Any, key: str) -> list[Any]:
    found = document.get(key) if isinstance(document, Mapping) else None
    return found if isinstance(found, list) else []


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _files(source: Any) -> list[str]:
    return _texts(source.get("files")) if isinstance(source, Mapping) else []
