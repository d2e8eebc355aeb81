"""What the oracles of `wmtp selftest` look at: a model, eight documents with scores, and every way of weighing them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import TrainingArguments

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.critic_section import CriticSection
from wmtp.algorithms.critic_wmtp import CriticWMTP
from wmtp.algorithms.rho1_section import Rho1Section
from wmtp.algorithms.rho1_wmtp import Rho1WMTP
from wmtp.algorithms.weighting import head_prior
from wmtp.data.example import Batch, Example
from wmtp.data.folds import FOLD
from wmtp.data.rows import RowDataset
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.output import MTPOutput
from wmtp.models.value_heads import WithValueHead, has_input_embeddings
from wmtp.training.trainer import WMTPTrainer

NUM_DOCUMENTS = 8
_NUM_FOLDS = 2
# Heads that count differently: with a uniform prior, one that is left out of a count would not show.
_PRIOR = {"decay": 0.8}

Build = Callable[[], Algorithm]


def _rho1(mode: str, scope: str = "batch") -> Build:
    return lambda: Rho1WMTP(Rho1Section.model_validate({"selection_mode": mode, "scope": scope}))


def critic(credit: str, normalize: str = "batch", scope: str = "batch", **more: float) -> Build:
    """Return what makes a critic-wmtp with these settings, whose rewards are those of `with_made_up_scores`."""
    section = {"credit": credit, "normalize": normalize, "scope": scope, "reward_column": "reward", **more}
    return lambda: CriticWMTP(CriticSection.model_validate(section))


# Those whose weights promise not to depend on how an optimizer step is cut into micro-batches.
INVARIANT: Mapping[str, Build] = {
    "baseline-mtp": BaselineMTP,
    "rho1 horizon": _rho1("horizon"),
    "rho1 token_skip, sequence": _rho1("token_skip", "sequence"),
    "rho1 token_skip, ema": _rho1("token_skip", "ema"),
    "rho1 weighted, sequence": _rho1("weighted", "sequence"),
    "rho1 weighted, ema": _rho1("weighted", "ema"),
    "critic token, horizon": critic("token", "horizon"),
    "critic token, ema": critic("token", scope="ema"),
    "critic return, ema": critic("return", scope="ema"),
}
MODES: Mapping[str, Build] = {
    **INVARIANT,
    "rho1 token_skip, batch": _rho1("token_skip"),
    "rho1 weighted, batch": _rho1("weighted"),
    "critic token, batch": critic("token"),
    "critic return, batch": critic("return"),
}


@dataclass(frozen=True)
class Step:
    """What an optimizer step would do.

    Attributes:
        loss: Summed over micro-batches.
        gradients: Of the model's parameters, without a value head; zero where there is none.
    """

    loss: float
    gradients: list[Tensor]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and its data, in the hands of the real trainer; no parameter is ever changed.

    Attributes:
        model: What `trainable` returned, in eval mode.
        rows: Eight documents, each in a row of its own; see `with_made_up_scores`.
        directory: An empty one that the trainer may think it owns.
    """

    model: MTPForCausalLM | ForeignModel
    rows: RowDataset
    directory: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def output(self) -> MTPOutput:
        """What the model answers to all documents, without gradients."""
        with torch.no_grad():
            return cast("MTPOutput", self.model(**self.inputs(self.batch())))

    @property
    def num_heads(self) -> int:
        """Prediction heads, counting the next-token head."""
        return cast("Tensor", self.output.ce).shape[2]

    @cached_property
    def valued(self) -> WithValueHead | None:
        """The model with value heads that have learned something, as it seems; None without hidden states."""
        if self.output.hidden_states is None:
            return None
        width, reads = self.output.hidden_states.shape[-1], has_input_embeddings(self.model)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = WithValueHead(self.model, width, detach_trunk=True, folds=_NUM_FOLDS, values_tokens=reads)
            # At zero, as they begin, no gradient would pass them, whether it is let through or not.
            for output in value_outputs(made):
                nn.init.normal_(output.weight, std=0.2)
        return made.to(self.device).eval()

    def lacks(self, build: Build) -> str:
        """Return what the model does not give that the algorithm needs; empty where there is no such thing."""
        algorithm = build()
        if not isinstance(algorithm, ValueAlgorithm):
            return ""
        if self.valued is None:
            return "the model's class gives no hidden states"
        reads = not algorithm.values_tokens or len(self.valued.value_heads.tokens) > 0
        return "" if reads else "the model's class shows no input embeddings"

    def trainer(self, build: Build) -> WMTPTrainer:
        """Return a trainer of the model by an algorithm that has begun."""
        algorithm = build()
        algorithm.begin(self.rows.document_scores())
        arguments = TrainingArguments(
            output_dir=self.directory, report_to=[], disable_tqdm=True, use_cpu=self.device.type == "cpu"
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)
        return WMTPTrainer(
            model=self.valued if isinstance(algorithm, ValueAlgorithm) else self.model,
            args=arguments,
            train_dataset=self.rows,
            data_collator=self.rows.collate,
            algorithm=algorithm,
            head_prior=head_prior(_PRIOR, self.num_heads),
            save=lambda _step, _best, _loop: None,
        )

    def experienced_trainer(self, build: Build) -> WMTPTrainer:
        """Return a trainer after two optimizer steps that changed nothing: running figures exist from the third on."""
        trainer = self.trainer(build)
        self.gain_experience(trainer, [self.batch()])
        return trainer

    @torch.no_grad()
    def gain_experience(self, trainer: WMTPTrainer, batches: Sequence[Batch]) -> None:
        """Let an algorithm see two optimizer steps of these micro-batches."""
        for _ in range(2):
            before = trainer.algorithm.state()
            for batch in batches:
                trainer.compute_loss(trainer.model, batch, num_items_in_batch=torch.ones((), device=self.device))
            trainer.algorithm.end_step(trainer.total)
            after = trainer.algorithm.state()
            if all(torch.equal(before[name], after[name]) for name in after):
                return  # it keeps nothing of a step

    def batch(self, chosen: slice = slice(None)) -> Batch:
        """Return documents as a batch, on the model's device."""
        return self.on_device(self.rows.collate(self.rows.rows[chosen]))

    def on_device(self, batch: Batch) -> Batch:
        """Return a batch where the model is."""
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def inputs(self, batch: Batch) -> Batch:
        """Return what of a batch the model itself takes."""
        return {name: tensor for name, tensor in batch.items() if name not in ("ref_nll", "reward", FOLD)}

    def num_pairs(self, prior: Tensor) -> float:
        """Return the valid pairs of all documents, each counted with its head's prior; counted from lengths alone."""
        counts = [
            sum(max(0, len(example) - max(k, example.num_prompt_tokens)) for example in self.rows.examples)
            for k in range(1, self.num_heads + 1)
        ]
        return sum(count * factor for count, factor in zip(counts, prior.tolist(), strict=True))

    def step(self, trainer: WMTPTrainer, batches: Sequence[Batch]) -> Step:
        """Return loss and gradients of an optimizer step of these micro-batches, and let the algorithm see its end."""
        trainer.model.zero_grad(set_to_none=True)
        taken, divisor = trainer.get_batch_samples(iter(batches), len(batches), self.device)
        loss = 0.0
        for batch in taken:
            part = trainer.compute_loss(trainer.model, batch, num_items_in_batch=divisor)
            part.backward()
            loss += float(part.detach())
        trainer.algorithm.end_step(trainer.total)
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.model.parameters()]
        trainer.model.zero_grad(set_to_none=True)
        return Step(loss, gradients)


def value_outputs(valued: WithValueHead) -> list[nn.Linear]:
    """Return the last layer of each value head, which begins at zero."""
    heads = [*valued.value_heads.states, *valued.value_heads.tokens]
    return [cast("nn.Linear", head.output) for head in heads]


def with_made_up_scores(examples: Sequence[Example]) -> RowDataset:
    """Return eight rows of a document each: these examples, from the first again where there are fewer.

    Every token gets a `ref_nll` between 0 and 5 nats, and every document a `reward` of its own around 0 and a `fold`.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = [examples[index % len(examples)] for index in range(NUM_DOCUMENTS)]
    rows = []
    for index, example in enumerate(chosen):
        losses: Float[Tensor, "tokens"] = 5 * torch.rand(len(example), generator=generator)
        # Good and bad in turn, so that no half of the documents is like the other.
        reward = torch.tensor((1.0 if index % 2 else -1.0) * (1 + index))
        scores = {"ref_nll": losses, "reward": reward, FOLD: torch.tensor(float(index // 2 % _NUM_FOLDS))}
        rows.append((Example(example.input_ids, example.num_prompt_tokens, scores),))
    return RowDataset(rows)
