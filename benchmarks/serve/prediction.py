"""How many drafts a server has to accept, by the logits of the model that it serves.

Speculative decoding gives the target's own greedy text whatever the heads are: heads of noise, or in the wrong order,
show in nothing but how many of their drafts are accepted. So that number is computed from the model in wmtp, round by
round along the text that was served, and has to be the server's to the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from wmtp.models.calls import recorded_calls
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.models.native_module import embedded
from wmtp.models.targets import Rows

DraftsAt = Callable[[int], Sequence[int]]


@dataclass(frozen=True)
class Counts:
    """Drafts of a run.

    Attributes:
        num_rounds: How often drafts were verified.
        num_drafted: Tokens that were drafted.
        accepted: Tokens of each position of a draft that were accepted, from its first.
    """

    num_rounds: int
    num_drafted: int
    accepted: tuple[int, ...]

    def __add__(self, other: Counts) -> Counts:
        accepted = (a + b for a, b in zip(self.accepted, other.accepted, strict=True))
        return Counts(self.num_rounds + other.num_rounds, self.num_drafted + other.num_drafted, tuple(accepted))


def play_rounds(
    drafts_at: DraftsAt, tokens: Sequence[int], num_prompt_tokens: int, num_new_tokens: int
) -> dict[int, int]:
    """Play the rounds of greedy speculative decoding along a text that is known.

    The prompt gives the first token by itself. Then each round verifies the drafts made where the last token was
    predicted: those up to the first wrong one are accepted, and the target adds one token of its own.

    Args:
        drafts_at: Says for a position t what is drafted for t + 2, t + 3, ...; asked where a round begins.
        tokens: The prompt and what the target says after it, with as many tokens more as a draft has: the last round
            may accept beyond the end, and servers count that.
        num_prompt_tokens: How many of them are the prompt.
        num_new_tokens: How many were asked for.

    Returns:
        For each position at which a round begins, how many of its drafts are accepted.
    """
    found: dict[int, int] = {}
    position = num_prompt_tokens - 1
    while position + 1 < num_prompt_tokens + num_new_tokens - 1:
        drafts = drafts_at(position)
        right = [draft == tokens[place] for place, draft in enumerate(drafts, position + 2)]
        found[position] = right.index(False) if False in right else len(right)
        position += 1 + found[position]
    return found


@torch.no_grad()
def predicted_counts(
    model: nn.Module, prompts: Sequence[list[int]], continuations: Sequence[list[int]], num_drafts: int
) -> tuple[Counts, int]:
    """Return what a server has to count, and at how many places the model's own next token is not the served one.

    Args:
        model: Answers token ids with `logits` `[batch, seq, future, vocab]`.
        prompts: Token ids.
        continuations: What the target said after each without drafts, `num_drafts` tokens more than are counted.
        num_drafts: Tokens drafted a round, by heads 2 to `num_drafts` + 1; several of a model with native modules by
            its first one, run again and again.
    """
    counts, num_differing = Counts(0, 0, (0,) * num_drafts), 0
    for prompt, continuation in zip(prompts, continuations, strict=True):
        tokens = prompt + continuation
        best = model(torch.tensor([tokens])).logits[0].argmax(-1)  # seq future
        num_differing += int((best[len(prompt) - 1 : -1, 0] != torch.tensor(continuation)).sum())
        drafts_at = _drafts_of(model, best, tokens, num_drafts)
        rounds = play_rounds(drafts_at, tokens, len(prompt), len(continuation) - num_drafts)
        accepted = (sum(number > place for number in rounds.values()) for place in range(num_drafts))
        counts += Counts(len(rounds), len(rounds) * num_drafts, tuple(accepted))
    return counts, num_differing


def _drafts_of(model: nn.Module, best: Int[Tensor, "seq future"], tokens: Sequence[int], num_drafts: int) -> DraftsAt:
    if isinstance(model, NativeMTPForCausalLM) and num_drafts > 1:
        return lambda position: run_again(model, tokens, position + 1, num_drafts)
    drafts = best[:, 1 : num_drafts + 1].tolist()
    return lambda position: drafts[position]


@torch.no_grad()
def run_again(model: NativeMTPForCausalLM, tokens: Sequence[int], num_rows: int, num_drafts: int) -> list[int]:
    """Return what a server drafts that runs the first module again, on its own drafts and its own output.

    The further runs see what the first one left of earlier tokens: each is one more row of the same sequence. Training
    with `recursion` lets each run see its own states instead, so its logits are not these.

    Args:
        model: With native modules.
        tokens: Known ones, with at least `num_drafts` more than rows.
        num_rows: Rows whose hidden states the trunk has; the last of them has the next token beside it.
        num_drafts: How often the module runs.
    """
    norm = model.trunk.get_submodule(model._final_norm)
    like = model.layer(model.conventions.block_like[0])
    rows = Rows(None, None, None)
    drafts: list[int] = []
    embedding = hidden = torch.empty(0)
    for number in range(num_drafts):
        ids = torch.tensor([tokens[: num_rows + number]])
        with recorded_calls(norm, like) as calls:  # masks and positions of so many rows
            after = model._run_body(ids, rows)
        if number == 0:
            hidden = after if model.conventions.hidden == "after_norm" else calls[norm][0][0]
            known = torch.tensor([tokens[: num_rows + 1]])
            embedding = model._embedding(2, known, rows)[:, :-1]
        output, passed = model._run(2, embedding, hidden, calls[like])
        draft = model.logits(2, model.change.of_hidden(output[:, -1])).argmax(-1)
        drafts.append(int(draft))
        vector = embedded(model.trunk.get_input_embeddings(), draft[None], bare=model.conventions.bare_embedding)
        embedding, hidden = torch.cat([embedding, vector], 1), torch.cat([hidden, passed[:, -1:]], 1)
    return drafts
