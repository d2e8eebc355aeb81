"""The command that shows a checkpoint's own code and records consent to run it: trust."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmtp.cli.options import URI, AllowSymlinks, AsJSON, Yes
from wmtp.cli.output import Output, plain

if TYPE_CHECKING:
    from wmtp.storage.store import Store
    from wmtp.trust.consent import CodeFile

_SHOWN_LINES = 1000


def trust(
    ctx: typer.Context,
    uri: URI,
    *,
    yes: Yes = False,
    lines: Annotated[int, typer.Option("--lines", help="Show at most this many lines of a file.")] = _SHOWN_LINES,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Show the code that a checkpoint would run, and record your consent to exactly that code."""
    from wmtp.metadata.file import read_metadata
    from wmtp.storage.store import open_store
    from wmtp.trust.consent import recorded_consent

    out = Output.of(ctx, as_json=as_json)
    store = open_store(uri, allow_symlinks=allow_symlinks)
    module = read_metadata(store).loading_strategy.custom_module_file
    if module is None:
        out.result({"uri": str(store.uri), "files": []}, ["this checkpoint runs no code of its own"])
        return
    known = recorded_consent()
    codes = _code_files(store, module)
    facts = [_code_facts(code, recorded=code.digest in known) for code in codes]
    if not as_json:
        for code, fact in zip(codes, facts, strict=True):
            out.result(fact, _shown_code(code, fact, lines))
    declined = [code.name for code in codes if not _agreed(out, code, code.digest in known, yes=yes)]
    if as_json:
        known = recorded_consent()
        facts = [_code_facts(code, recorded=code.digest in known) for code in codes]
        out.result({"uri": str(store.uri), "files": facts}, [])
    if declined and not as_json:
        out.say(f"no consent was recorded for {', '.join(map(plain, declined))}")
        raise typer.Exit(1)


def _code_files(store: Store, module: str) -> list[CodeFile]:
    """The module, then the files beside it that it imports, directly or through each other."""
    from wmtp.trust.consent import read_code

    found = {module: read_code(store, module)}
    waiting = [module]
    while waiting:
        name = waiting.pop(0)
        for neighbour in found[name].neighbours:
            if neighbour not in found and store.has(neighbour):
                found[neighbour] = read_code(store, neighbour)
                waiting.append(neighbour)
    return list(found.values())


def _code_facts(code: CodeFile, *, recorded: bool) -> dict[str, Any]:
    text = code.data.decode("utf-8", errors="backslashreplace")
    facts = {"size_bytes": len(code.data), "sha256": code.digest.removeprefix("sha256:"), "imports": code.imports}
    return {"name": code.name, **facts, "recorded": recorded, "code": text}


def _shown_code(code: CodeFile, facts: dict[str, Any], max_lines: int) -> Iterator[str]:
    text = facts["code"].split("\n")
    yield f"{plain(code.where)}: {facts['size_bytes']:,} bytes, {code.digest}"
    yield f"imports {', '.join(map(plain, code.imports)) or 'nothing'}"
    for number, line in enumerate(text[:max_lines], 1):
        yield f"{number:>5}  {_visible(line)}"
    if len(text) > max_lines:
        yield f"... and {len(text) - max_lines} more lines: --lines {len(text)} shows them"
    yield ""


def _visible(line: str) -> str:
    # Never cut: what stands far to the right must be seen as well. Carriage returns, bidirectional marks and the like
    # could make a terminal show other code than Python runs.
    return "".join(c if " " <= c <= "~" or c == "\t" else ascii(c)[1:-1] for c in line)


def _agreed(out: Output, code: CodeFile, recorded: bool, *, yes: bool) -> bool:
    from wmtp.trust.consent import record_consent

    if recorded:
        out.say(f"consent to {plain(code.name)} was recorded before")
        return True
    if not yes and (out.as_json or not typer.confirm(f"agree to run {plain(code.name)}?", err=True)):
        return False
    out.say(f"recorded {plain(code.name)} {code.digest} in {record_consent(code)}")
    return True
