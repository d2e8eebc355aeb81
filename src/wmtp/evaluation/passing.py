"""pass@k: the chance that one of k samples solves a task."""

from __future__ import annotations

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """Return an unbiased estimate of the probability that at least one of k samples passes, for one task.

    `1 - C(n - c, k) / C(n, k)`: over all choices of k from the n samples, the share with one that passes. The mean over
    tasks estimates pass@k of a benchmark. `1 - (1 - c/n)^k`, which is often computed in its place, is too low.

    Source: Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374), equation 1, as the
        product that they give in figure 3, of integers until it is divided: exact for any n.

    Args:
        n: Samples drawn for the task, at least k.
        c: How many of them pass, 0 to n.
        k: At least 1.

    Raises:
        ValueError: If the numbers cannot be those of samples.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass_at_k: n={n}, c={c}, k={k}, expected 0 <= c <= n and 1 <= k <= n")
    chosen = math.comb(n, k)
    return (chosen - math.comb(n - c, k)) / chosen
