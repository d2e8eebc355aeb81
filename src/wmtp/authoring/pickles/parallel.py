"""Merging the tensor-parallel shards in which Meta publishes its models (`consolidated.NN.pth`).

fairscale's layers say how each weight is split: of a `ColumnParallelLinear` every shard has some of the rows, of a
`RowParallelLinear` some of the columns. The embedding was split by columns in LLaMA 1 and 2 and by rows since
Llama 3, which only its shape tells. Every merged shape is compared with params.json, so a wrong rule shows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wmtp.errors import CheckpointError, FormatError
from wmtp.untrusted import show, show_all

_NAME = re.compile(
    r"(?:layers\.\d+\.(?:attention\.(?P<a>w[qkvo])|feed_forward\.(?P<f>w[123])|(?P<n>attention_norm|ffn_norm))"
    r"|(?P<top>tok_embeddings|norm|output))\.weight|(?P<rope>rope)\.freqs"
)
_BY_ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
_BY_COLUMNS = ("wo", "w2")
_FROM_SOURCE = "convert it with the scripts of the project that published it, then use the result"


@dataclass(frozen=True)
class Pending:
    """A tensor that is made when its file is written: a merged one exists only for that long.

    Attributes:
        num_bytes: Its size.
        make: Returns it, in memory of its own.
    """

    num_bytes: int
    make: Callable[[], Tensor]


def merged(shards: Sequence[Mapping[str, Tensor]], sizes: Mapping[str, int]) -> dict[str, Pending]:
    """Return every weight of the model, each made whole when it is written.

    Args:
        shards: The tensors of each file, in the order of their numbers.
        sizes: Of params.json: `dim`, and where it has them `vocab_size`, `n_heads`, `n_kv_heads`.

    Raises:
        CheckpointError: If it is not known how a weight was split.
        FormatError: If the shards do not belong together.
    """
    names = set(shards[0])
    for number, shard in enumerate(shards):
        if different := sorted(names ^ set(shard)):
            raise FormatError(
                f"shards 00 and {number:02d} do not have the same tensors: {', '.join(show_all(different))}",
                hint="copy all shards of one version",
            )
    return {name: _whole(name, [shard[name] for shard in shards], sizes) for name in shards[0]}


def _whole(name: str, pieces: list[Tensor], sizes: Mapping[str, int]) -> Pending:
    if len({(piece.shape, piece.dtype) for piece in pieces}) > 1:
        raise FormatError(f"the pieces of {show(name)} differ in shape or dtype", hint="copy all shards of one version")
    dimension = split_dimension(name, tuple(pieces[0].shape), len(pieces), sizes)
    if dimension is None:
        if not all(torch.equal(pieces[0], piece) for piece in pieces[1:]):
            raise FormatError(
                f"{show(name)} is in every shard whole, and not the same in all", hint="copy all shards of one version"
            )
        return Pending(pieces[0].nbytes, pieces[0].clone)
    return Pending(sum(piece.nbytes for piece in pieces), partial(torch.cat, pieces, dimension))


def split_dimension(name: str, shape: tuple[int, ...], num_shards: int, sizes: Mapping[str, int]) -> int | None:
    """Return the dimension along which a weight was split, or None for one that every shard has whole.

    Args:
        name: Of the weight.
        shape: Of one piece.
        num_shards: How many there are.
        sizes: As in `merged`.

    Raises:
        CheckpointError: If no rule is known, or what it gives contradicts params.json.
    """
    match = _NAME.fullmatch(name)
    kind = next(filter(None, match.groups()), "") if match else ""
    if kind in ("attention_norm", "ffn_norm", "norm", "rope"):
        return None
    splits = {**dict.fromkeys(_BY_ROWS, (0,)), **dict.fromkeys(_BY_COLUMNS, (1,)), "tok_embeddings": (0, 1)}
    if kind not in splits or len(shape) != 2:
        raise CheckpointError(f"no rule says how {show(name)} of shape {list(shape)} was split", hint=_FROM_SOURCE)
    fitting = [d for d in splits[kind] if _fits(_joined(shape, d, num_shards), _expected(kind, sizes))]
    # Rows that are all there look like rows of a split vocabulary, unless its size is known.
    if len(fitting) != 1 or (kind == "tok_embeddings" and fitting == [0] and "vocab_size" not in sizes):
        known = ", ".join(f"{key} {value}" for key, value in sorted(sizes.items()))
        raise CheckpointError(
            f"{num_shards} pieces of {show(name)}, each of shape {list(shape)}, do not make what params.json says"
            f" ({known})",
            hint="correct vocab_size in params.json if it is -1 or absent; otherwise " + _FROM_SOURCE,
        )
    return fitting[0]


def _joined(shape: tuple[int, ...], dimension: int, num_shards: int) -> tuple[int, int]:
    return (shape[0] * num_shards, shape[1]) if dimension == 0 else (shape[0], shape[1] * num_shards)


def _expected(kind: str, sizes: Mapping[str, int]) -> tuple[int | None, int | None]:
    """Return rows and columns of the whole weight; None where params.json does not say."""
    dim = sizes["dim"]
    heads = sizes.get("n_heads")
    groups = sizes.get("n_kv_heads", heads)
    of_keys = dim // heads * groups if heads and groups else None
    known: dict[str, tuple[int | None, int | None]] = {
        "wq": (dim, dim),
        "wk": (of_keys, dim),
        "wv": (of_keys, dim),
        "wo": (dim, dim),
        "w1": (None, dim),
        "w3": (None, dim),
        "w2": (dim, None),
    }
    return known.get(kind, (sizes.get("vocab_size"), dim))


def _fits(shape: tuple[int, int], expected: tuple[int | None, int | None]) -> bool:
    return all(wanted in (None, found) for found, wanted in zip(shape, expected, strict=True))
