"""What was generated, and what it took."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from wmtp.wording import counted

Finish = Literal["eos", "stop", "length", "context"]
_REPEATED = 8  # tokens
_SHOWN_ROWS, _SHOWN_CHARACTERS = 20, 400


@dataclass
class Counts:
    """What decoding did.

    Attributes:
        passes: Forward passes of the model, those over prompts included.
        drafted: How often a token was drafted for each place after the next token, from the first.
        accepted: How often that one was accepted, with all before it.
    """

    passes: int = 0
    drafted: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def add_pass(self, num_drafts: int = 0) -> None:
        """Count a pass that verifies so many drafts."""
        self.passes += 1
        for counts in (self.drafted, self.accepted):
            counts.extend([0] * (num_drafts - len(counts)))
        for place in range(num_drafts):
            self.drafted[place] += 1

    @property
    def acceptance(self) -> list[float]:
        """The share of accepted tokens among those drafted, place by place; of places that were ever drafted for."""
        return [accepted / drafted for accepted, drafted in zip(self.accepted, self.drafted, strict=True)]


@dataclass(frozen=True)
class GeneratedRow:
    """What was generated for one prompt.

    Attributes:
        prompt: The prompt as text, a chat as its template rendered it; None where tokens were given.
        prompt_tokens: Its tokens.
        tokens: The new ones, the last included by which it ended.
        text: Theirs, without a stop string and what follows it. None without a tokenizer.
        finish: Why it ended: an end-of-text token, a stop string, `max_new_tokens`, or the model has no more positions.
        seconds: Wall-clock time, the prompt's pass included.
    """

    prompt: str | None
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str | None
    finish: Finish
    seconds: float


@dataclass(frozen=True)
class Decoded:
    """Rows that were decoded in one way.

    Attributes:
        rows: In the order of the prompts.
        counts: What was done for all of them.
    """

    rows: tuple[GeneratedRow, ...]
    counts: Counts

    @property
    def num_tokens(self) -> int:
        """New tokens of all rows."""
        return sum(len(row.tokens) for row in self.rows)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all rows."""
        return sum(row.seconds for row in self.rows)

    @property
    def tokens_per_forward(self) -> float:
        """New tokens for each forward pass; 1 where nothing is drafted."""
        return self.num_tokens / self.counts.passes

    @property
    def tokens_per_second(self) -> float:
        """New tokens a second."""
        return self.num_tokens / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Return figures for a program."""
        return {
            "new_tokens": self.num_tokens,
            "forward_passes": self.counts.passes,
            "tokens_per_forward": self.tokens_per_forward,
            "seconds": self.seconds,
            "drafted": self.counts.drafted,
            "accepted": self.counts.accepted,
        }


@dataclass(frozen=True)
class Generation(Decoded):
    """What `wmtp.generate` returns.

    Attributes:
        model: The model's address, or its class.
        num_drafts: Tokens that were drafted a round at most; 0: decoded plainly.
        seed: What random numbers began with; None: greedy.
        notes: Why it was not decoded as could be expected.
        plain: The same prompts decoded plainly, with a cache, in turn with these; None where not asked for.
    """

    model: str
    num_drafts: int
    seed: int | None = None
    notes: tuple[str, ...] = ()
    plain: Decoded | None = None

    @property
    def texts(self) -> list[str | None]:
        """The new text of each row."""
        return [row.text for row in self.rows]

    @property
    def speedup(self) -> float | None:
        """How many times more tokens a second than plain decoding; None where not compared."""
        return None if self.plain is None else self.tokens_per_second / self.plain.tokens_per_second

    @property
    def repeated_8_grams(self) -> float:
        """The share of runs of 8 new tokens that stood in their row before: text that repeats itself drafts well."""
        return repeated_share([row.tokens for row in self.rows])

    @property
    def num_equal(self) -> int | None:
        """How many rows have the tokens of plain decoding; None where not compared, or drawn at random."""
        if self.plain is None or self.seed is not None:
            return None
        return sum(ours.tokens == theirs.tokens for ours, theirs in zip(self.rows, self.plain.rows, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return rows and figures for a program."""
        compared = {} if self.plain is None else {
            "plain": self.plain.to_dict(), "speedup": self.speedup, "equal_rows": self.num_equal,
        }  # fmt: skip
        return {
            "model": self.model,
            "num_drafts": self.num_drafts,
            "seed": self.seed,
            "notes": list(self.notes),
            **super().to_dict(),
            "acceptance": self.counts.acceptance,
            "repeated_8_grams": self.repeated_8_grams,
            **compared,
            "rows": [{**vars(row), "prompt_tokens": len(row.prompt_tokens)} for row in self.rows],
        }

    def summary(self) -> Iterator[str]:
        """Yield lines for a person."""
        yield (
            f"{counted(self.num_tokens, 'new token')}, {self.tokens_per_forward:.2f} a forward pass,"
            f" {self.tokens_per_second:.1f} a second"
        )
        if self.num_drafts:
            places = ", ".join(f"{share:.0%}" for share in self.counts.acceptance) or "nothing drafted"
            yield f"accepted drafts by place: {places} (of {', '.join(map(str, self.counts.drafted)) or '0'})"
        yield f"repeated runs of {_REPEATED} tokens: {self.repeated_8_grams:.0%}"
        if self.plain is not None:
            yield (
                f"{self.speedup:.2f} times the speed of plain decoding in this run"
                f" ({self.plain.tokens_per_second:.1f} tokens a second)" + self._equality()
            )
        if self.seed is not None:
            yield f"seed: {self.seed}"
        yield from (f"note: {note}" for note in self.notes)

    def _equality(self) -> str:
        return "" if self.num_equal is None else f"; {self.num_equal} of {len(self.rows)} rows have the same tokens"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_cell(row.prompt)}</td><td>{_cell(row.text)}</td><td>{len(row.tokens)}</td><td>{row.finish}</td></tr>"
            for row in self.rows[:_SHOWN_ROWS]
        )
        more = len(self.rows) - _SHOWN_ROWS
        rest = f"<tr><td colspan=4>and {more:,} more</td></tr>" if more > 0 else ""
        head = "<tr><th>prompt</th><th>new text</th><th>tokens</th><th>ended by</th></tr>"
        facts = "<br>".join(html.escape(line) for line in self.summary())
        return f"<table>{head}{rows}{rest}</table><p>{facts}</p>"


def _cell(text: str | None) -> str:
    shown = "" if text is None else text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return f"<pre>{html.escape(shown)}</pre>"


def repeated_share(rows: Sequence[Sequence[int]], length: int = _REPEATED) -> float:
    """Return the share of runs of so many tokens that have stood in the same row before; 0 where no row has one."""
    runs = [[tuple(row[start : start + length]) for start in range(len(row) - length + 1)] for row in rows]
    total = sum(map(len, runs))
    return 1 - sum(len(set(each)) for each in runs) / total if total else 0.0
