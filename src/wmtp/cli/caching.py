"""Commands that look after the cache of fetched files: cache ls, verify, prune, rm."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmtp.cli.options import AsJSON, amount
from wmtp.cli.output import Output, table
from wmtp.untrusted import plain
from wmtp.wording import counted, size

if TYPE_CHECKING:
    from wmtp.data.token_upkeep import KeptTokens
    from wmtp.storage.cache import Entry, VerifiedCache

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

cache_app = typer.Typer(
    help="Look after the cache of fetched files.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# Subcommands by the command's name, for the program.
GROUPS = {"cache": cache_app}


def _age(text: str) -> float:
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time; write a number and one of s, m, h, d, w, such as 30d")
    return float(match[1]) * _SECONDS[match[2]]


@cache_app.command("ls")
def ls(ctx: typer.Context, as_json: AsJSON = False) -> None:
    """List the checkpoints in the cache, and the tokens of data, each the most recently used first."""
    from wmtp.data.token_directory import TokenDirectory
    from wmtp.data.token_upkeep import kept_tokens

    out = Output.of(ctx, as_json=as_json)
    cache = _cache()
    entries = cache.entries()
    checkpoints = sorted(_by_checkpoint(entries), key=lambda facts: facts["last_used"], reverse=True)
    num_bytes = sum({entry.sha256: entry.source.size_bytes for entry in entries}.values())
    data = _tokens(kept_tokens(TokenDirectory())[::-1])
    rows = [(plain(c["uri"]), c["num_files"], size(c["size_bytes"]), c["last_used"]) for c in checkpoints]
    rows += [(_tokens_of(d), d["num_files"], size(d["size_bytes"]), d["last_used"]) for d in data]
    out.result(
        {"cache": str(cache.root), "size_bytes": num_bytes, "checkpoints": checkpoints, "data": data},
        table(rows, ("CHECKPOINT", "FILES", "SIZE", "LAST USED")),
    )
    tokens = f"; tokens of data, {size(sum(d['size_bytes'] for d in data))}" if data else ""
    out.say(f"{cache.root}: {counted(len(checkpoints), 'checkpoint')}, {size(num_bytes)}{tokens}")


@cache_app.command("verify")
def verify(ctx: typer.Context, as_json: AsJSON = False) -> None:
    """Hash every file of the cache again, and remove the damaged ones."""
    from wmtp.storage.cached.upkeep import verify as verify_cache

    out = Output.of(ctx, as_json=as_json)
    cache = _cache()
    checked = verify_cache(cache)
    damaged = [
        {"sha256": sha256, "files": _places(entries), "removed": sha256 not in checked.kept}
        for sha256, entries in checked.damaged.items()
    ]
    facts = {"cache": str(cache.root), "num_files": checked.num_blobs, "size_bytes": checked.num_bytes}
    lines = [_damage(facts) for facts in damaged]
    sound = checked.num_blobs - len(damaged)
    lines.append(f"{cache.root}: {size(checked.num_bytes)} hashed, {sound} files sound, {len(damaged)} damaged")
    out.result({**facts, "damaged": damaged}, lines)
    if damaged:
        raise typer.Exit(1)


@cache_app.command("prune")
def prune(
    ctx: typer.Context,
    unused_for: Annotated[
        float | None,
        typer.Option("--unused-for", parser=_age, metavar="TIME", help="Remove files not used for that long, as 30d."),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option("--max-size", parser=amount, metavar="SIZE", help="Remove the least used above it, as 50GB."),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Remove files and tokens of data that were not used lately, and what broken downloads left."""
    from wmtp.data.token_directory import TokenDirectory
    from wmtp.data.token_upkeep import prune_all

    out = Output.of(ctx, as_json=as_json)
    cache = _cache()
    pruned = prune_all(cache, TokenDirectory(), unused_for_seconds=unused_for, max_bytes=max_size)
    _tell_removed(out, cache, pruned.cache.entries, _tokens(pruned.tokens), pruned.num_bytes)


@cache_app.command("rm")
def rm(
    ctx: typer.Context,
    uris: Annotated[list[str], typer.Argument(metavar="URI...", help="Checkpoints, as 'wmtp cache ls' lists them.")],
    as_json: AsJSON = False,
) -> None:
    """Remove checkpoints from the cache; they stay where they came from."""
    from wmtp.storage.cached.upkeep import remove
    from wmtp.storage.uri import parse_uri

    out = Output.of(ctx, as_json=as_json)
    cache = _cache()
    removed = remove(cache, [str(parse_uri(uri)) for uri in uris])
    _tell_removed(out, cache, removed.entries, [], removed.num_bytes)


def _cache() -> VerifiedCache:
    from wmtp.storage.cache import VerifiedCache

    return VerifiedCache()


def _by_checkpoint(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.source.uri, []).append(entry)
    return [
        {
            "uri": uri,
            "num_files": len(files),
            "size_bytes": sum(entry.source.size_bytes for entry in files),
            "last_used": _time(max(entry.last_used for entry in files)),
        }
        for uri, files in groups.items()
    ]


def _places(entries: Iterable[Entry]) -> list[str]:
    return sorted(f"{entry.source.uri}/{entry.source.name}" for entry in entries)


def _damage(facts: dict[str, Any]) -> str:
    what = ", ".join(map(plain, facts["files"])) or "a file that no checkpoint needs"
    fate = "removed, and fetched again when it is wanted" if facts["removed"] else "it cannot be removed"
    return f"damaged: sha256:{facts['sha256']}, {what}: {fate}"


def _tokens(kept: Iterable[KeptTokens]) -> list[dict[str, Any]]:
    return [
        {
            "path": str(each.path),
            "files": list(each.files),
            "num_files": len(each.files),
            "size_bytes": each.num_bytes,
            "last_used": _time(each.last_used),
        }
        for each in kept
    ]


def _tokens_of(facts: dict[str, Any]) -> str:
    first, *others = facts["files"] or [facts["path"]]
    return f"tokens of {plain(first)}{f' and {len(others):,} more' if others else ''}"


def _tell_removed(
    out: Output, cache: VerifiedCache, entries: Iterable[Entry], data: list[dict[str, Any]], num_bytes: int
) -> None:
    checkpoints = _by_checkpoint(entries)
    facts = {"cache": str(cache.root), "removed": checkpoints, "data": data, "freed_bytes": num_bytes}
    lines = [
        f"removed {counted(c['num_files'], 'file')}, {size(c['size_bytes'])}, of {plain(c['uri'])}" for c in checkpoints
    ]
    lines += [f"removed {_tokens_of(d)}, {size(d['size_bytes'])}" for d in data]
    out.result(facts, [*lines, f"{size(num_bytes)} freed in {cache.root}"])


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "minutes")
