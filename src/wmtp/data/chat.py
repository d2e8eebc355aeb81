"""Chats: turns rendered by the tokenizer's own template, of which those of the assistant are learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError

from wmtp.data.columns import ASSISTANT
from wmtp.data.token_store import Array
from wmtp.untrusted import show

# As transformers looks for it, to know whether a template says itself what the assistant has written.
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

Messages = Sequence[Mapping[str, Any]]


class ChatFault(Exception):
    """What is wrong with a chat, or with the template that should render it.

    Attributes:
        problem: What is wrong.
        hint: What to do.
    """

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem, self.hint = problem, hint


def encode_chat(tokenizer: Any, messages: Messages) -> tuple[Array, Array]:
    """Return the tokens of a chat, and for each whether it is learned.

    Nothing is put before or behind what the template writes. Where it marks what the assistant generates
    (`{% generation %}`), that is learned. Elsewhere an assistant's turn is what the template adds to the chat before it
    with the begin of an answer (`add_generation_prompt`), without the space behind a mark that ends the turn.

    Args:
        tokenizer: The model's tokenizer (a `PreTrainedTokenizerBase`).
        messages: The turns, in order.

    Raises:
        ChatFault: If the template cannot render the chat, or renders turns otherwise once others follow.
    """
    if _is_marked(tokenizer):
        return _marked(tokenizer, messages)
    text = _rendered(tokenizer, messages)
    spans = [
        _span(tokenizer, messages, turn, text) for turn, message in enumerate(messages) if message["role"] == ASSISTANT
    ]
    if not tokenizer.is_fast:
        raise ChatFault(
            "the model's tokenizer does not say where in a text its tokens stand, which chats need",
            "add {% generation %} marks to its chat template, or give the checkpoint a tokenizer.json",
        )
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = np.array(found["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    learned = np.zeros(len(offsets), "u1")
    for begin, end in spans:
        # A token across the begin of an answer is learned, as one across prompt and completion is.
        learned |= ((offsets[:, 1] > begin) & (offsets[:, 0] < end)).astype("u1")
    return np.array(found["input_ids"], "<i4"), learned


def render_chat(tokenizer: Any, messages: Messages) -> str:
    """Return a chat as the tokenizer's template writes it, up to where an answer begins.

    Raises:
        ChatFault: If there is no template, or it cannot render the chat.
    """
    _require_template(tokenizer)
    return _rendered(tokenizer, messages, add_generation_prompt=True)


def _require_template(tokenizer: Any) -> None:
    if not tokenizer.chat_template:
        raise ChatFault(
            "the base model's tokenizer has no chat template",
            "put its chat_template.jinja beside the weights, or render the chats yourself as prompts and completions",
        )


def _is_marked(tokenizer: Any) -> bool:
    _require_template(tokenizer)
    return _MARK.search(_template(tokenizer)) is not None


def _template(tokenizer: Any) -> str:
    template: str = tokenizer.get_chat_template()
    return template


def _marked(tokenizer: Any, messages: Messages) -> tuple[Array, Array]:
    try:
        found = tokenizer.apply_chat_template(
            list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise _not_rendered(error) from error
    return np.array(found["input_ids"], "<i4"), np.array(found["assistant_masks"], "u1")


def _span(tokenizer: Any, messages: Messages, turn: int, text: str) -> tuple[int, int]:
    before = _rendered(tokenizer, messages[:turn], add_generation_prompt=True)
    after = _rendered(tokenizer, messages[: turn + 1])
    if not after.startswith(before) or not text.startswith(after):
        raise ChatFault(
            f"the chat template renders what comes before turn {turn + 1}, or that turn itself, otherwise once more"
            " follows, so that nothing shows which of its tokens are the assistant's",
            "mark these in the template with {% generation %} and {% endgeneration %}",
        )
    content = messages[turn]["content"]
    closed = after.rstrip()
    # Behind the mark that ends a turn the template's own line ends follow, which no assistant writes.
    is_closed = isinstance(content, str) and not closed.endswith(content.rstrip())
    return len(before), len(closed) if is_closed else len(after)


def _rendered(tokenizer: Any, messages: Messages, *, add_generation_prompt: bool = False) -> str:
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        raise _not_rendered(error) from error
    return text


def _not_rendered(error: Exception) -> ChatFault:
    return ChatFault(
        f"the model's chat template does not render this chat: {type(error).__name__}: {show(str(error))}",
        "mend the chat, or leave it out",
    )
