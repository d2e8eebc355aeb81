"""What each error means, an example of it, and what to do: `errors.md`, which is also a page of the documents."""

from __future__ import annotations

from importlib.resources import files

_HEADING = "## "


def explanations() -> dict[str, str]:
    """Return the explanation of each error, Markdown, by its code: what it means, an example, what to do."""
    _, *sections = f"\n{errors_page()}".split(f"\n{_HEADING}")
    return {code: text.strip() for code, _, text in (section.partition("\n") for section in sections)}


def errors_page() -> str:
    """Return all of them as one page of Markdown."""
    return files(__name__).joinpath("errors.md").read_text(encoding="utf-8")
