"""A tiny model of Meta's multi-token release, and its forward pass in plain torch, by its own names alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

PARAMS = {
    "dim": 32,
    "n_layers": 4,
    "n_heads": 4,
    "n_kv_heads": 2,
    "vocab_size": 24,
    "multiple_of": 16,
    "norm_eps": 1e-4,
    "rope_theta": 500.0,
    "n_future_tokens": 3,
}
WIDTH = 96  # 2/3 of 4 * 32, up to a multiple of 16


def meta_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Two layers and two further heads; large enough values that every part shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    dim, keys = 32, 16
    matrices = {"attention.wq": (dim, dim), "attention.wk": (keys, dim), "attention.wv": (keys, dim)}
    matrices |= {"attention.wo": (dim, dim), "feed_forward.w1": (WIDTH, dim)}
    matrices |= {"feed_forward.w2": (dim, WIDTH), "feed_forward.w3": (WIDTH, dim)}
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (24, dim)}
    for layer in ("layers.0", "layers.1", "extra_heads.0", "extra_heads.1"):
        shapes |= {f"{layer}.{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"{layer}.{name}.weight": (dim,) for name in ("attention_norm", "ffn_norm")}
    shapes |= {"norm.weight": (dim,), "output.weight": (24, dim)}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def write_meta(directory: Path, tensors: dict[str, Any] | None = None, **changes: Any) -> Path:
    """The directory of a release; a change to None takes a field out of params.json."""
    directory.mkdir()
    torch.save(meta_tensors() if tensors is None else tensors, directory / "consolidated.pth")
    params = {key: value for key, value in {**PARAMS, **changes}.items() if value is not None}
    (directory / "params.json").write_text(json.dumps(params))
    return directory


def meta_logits(tensors: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits of every head, [batch, seq, head, vocab]: all read the state after `layers[:-1]`."""
    state = _layer(tensors, "layers.0", tensors["tok_embeddings.weight"][ids])
    heads = ("layers.1", "extra_heads.0", "extra_heads.1")
    latents = torch.stack([_layer(tensors, head, state) for head in heads], dim=-2)
    return F.linear(_normed(latents, tensors["norm.weight"]), tensors["output.weight"])


def _layer(tensors: dict[str, Tensor], layer: str, state: Tensor) -> Tensor:
    w = {name.removeprefix(f"{layer}.").removesuffix(".weight"): t for name, t in tensors.items()}
    state = state + _attention(w, _normed(state, w["attention_norm"]))
    x = _normed(state, w["ffn_norm"])
    gated = F.silu(x @ w["feed_forward.w1"].T) * (x @ w["feed_forward.w3"].T)
    return state + gated @ w["feed_forward.w2"].T


def _attention(w: dict[str, Tensor], x: Tensor) -> Tensor:
    batch, seq, _ = x.shape
    q, k, v = ((x @ w[f"attention.{n}"].T).view(batch, seq, -1, 8) for n in ("wq", "wk", "wv"))
    q, k = _turned(q), _turned(k)
    k, v = (t.repeat_interleave(2, dim=2) for t in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
    hidden = torch.ones(seq, seq, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, seq, -1) @ w["attention.wo"].T


def _turned(x: Tensor) -> Tensor:
    """Each pair (2i, 2i + 1) is a complex number, and turned by an angle."""
    frequencies = 1.0 / 500.0 ** (torch.arange(0, 8, 2) / 8)
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float), frequencies)
    turns = torch.polar(torch.ones_like(angles), angles)[None, :, None]
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 4, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def _normed(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-4) * weight
