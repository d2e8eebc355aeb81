"""What a model is given for a programming task, and what of its text is the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from wmtp.data.corpus import position_limit
from wmtp.data.encoding import Encoder
from wmtp.errors import DataError
from wmtp.evaluation.sampling import Sampling, sample
from wmtp.evaluation.tasks import Task
from wmtp.models.causal import CausalModel

# A task that an answer goes on from (HumanEval) is done when something new begins at the left; Chen et al. 2021, 3.
_ENDS_OF_A_BODY = ("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```")
# One that asks for a whole program (MBPP), when that is used rather than defined.
_ENDS_OF_A_PROGRAM = ("\nassert", "\nprint", "\nif __name__", '\n"""', "\n```")
_DESCRIBED = '"""\n{prompt}\n{tests}\n"""\n'


@dataclass(frozen=True)
class Answer:
    """One answer to a task.

    Attributes:
        code: What is run.
        ran_out: Whether it was cut at the most tokens that an answer may have.
    """

    code: str
    ran_out: bool


@dataclass(frozen=True)
class Asking:
    """How tasks are put to a model.

    Attributes:
        samples: Answers to each task.
        temperature: Of sampling; 0: the most probable answer.
        max_new_tokens: Tokens of an answer at most; fewer where the model's positions end before.
        template: What the model reads: `{prompt}` is the task's, `{tests}` are its tests, one a line. None: the prompt
            where an answer goes on from that, else both in a docstring.
        batch_size: Answers that are drawn at once.
        seed: Of the draws for the first task; each further task has the next.
    """

    samples: int
    temperature: float
    max_new_tokens: int
    template: str | None
    batch_size: int
    seed: int

    def prompt(self, task: Task) -> str:
        """Return what a model reads for a task."""
        template = self.template or ("{prompt}" if task.head else _DESCRIBED)
        parts = template.split("{tests}")
        return "\n".join(task.tests).join(part.replace("{prompt}", task.prompt) for part in parts)


@dataclass(frozen=True)
class Asked:
    """A model that is asked, with its tokenizer and its configuration.

    Attributes:
        model: From `causal_model`.
        tokenizer: Its own.
        config: Its config.json.
        where: Its address, for messages.
    """

    model: CausalModel
    tokenizer: Any
    config: dict[str, Any]
    where: str

    def answers(self, task: Task, number: int, asking: Asking) -> list[Answer]:
        """Return the answers to a task; the same for the same seed, whatever other tasks there are.

        Raises:
            DataError: If the model's positions do not reach beyond the prompt, or its tokenizer has no end.
        """
        encoder = Encoder(self.tokenizer)
        end, prompt = encoder.require_end(), [*encoder.begin_tokens(), *encoder.texts([asking.prompt(task)])[0]]
        most = self._room(task, prompt, asking)
        stops = _ENDS_OF_A_BODY if task.head else _ENDS_OF_A_PROGRAM
        sampling = Sampling(asking.temperature, most, end)
        found: list[list[int]] = []
        with torch.random.fork_rng():
            torch.manual_seed(asking.seed + number)
            for count in _counts(asking):
                found += sample(self.model, prompt, count, sampling, self._finished(stops))
        texts = [self._text(ids) for ids in found]
        return [
            Answer(_until(text, stops), len(ids) >= most and _until(text, stops) == text)
            for text, ids in zip(texts, found, strict=True)
        ]

    def _room(self, task: Task, prompt: list[int], asking: Asking) -> int:
        limit = position_limit(self.config)
        room = asking.max_new_tokens if limit is None else min(asking.max_new_tokens, limit - len(prompt))
        if room < 1 or not prompt:
            raise DataError(
                f"{self.where}: the prompt of task {task.task_id!r} has {len(prompt)} tokens, and the model knows"
                f" {limit} positions",
                hint="give it a shorter one with template, or take that task out of the file",
            )
        return room

    def _finished(self, stops: tuple[str, ...]) -> Callable[[list[int]], bool]:
        def is_finished(ids: list[int]) -> bool:
            text = self._text(ids)
            return any(stop in text for stop in stops)

        return is_finished

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _counts(asking: Asking) -> Iterator[int]:
    """Yield how many answers are drawn at once, until there are all."""
    for start in range(0, asking.samples, asking.batch_size):
        yield min(asking.batch_size, asking.samples - start)


def _until(text: str, stops: tuple[str, ...]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
