"""From prompts as people give them to tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from wmtp.data.chat import ChatFault, render_chat
from wmtp.data.columns import read_messages, read_text
from wmtp.data.encoding import Encoder
from wmtp.data.records import parse_record
from wmtp.errors import GenerationError
from wmtp.untrusted import show

Turns = Sequence[Mapping[str, Any]]
Prompt = str | Turns | Sequence[int]


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the model reads it.

    Attributes:
        text: As text, a chat as its template rendered it; None where tokens were given.
        tokens: At least one.
    """

    text: str | None
    tokens: tuple[int, ...]


def read_prompts(path: Path) -> list[Prompt]:
    """Return the prompts of a JSONL file: of each line the text under `prompt`, or the turns under `messages`.

    Raises:
        DataError: If a line is no such object.
        GenerationError: If there is none.
    """
    found = [
        _prompt(line, f"{path}:{number}")
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1)
        if line.strip()
    ]
    if not found:
        raise GenerationError(f"{path}: has no line", hint='write one object a line: {"prompt": "def add(a, b):"}')
    return found


def _prompt(line: bytes, where: str) -> Prompt:
    entry = parse_record(line.removeprefix(b"\xef\xbb\xbf"), where)
    if "messages" in entry:
        return read_messages(entry, "messages", where, "", is_learned=False)
    hint = 'write each line as {"prompt": "…"}, or {"messages": [{"role": "user", "content": "…"}]}'
    return read_text(entry, "prompt", where, hint, may_be_empty=True)


def encoded(prompts: Prompt | Sequence[Prompt], tokenizer: Any | None, *, chat: bool) -> Iterator[EncodedPrompt]:
    """Yield prompts as the model reads them: texts begin as they do in training, chats are rendered up to the answer.

    Args:
        prompts: One text, one chat, or several prompts.
        tokenizer: The model's (a `PreTrainedTokenizerBase`); None: prompts have to be tokens.
        chat: Whether a text is what a user says, rather than what is to be gone on with.

    Raises:
        GenerationError: If there is no prompt, or one that cannot be read.
    """
    given: Any = [prompts] if isinstance(prompts, str) or _is_chat(prompts) else list(prompts)
    if not given:
        raise GenerationError("there is no prompt", hint="give at least one")
    for number, prompt in enumerate(given, 1):
        found = _encoded(prompt, tokenizer, chat=chat, where=f"prompt {number}")
        if not found.tokens:
            _refuse_empty(f"prompt {number}", tokenizer)
        yield found


def _is_chat(prompt: Any) -> bool:
    return isinstance(prompt, Sequence) and bool(prompt) and all(isinstance(turn, Mapping) for turn in prompt)


def _encoded(prompt: Any, tokenizer: Any | None, *, chat: bool, where: str) -> EncodedPrompt:
    if not isinstance(prompt, str) and not _is_chat(prompt):
        return EncodedPrompt(None, _tokens(prompt, where))
    if tokenizer is None:
        problem = f"{where} is text, and the model has no tokenizer"
        raise GenerationError(problem, hint="put its tokenizer.json beside the weights, or give prompts as tokens")
    encoder = Encoder(tokenizer)
    if isinstance(prompt, str) and not chat:
        return EncodedPrompt(prompt, (*encoder.begin_tokens(), *encoder.texts([prompt])[0]))
    turns: Turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    try:
        text = render_chat(tokenizer, turns)
    except ChatFault as fault:
        raise GenerationError(f"{where}: {fault.problem}", hint=fault.hint) from fault
    return EncodedPrompt(text, tuple(encoder.texts([text])[0]))  # a template writes what a text begins with itself


def _tokens(prompt: Any, where: str) -> tuple[int, ...]:
    tokens = tuple(prompt) if isinstance(prompt, Sequence) else None
    if tokens is None or not all(isinstance(token, int) and token >= 0 for token in tokens):
        hint = "give text, a list of turns with role and content, or a list of token ids"
        raise GenerationError(f"{where} is {show(prompt)}", hint=hint)
    return tokens


def _refuse_empty(where: str, tokenizer: Any | None) -> NoReturn:
    why = "" if tokenizer is None else ", and the model's tokenizer has no token that begins a text"
    raise GenerationError(f"{where} has no token{why}", hint="give at least a word to go on from")
