"""The command that writes down what a checkpoint is, byte for byte: lock."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmtp.cli.options import URI, AllowSymlinks, AsJSON, Yes
from wmtp.cli.output import Output
from wmtp.untrusted import plain
from wmtp.wording import size

if TYPE_CHECKING:
    from wmtp.manifest import FileDigest, Manifest
    from wmtp.storage.store import Store


def lock(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    uri: URI,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write the lock there instead of printing it.")
    ] = None,
    sign_with: Annotated[
        Path | None,
        typer.Option("--sign-with", metavar="KEY.pem", help="Sign the directory as well, with this private key."),
    ] = None,
    signature: Annotated[
        Path | None, typer.Option("--signature", metavar="FILE", help="Where to write the signature.")
    ] = None,
    yes: Yes = False,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Write down the digest of every file of a checkpoint, to hold later loads to it."""
    from wmtp.metadata.file import read_metadata
    from wmtp.storage.opening import open_store

    out = Output.of(ctx, as_json=as_json)
    if (sign_with is None) != (signature is None):
        ctx.fail("--sign-with and --signature go together")
    store = open_store(uri, allow_symlinks=allow_symlinks)
    read_metadata(store)  # other directories have nothing to load
    if output is not None:
        _refuse_inside(store, output)
    found = _digests(store)
    if sign_with is not None and signature is not None:
        _sign(out, store, signature, sign_with, yes=yes)
    if output is None:
        out.result(found.model_dump(mode="json"), [found.model_dump_json(indent=2)])
    else:
        _write(out, found, output, yes=yes)
    place = shlex.quote(str(output)) if output else "FILE"
    out.say(f"keep the lock outside the checkpoint, and load with: wmtp load {shlex.quote(uri)} --lock {place}")


def _refuse_inside(store: Store, output: Path) -> None:
    if store.directory is not None and output.resolve().is_relative_to(store.directory.resolve()):
        from wmtp.errors import TrustError

        raise TrustError(
            f"{output}: inside the checkpoint, which cannot vouch for itself", hint="name a file somewhere else"
        )


def _digests(store: Store) -> Manifest:
    from wmtp.manifest import Manifest, digest_path

    paths = store.local_paths(info.name for info in store.list_files())
    return Manifest(files=[digest_path(path, name) for name, path in sorted(paths.items())])


def _sign(out: Output, store: Store, signature: Path, private_key: Path, *, yes: bool) -> None:
    from wmtp.cli.proving import local_directory
    from wmtp.trust.signatures import sign_directory

    if signature.exists() and not yes:
        from wmtp.errors import TrustError

        raise TrustError(f"{signature}: there is a file of that name", hint="name another one; --yes replaces it")
    names = sign_directory(local_directory(store, "a signature"), signature, private_key)
    place, written = shlex.quote(str(store.uri)), shlex.quote(str(signature))
    out.say(f"signed {len(names)} files, hidden ones included; whoever has your public key checks them with:")
    out.say(f"  wmtp validate {place} --signature {written} --public-key PUBLIC.pem")


def _write(out: Output, found: Manifest, output: Path, *, yes: bool) -> None:
    from wmtp.storage.replace import replace_file

    changes = _changes(output, found) if output.exists() else []
    if changes and not yes:
        _refuse_changed(output, changes)
    replace_file(output, (found.model_dump_json(indent=2) + "\n").encode())
    num_bytes = sum(entry.size for entry in found.files)
    facts = {"path": str(output), "num_files": len(found.files), "size_bytes": num_bytes, "changes": changes}
    out.result(facts, [*changes, f"wrote {output}: {len(found.files)} files, {size(num_bytes)}"])


def _changes(output: Path, found: Manifest) -> list[str]:
    """What differs from the lock that stands there, a line for each file."""
    from wmtp.errors import IntegrityError
    from wmtp.manifest import Manifest
    from wmtp.untrusted import first_few

    try:
        old = {entry.path: entry for entry in Manifest.read(output).files}
    except IntegrityError as error:
        hint = "name a file that does not exist, or a lock that 'wmtp lock' wrote"
        raise IntegrityError(f"{output} is no lock, so it is not replaced: {error.problem}", hint=hint) from error
    new = {entry.path: entry for entry in found.files}
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return first_few([_changed(name, old.get(name), new.get(name)) for name in names])


def _changed(name: str, old: FileDigest | None, new: FileDigest | None) -> str:
    before, now = (f"sha256:{entry.sha256} ({entry.size:,} bytes)" if entry else "not there" for entry in (old, new))
    return f"{plain(name)}: {before} in the lock, {now} now"


def _refuse_changed(output: Path, changes: list[str]) -> None:
    from wmtp.errors import IntegrityError

    raise IntegrityError(
        f"{output}: the checkpoint is not what this lock says",
        hint="look at what changed; if that is meant to be so, --yes writes the lock anew",
        faults=changes,
    )
