"""Generate text: drafts from the model's own heads, verified by the model itself."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import Unpack

from wmtp.generation.bounds import Bounds
from wmtp.generation.choosing import Greedy
from wmtp.generation.decoder import Decoder, open_decoder
from wmtp.generation.decoding import decode
from wmtp.generation.options import GenerationKeywords, GenerationOptions
from wmtp.generation.prompts import EncodedPrompt, Prompt, encoded
from wmtp.generation.result import Counts, Decoded, GeneratedRow, Generation
from wmtp.generation.rows import RowMaker
from wmtp.loaders.base import LoadResult
from wmtp.loaders.standardized import load
from wmtp.storage.uri import ModelURI

_WARM_UP_TOKENS = 8
_SEEDS = 2**31
_NOTHING_TO_COMPARE = "not compared: nothing is drafted, so this is plain decoding"


def generate(
    model: str | Path | ModelURI | LoadResult | nn.Module,
    prompts: Prompt | Sequence[Prompt],
    *,
    tokenizer: Any | None = None,
    **options: Unpack[GenerationKeywords],
) -> Generation:
    """Generate text after prompts; heads beyond the next-token head draft, and the model verifies.

    Without a temperature tokens are those of plain greedy decoding, with one they have the model's own distribution.
    Rows are decoded one after another: in a batch, padding would change the last bits of logits, and thereby tokens.

    Args:
        model: An address, as `wmtp.load` takes it; what that returned, for a model that was loaded otherwise than by
            default; or a model, with `tokenizer`.
        prompts: One text or several; a prompt may also be a chat (a list of turns) or a list of token ids.
        tokenizer: Of the model, where that is a module.
        **options: As in `GenerationOptions`: max_new_tokens, temperature, top_p, seed, stop, drafts, chat, compare, ...

    Raises:
        GenerationError: If the model is no language model, or prompts and options do not fit it.
        WmtpError: If the model cannot be loaded.
    """
    wanted = GenerationOptions(**options)
    source = model if isinstance(model, (LoadResult, nn.Module)) else load(model)
    name, module = type(source).__name__, source
    if isinstance(source, LoadResult):
        name, module = source.checkpoint.where, source.model
        tokenizer = source.tokenizer if tokenizer is None else tokenizer
    assert isinstance(module, nn.Module)
    bounds = Bounds.of(module, tokenizer, source.checkpoint if isinstance(source, LoadResult) else None)
    ready = list(encoded(prompts, tokenizer, chat=wanted.chat))
    bounds.check(ready)
    with _evaluated(module):
        decoder = open_decoder(module, wanted.drafts, kv_cache=wanted.kv_cache)
        if wanted.compare and not decoder.num_drafts:
            decoder, wanted = (
                replace(decoder, notes=(*decoder.notes, _NOTHING_TO_COMPARE)),
                replace(wanted, compare=False),
            )
        maker = RowMaker(tokenizer, wanted, bounds, _seed(wanted), next(module.parameters()).device)
        ours, plain = _decoded(ready, decoder, maker, wanted)
    seed = None if wanted.is_greedy else maker.seed
    return Generation(
        ours.rows, ours.counts, model=name, num_drafts=decoder.num_drafts, seed=seed, notes=decoder.notes, plain=plain
    )


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()  # dropout would differ from pass to pass
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def _seed(options: GenerationOptions) -> int:
    return secrets.randbelow(_SEEDS) if options.seed is None else options.seed


def _decoded(
    prompts: Sequence[EncodedPrompt], decoder: Decoder, maker: RowMaker, options: GenerationOptions
) -> tuple[Decoded, Decoded | None]:
    """Decode every prompt, and where it is compared plainly too, in turn: what slows a machine slows both."""
    rows, plain_rows = list[GeneratedRow](), list[GeneratedRow]()
    counts, plain_counts = Counts(), Counts()
    if options.compare:
        _warm_up(decoder, prompts[0])
    for number, prompt in enumerate(prompts):
        rows.append(maker.row(number, prompt, decoder, counts))
        if options.compare:
            plain_rows.append(maker.row(number, prompt, decoder.plainly(), plain_counts, is_shown=False))
    return Decoded(tuple(rows), counts), Decoded(tuple(plain_rows), plain_counts) if plain_rows else None


def _warm_up(decoder: Decoder, prompt: EncodedPrompt) -> None:
    for way in (decoder, decoder.plainly()):
        state = way.new_state(way.num_drafts)
        list(decode(state, prompt.tokens[:1], Greedy(), way.num_drafts, _WARM_UP_TOKENS, Counts()))
