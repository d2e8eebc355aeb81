"""Running every oracle on a model and its data: what `wmtp selftest` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, PreTrainedTokenizerFast

from wmtp.data.corpus import check_vocabulary, position_limit
from wmtp.data.documents import read_documents
from wmtp.data.example import Example
from wmtp.data.rows import build_rows
from wmtp.errors import DataError
from wmtp.loaders.standardized import load
from wmtp.models.adapter import trainable
from wmtp.models.mtp import MTPForCausalLM
from wmtp.selftest import critic_oracles, gradient_oracles, model_oracles, native_oracles, oracles
from wmtp.selftest.model_oracles import NUM_PADDING
from wmtp.selftest.oracles import Finding
from wmtp.selftest.subject import NUM_DOCUMENTS, Subject, with_made_up_scores
from wmtp.settings.data import DataSource

Oracle = Callable[[Subject], Iterator[Finding]]

ORACLES: tuple[Oracle, ...] = (
    oracles.equal_weights_make_algorithms_identical,
    oracles.mean_weight_is_one,
    oracles.reference_that_is_the_policy_weighs_all_alike,
    oracles.constant_added_to_reference_changes_nothing,
    critic_oracles.values_that_are_the_reward_weigh_all_alike,
    critic_oracles.tokens_without_a_value_of_their_own_weigh_all_alike,
    critic_oracles.advantages_telescope,
    critic_oracles.boundless_temperature_weighs_all_alike,
    critic_oracles.constant_added_to_rewards_changes_nothing,
    critic_oracles.credit_is_by_heads_that_were_fitted_on_others,
    model_oracles.padding_changes_no_loss,
    model_oracles.padding_changes_no_weight,
    model_oracles.packed_documents_are_as_unpacked_ones,
    model_oracles.accumulation_changes_no_gradient,
    gradient_oracles.gradient_of_each_loss_is_its_weight,
    gradient_oracles.no_gradient_reaches_scores,
    gradient_oracles.loss_reaches_every_part,
    gradient_oracles.value_head_and_trunk_are_apart,
    model_oracles.backends_agree,
    native_oracles.native_heads_read_what_is_known,
    native_oracles.native_modules_are_those_of_transformers,
)

# Documents longer than this prove nothing more, and take longer. With padding they stay within 32 positions.
_MAX_TOKENS = 32 - NUM_PADDING
# Of random documents: some shorter than the heads reach, some that fill a row.
_LENGTHS = (5, _MAX_TOKENS, 19, 23, 3, 27, 12, 16)


_END = "<|endoftext|>"


@dataclass(frozen=True)
class Selftest:
    """What the oracles found.

    Attributes:
        model: Which model they looked at.
        data: Which documents.
        findings: In the order of `ORACLES`.
    """

    model: str
    data: str
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether no oracle failed."""
        return all(finding.outcome != "FAIL" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the same facts for a program."""
        findings = [finding.to_dict() for finding in self.findings]
        return {"model": self.model, "data": self.data, "holds": self.holds, "findings": findings}


@dataclass(frozen=True)
class _Loaded:
    """A model with what is known of it."""

    model: nn.Module
    tokenizer: Any
    where: str
    max_tokens: int = _MAX_TOKENS


def run_selftest(
    uri: str | None = None,
    *,
    data: Path | None = None,
    device: str = "cpu",
    allow_code: Mapping[str, str] | None = None,
) -> Selftest:
    """Hold a model in training to the oracles of the algorithms; no parameter is changed and nothing is written.

    Everything is in float32, whatever the checkpoint stores, so that a difference is a mistake and not rounding.

    Args:
        uri: A checkpoint; None: a small Llama with four heads and random weights.
        data: A text file, a directory, or JSONL with `text`; None: random tokens.
        device: Where it runs.
        allow_code: Consent to run a checkpoint's own code, as of `wmtp.load`.

    Raises:
        WmtpError: If the checkpoint does not load, or the data cannot be read.
    """
    loaded = _built_in(device) if uri is None else _load(uri, device, allow_code or {})
    model = trainable(loaded.model).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, 1, dtype=torch.long, device=device)).logits
    examples = _random(loaded, logits.shape[-1]) if data is None else _read(data, loaded, logits.shape[-1])
    with TemporaryDirectory() as directory:
        subject = Subject(model, with_made_up_scores(examples), directory)
        findings = tuple(finding for oracle in ORACLES for finding in oracle(subject))
    return Selftest(loaded.where, "random tokens" if data is None else str(data), findings)


def _load(uri: str, device: str, allow_code: Mapping[str, str]) -> _Loaded:
    result = load(uri, dtype="float32", device=device, allow_code=dict(allow_code))
    config = result.checkpoint.config
    positions = position_limit(config)
    most = _MAX_TOKENS if positions is None else min(_MAX_TOKENS, positions - NUM_PADDING)
    return _Loaded(result.model, result.tokenizer, result.checkpoint.where, most)


def _built_in(device: str) -> _Loaded:
    tokenizer = _byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2 * _MAX_TOKENS,
        initializer_range=0.2,  # at the usual 0.02 every token would be as probable as any other
    )  # fmt: skip
    config.mtp_config = {"n_future_tokens": 4, "head_type": "transformer"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MTPForCausalLM(config)
    return _Loaded(model.to(device), tokenizer, "built in: llama, 4 transformer heads, random weights")


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that makes a token of every byte."""
    vocabulary = {byte: number for number, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END)


def _random(loaded: _Loaded, vocab_size: int) -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    lengths = [min(length, loaded.max_tokens) for length in _LENGTHS]
    drawn = [torch.randint(0, vocab_size, (length,), generator=generator, dtype=torch.int32) for length in lengths]
    # Every other document begins with a prompt that is not learned.
    return [Example(ids, (index % 2) * (len(ids) // 3)) for index, ids in enumerate(drawn)]


def _read(data: Path, loaded: _Loaded, vocab_size: int) -> list[Example]:
    if loaded.tokenizer is None:
        raise DataError(
            f"{loaded.where}: the model has no tokenizer to read {data} with",
            hint="leave --data out, and random tokens are taken",
        )
    source = DataSource(files=[escape(str(data.absolute()))], max_length=loaded.max_tokens, packing=False)
    rows = build_rows(read_documents(source, field="--data"), loaded.tokenizer, source, name="--data")
    check_vocabulary(rows, loaded.where, vocab_size)
    return list(rows.examples)[:NUM_DOCUMENTS]
