"""What the weight of a token is, in sentences for people who have read nothing else of an algorithm."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wmtp.algorithms.critic_section import CriticSection
    from wmtp.algorithms.rho1_section import Rho1Section

_AMONG = {"batch": "of a micro-batch", "sequence": "of a text", "ema": "of the past steps (a running cut-off)"}
_EVERY_HEAD = "A token has one weight, which every head that predicts it learns it with."
_SHARED = "The heads of a position share a mean weight of 1 among the tokens that they predict, by a softmax of"


def rho1_rule(section: Rho1Section) -> str:
    """Return the rule of rho1-wmtp."""
    score = "Excess loss is the loss of head 1 at a token less the loss of the reference model at it, in nats."
    return " ".join([score, _by_excess(section), *_warmup(section.warmup_steps)])


def _by_excess(section: Rho1Section) -> str:
    keep, soft = f"{section.keep_ratio:g}", f"{section.temperature:g}"
    if section.selection_mode == "horizon":
        return (
            f"{_SHARED} excess loss / temperature ({soft} nats): what is learnable counts more, and nothing is dropped."
        )
    which = f"the share keep_ratio = {keep} of the tokens {_AMONG[section.scope]} with the highest excess losses"
    why = (
        "Emphasised are tokens that the model has yet to learn and the reference knows to be learnable; what both find"
        " hard, and what the model knows already, is not."
    )
    if section.selection_mode == "weighted":
        gate = f"sigmoid((excess loss - cut-off) / temperature), temperature = {soft} nats, brought to a mean of 1"
        return f"A token weighs {gate}; above the cut-off lies {which}. {why} {_EVERY_HEAD}"
    equal = f"about 1 / {keep} = {1 / section.keep_ratio:.3g}, so that the mean is 1"
    return f"Kept is {which}: each of them weighs the same, {equal}, and all others 0. {why} {_EVERY_HEAD}"


def _warmup(steps: int) -> list[str]:
    return [f"In the first {steps} optimizer steps every token weighs 1."] if steps else []


def critic_rule(section: CriticSection, temperature: float) -> str:
    """Return the rule of critic-wmtp, with the temperature that it has where the section names none."""
    soft = f"{temperature:g}"
    if section.normalize == "horizon":
        weight = f"{_SHARED} A / temperature ({soft})."
    else:
        mean = "the past steps" if section.scope == "ema" else "the micro-batch"
        limits = "at least 0.1 and at most 5"
        weight = f"A token weighs exp(A / {soft}), {limits}, divided by the mean of {mean}. {_EVERY_HEAD}"
    why = "Emphasised are tokens that raise the reward to be expected; those that lower it count less."
    return f"{_advantage(section)} {weight} {why} {_values(section)}"


def _advantage(section: CriticSection) -> str:
    unit = "both in standard deviations of the reward"
    if section.credit == "token":
        what = "the reward to be expected once the token is chosen (Q), less that before it (V)"
        return f"The advantage of a token is A = Q - V: {what}, {unit}."
    what = "the reward of the whole text (R), less that to be expected before the token (V)"
    credit = f"The advantage of a token is A = R - V: {what}, {unit}"
    if section.gamma == section.lambda_advantage == 1:
        return f"{credit}."
    factors = f"gamma = {section.gamma:g} and lambda = {section.lambda_advantage:g}"
    return f"{credit}; it fades towards earlier tokens by {factors}."


def _values(section: CriticSection) -> str:
    column = section.reward_column
    reward = f"stands in the data as {column}" if column else "is given by the reward model"
    what = "Q and V are" if section.credit == "token" else "V is"
    steps = f", trained alone for {section.stage1_steps} steps before the first (stage 1)"
    fitted = f"by value heads{steps if section.stage1_steps else ''}"
    others = ", on other parts of the data than the text is in" if section.folds > 1 else ""
    return f"The reward {reward}; {what} estimated from the text {fitted}{others}."
