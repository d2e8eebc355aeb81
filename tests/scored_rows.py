"""Rows with made-up scores, and algorithms in every mode, for tests of the trainer."""

import torch

from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP
from wmtp.data.example import Example
from wmtp.data.folds import FOLD
from wmtp.data.rows import RowDataset

# Rows with 1 to 31 targets: a mean of the means of micro-batches would be far from the mean over the step.
PROMPTS = (3, 28, 10, 30, 1, 25, 29, 16)

# Those whose weights do not depend on how a step is divided, by what the documentation promises.
INVARIANT = {
    "baseline": (BaselineMTP, None),
    "rho1 horizon": (Rho1WMTP, Rho1Section(selection_mode="horizon")),
    "rho1 token_skip ema": (Rho1WMTP, Rho1Section(selection_mode="token_skip", scope="ema", keep_ratio=0.5)),
    "rho1 token_skip sequence": (Rho1WMTP, Rho1Section(selection_mode="token_skip", scope="sequence", keep_ratio=0.5)),
    "rho1 weighted ema": (Rho1WMTP, Rho1Section(selection_mode="weighted", scope="ema")),
    "rho1 weighted sequence": (Rho1WMTP, Rho1Section(selection_mode="weighted", scope="sequence")),
    "critic token horizon": (CriticWMTP, CriticSection(normalize="horizon", reward_column="reward")),
    "critic token ema": (CriticWMTP, CriticSection(scope="ema", reward_column="reward")),
    "critic return ema": (CriticWMTP, CriticSection(credit="return", scope="ema", reward_column="reward")),
}
VARIANT = {
    "rho1 token_skip batch": (Rho1WMTP, Rho1Section(selection_mode="token_skip", keep_ratio=0.5)),
    "rho1 weighted batch": (Rho1WMTP, Rho1Section(selection_mode="weighted")),
    "critic token batch": (CriticWMTP, CriticSection(reward_column="reward")),
    "critic return batch": (CriticWMTP, CriticSection(credit="return", reward_column="reward")),
}


def build_algorithm(name, rows):
    made, section = (INVARIANT | VARIANT)[name]
    algorithm = made(section)
    algorithm.begin(rows.document_scores())
    return algorithm


def uneven_rows(count=16, length=32, packed=False, vocab=90):
    """Rows whose tokens and scores are random but repeatable; each document has a reward."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, vocab, (count, length), generator=generator, dtype=torch.int32)
    losses = 5 * torch.rand(count, length, generator=generator)
    rewards = torch.randn(count, 2, generator=generator)

    def example(index, part, place, prompt):
        fold = torch.tensor(float((index + part) % 2))
        scores = {"ref_nll": losses[index, place], "reward": rewards[index, part], FOLD: fold}
        return Example(tokens[index, place], prompt, scores=scores)

    if packed:
        places = ((slice(0, 4), 2), (slice(0, length - 10), 12))
        parts = [(part, place, most) for part, (place, most) in enumerate(places)]
        rows = [tuple(example(i, n, place, PROMPTS[i % 8] % most) for n, place, most in parts) for i in range(count)]
        return RowDataset(rows, packed_length=length)
    return RowDataset([(example(i, 0, slice(None), PROMPTS[i % 8]),) for i in range(count)])
