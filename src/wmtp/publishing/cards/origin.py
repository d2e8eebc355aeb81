"""What a card takes over from the base model: its licence, and which model of the Hub it goes back to.

Read from the base model's own card line by line, for a few keys whose values have a narrow form: no YAML of a stranger
is parsed, and what has another form is not taken over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wmtp.errors import WmtpError
from wmtp.loaders.base import LoadResult
from wmtp.storage.store import Store

CARD_FILE = "README.md"
_MAX_CARD_BYTES = 1 << 20
_MAX_LINES = 400  # of a front matter; those of large models list some hundred languages
_LINE = re.compile(r"""(license|license_name|license_link|base_model):[ ]*(["']?)([^"']*)\2[ ]*""")
_ITEM = re.compile(r"""[ ]*-[ ]+(["']?)([^"']*)\1[ ]*""")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_FORMS = {
    "license": re.compile(r"[a-z0-9][a-z0-9.-]{0,63}"),
    "license_name": re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"),
    "license_link": re.compile(r"https://[A-Za-z0-9._~/%:@+-]{1,200}|[A-Za-z0-9][A-Za-z0-9._-]{0,95}"),
    "base_model": REPOSITORY,
}


@dataclass(frozen=True)
class Origin:
    """What is known of the model that another one is made from.

    Attributes:
        base_model: `org/name` of the Hub; None: it does not come from there, as far as is known.
        license: As the Hub writes licences, such as `apache-2.0`; None: not known.
        license_name: What it is called, where `license` is `other`.
        license_link: Where its text stands.
    """

    base_model: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None

    def fields(self) -> dict[str, str]:
        """Return what is known, for a front matter."""
        return {key: value for key, value in vars(self).items() if key != "base_model" and value is not None}


def origin_of(loaded: LoadResult) -> Origin:
    """Return what a loaded checkpoint says of its licence and origin, in README.md or in `extra` of its metadata.

    A checkpoint of the Hub is itself what others are made from; of another, what its card names.
    """
    said = dict(_from_metadata(loaded)) | dict(_from_card(loaded.checkpoint.store))
    uri = loaded.checkpoint.store.uri
    if uri.scheme == "hf" and not uri.path and REPOSITORY.fullmatch(uri.location):
        said["base_model"] = uri.location
    return Origin(**_with_whole_link(said))


def _with_whole_link(said: dict[str, str]) -> dict[str, str]:
    """Return the same with a link that leads there from anywhere; a file's name alone leads nowhere."""
    link, base = said.get("license_link"), said.get("base_model")
    if link is None or link.startswith("https://"):
        return said
    whole = {"license_link": f"https://huggingface.co/{base}/blob/main/{link}"} if base else {}
    return {key: value for key, value in said.items() if key != "license_link"} | whole


def _from_metadata(loaded: LoadResult) -> Iterator[tuple[str, str]]:
    extra: dict[str, Any] = loaded.metadata.extra or {}
    for key, form in _FORMS.items():
        value = extra.get(key)
        if isinstance(value, str) and form.fullmatch(value):
            yield key, value


def _from_card(store: Store) -> Iterator[tuple[str, str]]:
    try:
        data = store.read_bytes(CARD_FILE, max_bytes=_MAX_CARD_BYTES) if store.has(CARD_FILE) else b""
    except WmtpError:  # not in a lock, too large, not to be had: what a card says is no reason not to go on
        return
    lines = data.decode(errors="replace").splitlines()[:_MAX_LINES]
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return
    front = lines[1 : lines.index("---", 1)]
    for line, following in zip(front, [*front[1:], ""], strict=True):
        found = _LINE.fullmatch(line)
        if found and (value := _form(found[1], found[3] or _item(following))):
            yield found[1], value


def _item(line: str) -> str:
    found = _ITEM.fullmatch(line)
    return found[2] if found else ""


def _form(key: str, text: str) -> str | None:
    value = text.strip()
    return value if _FORMS[key].fullmatch(value) else None
