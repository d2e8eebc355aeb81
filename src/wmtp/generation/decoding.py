"""The loop: heads draft, one pass of the model verifies, what is right is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wmtp.generation.choosing import Rule
from wmtp.generation.result import Counts
from wmtp.generation.states import DecodingState


def decode(
    state: DecodingState, prompt: Sequence[int], rule: Rule, num_drafts: int, max_new_tokens: int, counts: Counts
) -> Iterator[int]:
    """Yield new tokens, one by one; whoever has enough stops asking.

    With `Greedy` they are those of plain decoding, whatever the heads propose; with `Sampling` they have the same
    distribution. Passes differ from plain decoding's in how many tokens they read at once, and so in the last bits of
    their logits: a choice between two tokens that are equally good to that precision may fall otherwise.

    Args:
        state: Of a row of which nothing was read.
        prompt: At least one token.
        rule: How tokens are chosen.
        num_drafts: Drafted a round at most; 0: plain decoding.
        max_new_tokens: At least 1. No pass reads more tokens than the prompt and these.
        counts: What is done is added to it.
    """
    logits = state.read(prompt, 1)
    counts.add_pass()
    state.keep(len(prompt))
    token = rule.choose(logits[0]).token
    num_left = max_new_tokens - 1
    yield token
    while num_left:
        drafts = state.draft(token, min(num_drafts, num_left - 1), rule.choose)
        logits = state.read([token, *(draft.token for draft in drafts)], len(drafts) + 1)
        accepted, token = rule.verify(drafts, logits)
        counts.add_pass(len(drafts))
        state.keep(1 + accepted)
        for place, draft in enumerate(drafts[:accepted]):
            counts.accepted[place] += 1
            yield draft.token
        yield token
        num_left -= accepted + 1
