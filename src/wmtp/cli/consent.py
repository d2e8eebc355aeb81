"""The command that shows a checkpoint's own code and records consent to run it: trust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmtp.cli.options import AllowSymlinks, AsJSON, Yes
from wmtp.cli.output import Output, table
from wmtp.untrusted import plain

if TYPE_CHECKING:
    from wmtp.storage.store import Store
    from wmtp.trust.changes import CodeChange
    from wmtp.trust.consent import CodeFile

_SHOWN_LINES = 1000
MaybeURI = Annotated[str | None, typer.Argument(metavar="URI", help="A checkpoint: /path, ./path or file:///path.")]


@dataclass(frozen=True)
class _Seen:
    """A file that is put before the operator, with what was agreed to before."""

    code: CodeFile
    is_recorded: bool
    change: CodeChange | None


def trust(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    uri: MaybeURI = None,
    *,
    yes: Yes = False,
    full: Annotated[bool, typer.Option("--full", help="Show whole files, not only what changed in them.")] = False,
    lines: Annotated[int, typer.Option("--lines", help="Show at most this many lines of a file.")] = _SHOWN_LINES,
    listed: Annotated[bool, typer.Option("--list", help="List what you agreed to.")] = False,
    forget: Annotated[
        str | None, typer.Option("--forget", metavar="sha256:HEX", help="Take your consent to these bytes back.")
    ] = None,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Show the code that a checkpoint would run, or how it changed; record consent to exactly that code."""
    out = Output.of(ctx, as_json=as_json)
    if sum((uri is not None, listed, forget is not None)) != 1:
        ctx.fail("name one checkpoint, or give one of --list and --forget")
    if listed:
        _list_consent(out)
    elif forget is not None:
        _forget(out, forget)
    elif uri is not None:
        from wmtp.storage.opening import open_store

        _show_and_ask(out, open_store(uri, allow_symlinks=allow_symlinks), yes=yes, full=full, max_lines=lines)


def _list_consent(out: Output) -> None:
    from wmtp.trust.records import recorded_consent

    found = recorded_consent()
    rows = [(plain(r.file), digest, plain(r.seen_at), plain(r.recorded)) for digest, r in found.items()]
    facts = [{"sha256": digest.removeprefix("sha256:"), **record.model_dump()} for digest, record in found.items()]
    out.result({"consents": facts}, table(rows, ("FILE", "HASH", "SEEN AT", "RECORDED")))


def _forget(out: Output, digest: str) -> None:
    from wmtp.trust.records import forget_record

    record = forget_record(digest)
    out.result(
        {"forgotten": digest, **record.model_dump()}, [f"consent to {plain(record.file)} {digest} is taken back"]
    )


def _show_and_ask(out: Output, store: Store, *, yes: bool, full: bool, max_lines: int) -> None:
    from wmtp.metadata.file import read_metadata

    module = read_metadata(store).loading_strategy.custom_module_file
    if module is None:
        out.result({"uri": str(store.uri), "files": []}, ["this checkpoint runs no code of its own"])
        return
    seen = [_look_at(code) for code in _code_files(store, module)]
    if not out.as_json:
        for file in seen:
            out.result(None, _shown(file, full=full, max_lines=max_lines))
    agreed = {file.code.name: _agreed(out, file, yes=yes) for file in seen}
    if out.as_json:
        facts = [_code_facts(file, recorded=agreed[file.code.name]) for file in seen]
        out.result({"uri": str(store.uri), "files": facts}, [])
    elif not all(agreed.values()):
        declined = [plain(name) for name, is_agreed in agreed.items() if not is_agreed]
        out.say(f"no consent was recorded for {', '.join(declined)}")
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


def _look_at(code: CodeFile) -> _Seen:
    from wmtp.trust.changes import change_since_consent
    from wmtp.trust.records import recorded_consent

    is_recorded = code.digest in recorded_consent()
    return _Seen(code, is_recorded, None if is_recorded else change_since_consent(code))


def _code_facts(file: _Seen, *, recorded: bool) -> dict[str, Any]:
    code, change = file.code, file.change
    text = code.data.decode("utf-8", errors="backslashreplace")
    facts = {"size_bytes": len(code.data), "sha256": code.digest.removeprefix("sha256:"), "imports": code.imports}
    return {"name": code.name, **facts, "recorded": recorded, "code": text, "change": change and _change_facts(change)}


def _change_facts(change: CodeChange) -> dict[str, Any]:
    return {
        "since": {"sha256": change.digest.removeprefix("sha256:"), **change.record.model_dump()},
        "old_size_bytes": change.old_size_bytes,
        "num_added": change.num_added,
        "num_removed": change.num_removed,
        "new_imports": list(change.new_imports),
        "diff": None if change.diff is None else [_visible(line) for line in change.diff],
    }


def _shown(file: _Seen, *, full: bool, max_lines: int) -> Iterator[str]:
    code, change = file.code, file.change
    yield f"{plain(code.where)}: {len(code.data):,} bytes, {code.digest}"
    yield f"imports {', '.join(map(plain, code.imports)) or 'nothing'}"
    if change is not None:
        yield from _shown_change(change)
    if change is not None and change.diff is not None and not full:
        yield from _first(change.diff, max_lines)
    else:
        text = code.data.decode("utf-8", errors="backslashreplace").split("\n")
        yield from _first([f"{number:>5}  {line}" for number, line in enumerate(text, 1)], max_lines)
    yield ""


def _shown_change(change: CodeChange) -> Iterator[str]:
    record = change.record
    yield f"agreed to before: {change.digest}, seen at {plain(record.seen_at)}, recorded {plain(record.recorded)}"
    if change.old_size_bytes is None:
        yield "no true copy of that file was kept, so the whole file is shown"
        return
    if change.diff is None:
        yield f"that file had {change.old_size_bytes:,} bytes; the two are too long to compare: the whole file is shown"
        return
    new = f", new imports: {', '.join(map(plain, change.new_imports))}" if change.new_imports else ", no new imports"
    counts = f"lines added: {change.num_added:,}, removed: {change.num_removed:,}"
    yield f"it had {change.old_size_bytes:,} bytes; since then {counts}{new} (--full shows the whole file)"


def _first(lines: Sequence[str], max_lines: int) -> Iterator[str]:
    yield from map(_visible, lines[:max_lines])
    if len(lines) > max_lines:
        yield f"... and {len(lines) - max_lines} more lines: --lines {len(lines)} shows them"


def _visible(line: str) -> str:
    # Never cut: what stands far to the right must be seen as well. Carriage returns, bidirectional marks and the like
    # could make a terminal show other code than Python runs.
    return "".join(c if " " <= c <= "~" or c == "\t" else ascii(c)[1:-1] for c in line)


def _agreed(out: Output, file: _Seen, *, yes: bool) -> bool:
    from wmtp.trust.consent import record_consent

    code = file.code
    if file.is_recorded:
        out.say(f"consent to {plain(code.name)} was recorded before")
        return True
    if not yes and (out.as_json or not typer.confirm(f"agree to run {plain(code.name)}?", err=True)):
        return False
    out.say(f"recorded {plain(code.name)} {code.digest} in {record_consent(code)}")
    return True
