"""Which parts of a model are gathered and let go one at a time, where its parameters are kept in shards."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from wmtp.models.heads import TransformerHead
from wmtp.models.native_module import NativeModule


def sharding_units(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose parameters nothing but their own forward pass uses: layers, blocks of heads, value heads.

    What is left belongs to the model as a whole and is there while it runs: embeddings, norms, and unembeddings, which
    the loss reads outside any module's own forward pass.

    Args:
        model: Any model; the outermost lists of modules are taken for its layers, as every decoder has them.
    """
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        elif isinstance(child, TransformerHead):
            yield child
        elif isinstance(child, NativeModule):
            yield child.mtp_block
        else:
            yield from sharding_units(child)
