"""Small runs of each algorithm whose processes may be ended, and what their directories hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from checkpoints import write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file
from wmtp.publishing.publish import verify_published
from wmtp.settings.config import Config, load_config
from wmtp.settings.recipe import Recipe, load_recipe

GOOD, BAD = "def total(values): return sum(values)", "while True: print('again and again')"
_SECTIONS = {
    "baseline-mtp": {},
    "rho1-wmtp": {"rho1": {"scope": "ema", "keep_ratio": 0.5}},
    "critic-wmtp": {
        "critic": {"reward_column": "passed", "stage1_steps": 20, "value_learning_rate": 1e-2, "scope": "ema"}
    },
}
Ask = Callable[..., dict[str, Any]]
_DROPOUT = {"gpt2": "resid_pdrop", "llama": "attention_dropout"}


class RunFiles:
    """A model with dropout, data in packed rows, and a recipe with accumulation and validation.

    Args:
        directory: Where everything is.
        algorithm: What the recipe trains with.
        architecture: Of the model.
        dropout: Of the model.
        sections: What the recipe says besides, by section.
    """

    def __init__(
        self, directory: Path, algorithm: str, architecture: str = "llama", *, dropout: float = 0.1, **sections: Any
    ) -> None:
        self.directory, self.algorithm = directory, algorithm
        model = tiny_mtp(architecture, 2, "resblock", {"shared_unembedding": True}, vocab_size=128,
                         **{_DROPOUT[architecture]: dropout})  # fmt: skip
        self.base = write_mtp_checkpoint(directory / "base", model, fits=list(_SECTIONS))
        models = {"base": [str(self.base)]}
        if algorithm == "rho1-wmtp":
            models["ref"] = [str(write_llama_checkpoint(directory / "ref", vocab_size=128))]
        paths = {"models": models, "output_dir": str(directory)}
        config = {"paths": paths, "devices": {"device": "cpu"}, "tracking": {"report_to": []}}
        (directory / "config.json").write_text(json.dumps(config))
        self.write_data()
        self.write_recipe(**sections)

    def write_data(self, last: str = "") -> None:
        """Write the documents, one more at the end where it is given."""
        if self.algorithm == "critic-wmtp":
            lines = [{"text": (GOOD, BAD)[i % 2] + f"  # {i}{last}", "passed": i % 2} for i in range(30)]
            (self.directory / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            return
        (self.directory / "data").mkdir(exist_ok=True)
        for number in range(4):
            write_code_file(self.directory / "data" / f"{number}.py", repeats=number // 2 + 1)
        if last:
            (self.directory / "data" / "last.py").write_text(last)

    def write_recipe(self, **sections: Any) -> None:
        """Write the recipe: that of the algorithm, changed as asked."""
        is_critic = self.algorithm == "critic-wmtp"
        files = {"files": ["data.jsonl" if is_critic else "data"], "max_length": 64 if is_critic else 32}
        train = {"algo": self.algorithm, "learning_rate": 1e-3, "per_device_train_batch_size": 2, "logging_steps": 3}
        steps = {"gradient_accumulation_steps": 2, "eval_steps": 2, "save_steps": 2, "save_total_limit": None}
        document: dict[str, Any] = {
            "run": {"name": "run"},
            "data": {"train": files, "validation": {"fraction": 0.25}},
            "train": {**train, **steps, "max_steps": 7, "warmup_steps": 2},
            **_SECTIONS[self.algorithm],
        }
        for section, fields in sections.items():
            document[section] = document.get(section, {}) | fields
        (self.directory / "recipe.json").write_text(json.dumps(document))

    def settings(self, place: str) -> tuple[Config, Recipe]:
        """Return what a run in a directory of that name is told."""
        config = load_config(self.directory / "config.json", [f"paths.output_dir={self.directory / place}"])
        return config, load_recipe(self.directory / "recipe.json")

    def run(self, place: str) -> Path:
        """Return the directory of a run."""
        return self.directory / place / "run"


@contextmanager
def processes() -> Iterator[Ask]:
    """Yield what starts a process of a run and says what became of it: see `killed_runs` for its order."""
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdin
        assert starter.stdout
        orders, answers = starter.stdin, starter.stdout

        def ask(files: RunFiles, *order: Any) -> dict[str, Any]:
            orders.write(json.dumps([str(files.directory), *order]) + "\n")
            orders.flush()
            answer: dict[str, Any] = json.loads(answers.readline())
            return answer

        yield ask
        orders.close()


def contents(run: Path) -> dict[str, bytes]:
    """Return every file of the checkpoints of a run, but for what time it took; all of them verify."""
    for manifest in run.rglob("manifest.json"):
        verify_published(manifest.parent)
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    return {name: _timeless(path) for name, path in files.items() if not name.endswith(("run.json", "manifest.json"))}


def _timeless(path: Path) -> bytes:
    if path.name != "state.json":
        return path.read_bytes()
    state = json.loads(path.read_bytes())
    if state["loop"] is not None:
        del state["loop"]["seconds"]
    return json.dumps(state).encode()
