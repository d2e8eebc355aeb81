"""critic: what is said to rewards from which nothing can be learned."""

from __future__ import annotations

from collections.abc import Sequence

from wmtp.errors import TrainingError
from wmtp.untrusted import show


def rewards_of_other_unit(lowest: float, highest: float, *, mean: float, deviation: float) -> TrainingError:
    """Return the refusal of rewards that lie beyond what restored value heads can tell apart."""
    return TrainingError(
        f"critic-wmtp: rewards are {lowest:g} to {highest:g}, and the value heads of the base model"
        f" have learned rewards around {mean:g} with a deviation of {deviation:g}",
        hint="use the rewards that they were fitted to, or a base model without algorithm_state.safetensors",
    )


def constant_rewards(rewards: Sequence[float], column: str | None) -> TrainingError:
    """Return the refusal of rewards that are the same for all documents; the column they stand in, if they do."""
    source = f"the column {show(column)} of data.train" if column else "the reward model"
    same = f"the same reward, {rewards[0]:g}, to all" if rewards else "no reward to any"
    return TrainingError(
        f"critic-wmtp: {source} gives {same} of the {len(rewards)} training documents",
        hint="nothing can be learned from it: train on documents with good and bad rewards"
        + (", or name another critic.reward_column" if column else ", or set critic.reward_index to another label"),
    )
