"""For whom a checkpoint is exported: a table of names, and the one way in which every export is written.

A further target is a line in the table and a file beside this one. Nothing here imports torch until an export is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from typing_extensions import Unpack

from wmtp.errors import SettingsError, UnknownNameError
from wmtp.metadata.file import METADATA_FILE
from wmtp.publishing.publish import publish_directory, refuse_existing
from wmtp.settings.loading import LoadKeywords
from wmtp.untrusted import did_you_mean, show

if TYPE_CHECKING:
    from wmtp.loaders.base import LoadResult
    from wmtp.loaders.standardized import URI

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class ExportTarget:
    """A form that other programs read.

    Attributes:
        function: `module:name` of what prepares an export, by `prepare`'s contract.
        next_step: What to do with it, for a person; with `{source}`, `{path}`, `{loader}`, a class, and `{heads}`.
        without_heads: The same as `function`, of the model without its heads; None: the form has no such thing.
    """

    function: str
    next_step: str
    without_heads: str | None = None

    def prepare(self, loaded: LoadResult, *, drop_heads: bool = False) -> Writer:
        """Return what writes the files into a directory; everything that refuses the model does so before.

        Raises:
            CheckpointError: If the form cannot hold the model.
        """
        function = self.without_heads if drop_heads and self.without_heads else self.function
        module, _, name = function.partition(":")
        writer: Writer = getattr(import_module(module), name)(loaded)
        return writer


_HERE = __name__.rpartition(".")[0]
TARGETS = {
    "transformers": ExportTarget(
        f"{_HERE}.next_token:prepare_next_token", "it loads with {loader}.from_pretrained, as head 1 alone"
    ),
    "native": ExportTarget(
        f"{_HERE}.native:prepare_native",
        "it has the layout of its family: see which programs draft with it by 'wmtp validate {path} --for vllm'",
        without_heads=f"{_HERE}.native:prepare_without_heads",
    ),
    "medusa": ExportTarget(
        f"{_HERE}.medusa:prepare_medusa",
        "these are the heads alone: export the trunk too (wmtp export {source} TRUNK), and set base_model_name_or_path"
        " in {path}/config.json to where it stands",
    ),
    "vllm-medusa": ExportTarget(
        f"{_HERE}.medusa:prepare_vllm_medusa",
        "these are the heads alone: export the trunk too (wmtp export {source} TRUNK), and serve both: vllm serve TRUNK"
        ' --speculative-config \'{{"method": "medusa", "model": "{path}", "num_speculative_tokens": {heads}}}\'',
    ),
    "meta": ExportTarget(
        f"{_HERE}.meta:prepare_meta",
        "it has the layout of Meta's multi-token release, which Meta's own code loads, and 'wmtp convert {path} DST'",
    ),
}


def export(
    uri: URI,
    directory: str | Path,
    *,
    to: str = "transformers",
    drop_heads: bool = False,
    **options: Unpack[LoadKeywords],
) -> Path:
    """Write a checkpoint in the form that another program reads; nothing is written when that cannot be.

    Args:
        uri: A checkpoint of a built-in class.
        directory: A directory that does not exist yet.
        to: `transformers`: the trunk as a plain next-token model. `native`: native heads with their trunk, under the
            names and with the configuration of the checkpoint that they came from. `medusa`: the heads as Medusa's own
            code, TGI and TensorRT-LLM read them. `vllm-medusa`: as vLLM does. `meta`: a llama with heads of the type
            `transformer` as Meta's multi-token release has them, `consolidated.pth` and `params.json`.
        drop_heads: With `native`: leave out the heads, and what declares them.
        **options: As in `wmtp.load`.

    Returns:
        The directory.

    Raises:
        UnknownNameError: If there is no such target.
        SettingsError: If heads are to be dropped from a form that is not one of both.
        WmtpError: If the checkpoint does not load, its model does not have that form, or something stands there.
    """
    if to not in TARGETS:
        hint = f"use one of {', '.join(map(repr, TARGETS))}{did_you_mean(str(to), TARGETS)}"
        raise UnknownNameError(f"unknown export target {show(to)}", hint=hint)
    if drop_heads and TARGETS[to].without_heads is None:
        raise SettingsError(
            f"heads are to be dropped, and the target {to} is not one of a trunk with its heads",
            hint="use --drop-heads with --to native; the trunk alone is also what --to transformers writes",
        )
    from wmtp.loaders.standardized import load
    from wmtp.publishing.cards.card import Source, write_card
    from wmtp.publishing.cards.origin import origin_of
    from wmtp.publishing.parent import parent_record

    final = Path(directory)
    refuse_existing(final)  # before a model is loaded for nothing
    loaded = load(uri, **options)
    write = TARGETS[to].prepare(loaded, drop_heads=drop_heads)
    with publish_directory(final) as unfinished:
        write(unfinished)
        parent = None if (unfinished / METADATA_FILE).exists() else parent_record(loaded)
        write_card(unfinished, Source(origin_of(loaded), loaded.metadata, target=to, parent=parent))
    return final
