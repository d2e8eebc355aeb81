"""What a causal LM does to its logits after the unembedding: a factor, then a soft cap.

Nothing here knows an architecture by name: what configurations call the two is a table, and a value in it is a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import PretrainedConfig

from wmtp.errors import CheckpointError
from wmtp.untrusted import show

Scaling = Literal["multiply", "divide", "divide_hidden", "ignore"]
_SCALINGS: tuple[Scaling, ...] = get_args(Scaling)

# What configurations call a factor of the logits, and how most classes that read it apply it.
_SCALES: dict[str, Scaling] = {
    "logit_scale": "multiply",
    "lm_head_multiplier": "multiply",
    "output_multiplier": "multiply",
    "logits_scaling": "divide",
    "logits_mup_width_multiplier": "divide_hidden",
}
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


def scale(values: Tensor, factor: float, *, divide: bool) -> Tensor:
    """Return values times, or by, a factor; each as the class does it, since the two round differently."""
    if factor == 1:
        return values
    return values / factor if divide else values * factor


def soft_cap(logits: Tensor, cap: float | None) -> Tensor:
    """Return logits bent smoothly into (-cap, cap); as they are without a cap."""
    return logits if cap is None else torch.tanh(logits / cap) * cap


@dataclass(frozen=True)
class LogitChange:
    """What stands between an unembedding and the logits that a model answers with; called with logits.

    Attributes:
        factor: Any number but 0; 1 changes nothing.
        scaling: Whether logits are multiplied by it or divided, hidden states divided before the unembedding, or
            nothing is done, as by classes for images that leave it to the causal LM of which they have the body only.
        cap: Above 0, in logits. None: none.
    """

    factor: float = 1.0
    scaling: Scaling = "multiply"
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return what the model answers with."""
        return soft_cap(self.scaled(logits), self.cap)

    def scaled(self, logits: Tensor) -> Tensor:
        """Return logits as they are before the cap.

        The unembedding is linear, so that this may be done to its input and its bias as well.
        """
        if self.scaling in ("multiply", "divide"):
            return scale(logits, self.factor, divide=self.scaling == "divide")
        return logits

    def of_hidden(self, hidden: Tensor) -> Tensor:
        """Return what the unembedding is applied to."""
        return scale(hidden, self.factor, divide=True) if self.scaling == "divide_hidden" else hidden

    def as_seen(self, answer: Callable[[LogitChange], Tensor], expected: Tensor) -> LogitChange:
        """Return the first way of applying the factor, this one before others, with which the answer is as expected.

        Classes disagree about what a configuration's factor does, and a model with weights can be asked. Bit for bit,
        as logits that are divided and those of hidden states that are divided differ in their last bits only.

        Args:
            answer: Logits by a change.
            expected: The model's own.

        Returns:
            This change where no way is right: then something else is done to the logits.
        """
        ways = [self, *(replace(self, scaling=scaling) for scaling in _SCALINGS if scaling != self.scaling)]
        return next((way for way in ways if torch.equal(answer(way).to(expected.dtype), expected)), self)


UNCHANGED = LogitChange()


def declared_change(config: PretrainedConfig, scaling: Scaling | None = None) -> LogitChange:
    """Return how a causal LM of this configuration changes its logits.

    Args:
        config: Its configuration; that of the text model counts where there are several.
        scaling: How the factor is applied; None: as most classes do whose configurations call it the same.

    Raises:
        CheckpointError: If a field is no number that can be applied, or two name a factor or a cap.
    """
    text = config.get_text_config(decoder=True)
    factors = _declared(text, tuple(_SCALES), harmless=1)
    caps = _declared(text, _CAPS, harmless=0)
    name, factor = factors if factors else ("logit_scale", 1.0)
    return LogitChange(factor, scaling or _SCALES[name], caps[1] if caps else None)


def _declared(config: PretrainedConfig, names: tuple[str, ...], *, harmless: float) -> tuple[str, float] | None:
    values = {name: getattr(config, name, None) for name in names}
    found = {name: value for name, value in values.items() if value is not None and value != harmless}
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value == 0:
            _refuse(f"{name} is {show(value)}, expected a finite number other than 0")
        if harmless == 0 and value < 0:
            _refuse(f"{name} is {show(value)}, expected a soft cap above 0")
    if len(found) > 1:
        _refuse(f"{' and '.join(found)} are given, and both change the logits")
    return next(((name, float(value)) for name, value in found.items()), None)


def _refuse(problem: str) -> None:
    raise CheckpointError(
        f"the trunk's configuration: {problem}",
        hint="compare config.json with the one that the weights were saved with; it says what stands between the"
        " unembedding and the logits",
    )
