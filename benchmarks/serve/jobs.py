"""What an inference server is asked, and what it answers: the only thing that both environments know.

This file is imported in the environment of the server too, which does not have wmtp.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """One model to serve, greedily.

    Attributes:
        name: Of the answer.
        target: Directory of the model.
        speculative: How the server is to draft, in its own words; None: not at all.
        dtype: In which it computes.
        prompts: Token ids.
        num_new_tokens: To generate after each, whatever they are.
        options: Further settings, in the server's own words.
    """

    name: str
    target: str
    speculative: dict[str, Any] | None
    dtype: str
    prompts: list[list[int]]
    num_new_tokens: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        name: Of the job.
        outputs: New token ids of each prompt.
        num_rounds: How often drafts were verified.
        num_drafted: Tokens that were drafted.
        accepted: Tokens of each position of a draft that were accepted, from its first.
    """

    name: str
    outputs: list[list[int]]
    num_rounds: int
    num_drafted: int
    accepted: list[int]
