"""Run jobs in transformers' own speculative decoding, `generate(use_mtp=True)`, one prompt after the other.

    PYTHON transformers_engine.py JOBS.json ANSWERS.jsonl

It counts nothing itself: what was accepted of each round is what it tells its generator of candidates afterwards.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jobs import Answer, Job
from transformers import AutoModelForCausalLM
from transformers.generation.candidate_generator import MTPCandidateGenerator


@dataclass
class Rounds:
    """Rounds of one prompt.

    Attributes:
        end: Rounds that begin with so many tokens, or more, are not counted.
        accepted: Drafts accepted of each.
    """

    end: int
    accepted: list[int] = field(default_factory=list)


class _Counting(MTPCandidateGenerator):
    """Notes what comes of each draft."""

    rounds = Rounds(0)
    is_counted = False

    def get_candidates(self, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        self.is_counted = not kwargs["is_first_iteration"] and input_ids.shape[1] < self.rounds.end
        return super().get_candidates(input_ids, *args, **kwargs)

    def update_candidate_strategy(self, input_ids: Any, scores: Any, num_matches: int) -> None:
        if self.is_counted:
            self.rounds.accepted.append(int(num_matches))
        super().update_candidate_strategy(input_ids, scores, num_matches)


def serve(job: Job) -> Answer:
    """Load a model, generate after each prompt, and add up the rounds."""
    model = AutoModelForCausalLM.from_pretrained(job.target, dtype=job.dtype).eval()
    model.generation_config.eos_token_id = None  # all of the tokens that were asked for
    num_drafts = job.speculative["num_speculative_tokens"] if job.speculative else 0
    outputs, accepted = [], []
    for prompt in job.prompts:
        end = len(prompt) + job.num_new_tokens
        _Counting.rounds = Rounds(end)
        # A round that begins before the end may accept tokens beyond it, and those count.
        length = end + num_drafts
        found = model.generate(
            torch.tensor([prompt]), max_length=length, do_sample=False, use_mtp=job.speculative is not None
        )
        outputs.append(found[0, len(prompt) : end].tolist())
        accepted += _Counting.rounds.accepted
    by_place = [sum(number > place for number in accepted) for place in range(num_drafts)]
    return Answer(job.name, outputs, len(accepted), len(accepted) * num_drafts, by_place)


def main() -> None:
    """Answer every job of a file."""
    import transformers.generation.utils

    transformers.generation.utils.MTPCandidateGenerator = _Counting
    jobs, answers = map(Path, sys.argv[1:])
    for job in json.loads(jobs.read_text()):
        answer = serve(Job(**job))
        with answers.open("a") as file:
            file.write(json.dumps(asdict(answer)) + "\n")


if __name__ == "__main__":
    main()
