"""The command that proves a checkpoint: validate."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmtp.cli.options import URI, AllowCode, AllowSymlinks, AsJSON, Lock, consents
from wmtp.cli.output import Output
from wmtp.untrusted import plain

if TYPE_CHECKING:
    from wmtp.checkpoint.contents import Checkpoint
    from wmtp.load_plan.plan import LoadPlan
    from wmtp.storage.store import Store


class Server(StrEnum):
    """Programs of which it is known what they read of a checkpoint's heads."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRANSFORMERS = "transformers"
    LLAMA_CPP = "llama.cpp"


Signature = Annotated[
    Path | None, typer.Option("--signature", metavar="FILE", help="A signature that must hold for every file.")
]
PublicKey = Annotated[Path | None, typer.Option("--public-key", metavar="FILE", help="The signer's public key, PEM.")]


def validate(  # noqa: PLR0913  each option of the contract is one
    ctx: typer.Context,
    uri: URI,
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every byte: digests, NaN, infinity, and all that loading checks.")
    ] = False,
    allow_code: AllowCode = None,
    lock: Lock = None,
    signature: Signature = None,
    public_key: PublicKey = None,
    allow_symlinks: AllowSymlinks = False,
    program: Annotated[
        Server | None, typer.Option("--for", help="Ask instead whether that program would draft with the heads.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Prove that a checkpoint is what it declares: the files, the tensors, the model that they fill."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    if program is not None:
        if deep or allow_code or lock or signature or public_key:
            ctx.fail("--for reads config.json and headers alone: ask for all else in a run without it")
        _served(out, uri, program, allow_symlinks=allow_symlinks)
        return
    if (signature is None) != (public_key is None):
        ctx.fail("--signature and --public-key go together")
    agreed = consents(allow_code)
    facts: dict[str, Any] = {"uri": uri, "valid": True, "proven": True, "left": [], "verified": []}
    if signature is not None and public_key is not None:
        # Before anything of the checkpoint is parsed.
        facts["verified"] += _signed(uri, signature, public_key, allow_symlinks=allow_symlinks)
    checkpoint = _checkpoint(uri, lock=lock, allow_symlinks=allow_symlinks)
    facts["uri"] = checkpoint.where
    if deep:
        from wmtp.comparison.deep import verify_bytes

        facts["verified"] += verify_bytes(checkpoint)
    if left := _without_consent(checkpoint, agreed) or _without_torch():
        facts |= {"proven": False, "left": [left]}
        lines = _mapping_in_order(checkpoint, left)
    else:
        options = {"allow_code": agreed, "allow_symlinks": allow_symlinks, "lock": lock}
        plan, filled = _proven(uri, options, deep=deep)
        facts["plan"] = plan.to_dict()
        facts["verified"] += filled
        lines = [*plan.summary(), "proven: every parameter has its tensor, and every tensor its parameter"]
    out.result(facts, [*facts["verified"], *lines])


def _served(out: Output, uri: str, program: Server, *, allow_symlinks: bool) -> None:
    """Print whether a program would draft with a checkpoint's heads, or fail with all that is in the way."""
    from wmtp.serving.check import check_serving
    from wmtp.serving.table import PROGRAMS

    where, verdict = check_serving(uri, PROGRAMS[program.value], allow_symlinks=allow_symlinks)
    out.result({"uri": where, "valid": True, "for": verdict.to_dict()}, verdict.summary(plain(where)))


def _proven(uri: str, options: dict[str, Any], *, deep: bool) -> tuple[LoadPlan, list[str]]:
    """Return the plan, and lines that say what else holds that loading checks while it fills the model."""
    from wmtp.comparison.deep import verify_filling
    from wmtp.loaders.base import prepare
    from wmtp.settings.loading import LoadOptions
    from wmtp.storage.snapshot import retried_if_changed

    def prove() -> tuple[LoadPlan, list[str]]:
        prepared = prepare(uri, LoadOptions(**options))
        return prepared.plan, verify_filling(prepared) if deep else []

    return retried_if_changed(prove)


def _signed(uri: str, signature: Path, public_key: Path, *, allow_symlinks: bool) -> list[str]:
    from wmtp.storage.opening import open_store
    from wmtp.trust.signatures import verify_signature

    store = open_store(uri, allow_symlinks=allow_symlinks)
    signed = verify_signature(local_directory(store, "a signature"), signature, public_key)
    return [f"the signature holds for all {len(signed)} files, hidden ones included"]


def local_directory(store: Store, what: str) -> Path:
    """Return the directory of a store, or raise StorageError when it has none on this machine."""
    if store.directory is None:
        from wmtp.errors import StorageError

        hint = f"bring it here first: wmtp fetch {store.uri} DIR"
        raise StorageError(f"{store.uri}: {what} is over a directory on this machine", hint)
    return store.directory


def _checkpoint(uri: str, *, lock: Path | None, allow_symlinks: bool) -> Checkpoint:
    from wmtp.checkpoint.contents import open_checkpoint
    from wmtp.checkpoint.tokenizer import verify_tokenizer

    checkpoint = open_checkpoint(uri, allow_symlinks=allow_symlinks, lock=lock)
    verify_tokenizer(checkpoint.store, checkpoint.metadata, checkpoint.config)
    return checkpoint


def _mapping_in_order(checkpoint: Checkpoint, left: str) -> list[str]:
    from wmtp.load_plan.mapping import map_names

    mapping = checkpoint.metadata.loading_strategy.state_dict_mapping
    map_names(mapping, [tensor.name for tensor in checkpoint.tensors], where=checkpoint.where)
    return [*checkpoint.notes, "metadata, files, headers and mapping are in order", f"left to check: {left}"]


def _without_torch() -> str:
    """Say what cannot be checked where torch is not installed; empty where it is."""
    from wmtp.extras import install_hint, is_installed

    return "" if is_installed("torch") else f"the model's parameters, which need torch; {install_hint('torch')}"


def _without_consent(checkpoint: Checkpoint, agreed: dict[str, str]) -> str:
    """Say what cannot be checked before the operator agrees to run the class's code; empty when nothing is left."""
    from wmtp.errors import TrustError
    from wmtp.trust.consent import check_consent, read_code

    strategy = checkpoint.metadata.loading_strategy
    if strategy.custom_module_file is None:
        return ""
    code = read_code(checkpoint.store, strategy.custom_module_file)  # what it refuses, no consent lets run
    try:
        check_consent(code, agreed)
    except TrustError as error:
        if strategy.custom_module_file in agreed:
            raise  # consent to other bytes is a mistake to be told, not something left for later
        return f"the parameters of {strategy.model_class_name}; {error.hint}"
    return ""
