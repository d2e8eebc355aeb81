"""What a reference and a reward model say in fewer bits, beside the same in float32: a part of pretrained.py.

The reference is SmolLM2-135M itself. The reward model is SmolLM2-135M with one figure on top that was fitted, by ridge
regression on its last hidden states, to tell a task's own program from another task's; it is scored on others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForSequenceClassification

import wmtp
from wmtp.authoring.init import init_metadata
from wmtp.scoring.quantised import quantise
from wmtp.settings.quantize import Bits
from wmtp.training.prescoring import score_recipe

_FITTED = 200
_RIDGE = 30.0
_BITS: Sequence[Bits | None] = (None, "int8", "nf4")


def print_bits(directory: Path, data: Path, documents: int) -> None:
    """Print a table for the reference, and one for the reward model."""
    records = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    pairs = [
        {"text": record["text"], "code": code["code"], "own": record is code}
        for number, record in enumerate(records)
        for code in (record, records[(number + 7) % len(records)])
    ]
    _write_reward_model(directory, pairs[: 2 * _FITTED])
    (directory / "scored.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs[-documents:]))
    for role, algorithm, what in (("ref", "rho1-wmtp", "loss of a token, nats"), ("rm", "critic-wmtp", "reward")):
        found = {bits: _scored(directory, role, algorithm, bits) for bits in _BITS}
        print(f"\n| {role} | weights | mean {what} | mean difference | 99 of 100 below | rank correlation |", end="")
        print(" own program above the other |" if role == "rm" else "")
        print("|---|---|---|---|---|---|" + ("---|" if role == "rm" else ""))
        for bits, figures in found.items():
            own = f" {_pairs_right(figures)} |" if role == "rm" else ""
            print(f"| {bits or 'float32'} | {_megabytes(directory / _MODELS[role], bits):.0f} MB |", end="")
            print(f" {_beside(figures, found[None])} |{own}", flush=True)


_MODELS: Mapping[str, str] = {"base": "grown", "ref": "plain", "rm": "reward"}


def _write_reward_model(directory: Path, pairs: list[dict[str, Any]]) -> None:
    plain = directory / _MODELS["ref"]
    tokenizer, trunk = AutoTokenizer.from_pretrained(plain), AutoModelForCausalLM.from_pretrained(plain)
    with torch.inference_mode():
        states = torch.stack(
            [
                trunk.model(**tokenizer(pair["text"] + "\n" + pair["code"], return_tensors="pt")).last_hidden_state[
                    0, -1
                ]
                for pair in pairs
            ]
        ).double()
    wanted = torch.tensor([1.0 if pair["own"] else -1.0 for pair in pairs], dtype=torch.float64)
    square = states.T @ states + _RIDGE * states.pow(2).mean() * torch.eye(states.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(square, states.T @ wanted)
    model = LlamaForSequenceClassification.from_pretrained(plain, num_labels=1, pad_token_id=tokenizer.eos_token_id)
    model.score.weight.data.copy_(weight[None])
    model.save_pretrained(directory / _MODELS["rm"])
    tokenizer.save_pretrained(directory / _MODELS["rm"])
    init_metadata(directory / _MODELS["rm"])


def _scored(directory: Path, role: str, algorithm: str, bits: Bits | None) -> Tensor:
    """Return all figures, as `wmtp score` computes them."""
    source = {"files": [str(directory / "scored.jsonl")], "format": "prompt_completion", "prompt": "text"}
    source |= {"completion": "code", "template": "{prompt}\n{completion}", "max_length": 512}
    recipe = {"run": {"name": "bits"}, "data": {"train": source}, "train": {"algo": algorithm, "max_steps": 1}}
    paths = {"models": {name: str(directory / place) for name, place in _MODELS.items()}, "output_dir": str(directory)}
    devices = {"device": "cpu", "dtype": "float32", "quantize": {role: bits} if bits else {}}
    config = wmtp.Config.model_validate({"paths": paths, "devices": devices})
    (column,) = score_recipe(config, wmtp.Recipe.model_validate(recipe)).columns
    if column.lengths is None:
        return column.all_figures
    return torch.cat([figures[1:] for figures in column.values])  # a first token has no loss


def _beside(figures: Tensor, full: Tensor) -> str:
    mean = f"{figures.mean():.3f}"
    if torch.equal(figures, full):
        return f"{mean} | | | "
    difference = (figures - full).abs()
    high = torch.quantile(difference, 0.99)
    return f"{mean} | {difference.mean():.3f} | {high:.2f} | {_rank_correlation(figures, full):.4f}"


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's rank correlation; ties, which floats hardly have, in the order in which they stand."""
    ranks = torch.stack([figures.argsort().argsort().double() for figures in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])


def _pairs_right(figures: Tensor) -> str:
    own, other = figures.view(-1, 2).T
    return f"{int((own > other).sum())} of {len(own)}"


def _megabytes(path: Path, bits: Bits | None) -> float:
    model = wmtp.load_model(path, device="cpu")
    if bits:
        model = quantise(model, bits, "cpu", str(path))
    return sum(_bytes(each) for each in {id(each): each for each in model.parameters()}.values()) / 1e6


def _bytes(weight: Tensor) -> int:
    """Bytes that a weight takes, its scales included."""
    if state := getattr(weight, "quant_state", None):  # of bitsandbytes
        return weight.nbytes + state.absmax.nbytes
    if hasattr(weight, "__tensor_flatten__") and type(weight) is not torch.nn.Parameter:  # of torchao
        names, _ = weight.__tensor_flatten__()
        return sum(getattr(weight, name).nbytes for name in names)
    return weight.nbytes
