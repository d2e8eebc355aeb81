"""A recording of a terminal, docs/images/session.svg: the commands below are run, and what they say becomes a picture.

    make recording

Lines appear one after the other, each command at the pace of a person who types and reads; what a command took is not
shown. Readers that ask for less motion, and paper, get the whole screen at once. Nothing is fetched by the picture.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text
from safetensors.torch import load_file, save_file

from wmtp.demo.zoo import make_zoo, stdlib_sources

PICTURE = Path(__file__).with_name("session.svg")
WIDTH = 112
_RENAMED = "heads.4.layer.mlp.up_proj.weight"
_RULE = {"^heads\\.4\\.block\\.": "heads.4.layer."}
_SECONDS_A_LINE, _SECONDS_A_COMMAND = 0.12, 1.6
_RECIPE = {
    "run": {"name": "first"},
    "data": {"train": {"files": ["code.jsonl"], "max_length": 128, "packing": True}, "validation": {"fraction": 0.1}},
    "mtp": {"horizon": 4},
    "train": {
        "algo": "baseline-mtp",
        "learning_rate": 4e-3,
        "max_steps": 40,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "eval_steps": 20,
    },
}


@dataclass(frozen=True)
class Scene:
    """A line that is typed.

    Attributes:
        typed: What stands on the screen.
        before: What happens then, where it is no command: a person edits a file.
    """

    typed: str
    before: Callable[[Path], None] | None = None


def _write_rule(directory: Path) -> None:
    path = directory / "llama-renamed/metadata.json"
    metadata = json.loads(path.read_text(encoding="utf-8"))
    metadata["loading_strategy"]["state_dict_mapping"] = {"key_transforms": _RULE}
    path.write_text(json.dumps(metadata), encoding="utf-8")


SCENES = (
    Scene("wmtp validate llama-mtp"),
    Scene("wmtp validate llama-renamed"),
    Scene("# the line of the hint goes into metadata.json", _write_rule),
    Scene("wmtp validate llama-renamed"),
    Scene("wmtp train --config config.yaml --recipe recipe.yaml"),
    Scene("wmtp validate runs/first/final"),
)


def main() -> None:
    """Run the commands and write the picture."""
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        prepare(directory)
        PICTURE.write_text(picture([(scene.typed, said(scene, directory)) for scene in SCENES]), encoding="utf-8")


def prepare(directory: Path) -> None:
    """Write what the commands are run on: the demo's zoo, a copy with a tensor of another name, and a run's files."""
    make_zoo(directory)
    broken = directory / "llama-renamed"
    shutil.copytree(directory / "llama-mtp", broken, ignore=shutil.ignore_patterns("manifest.json"))
    tensors = load_file(broken / "model.safetensors")
    tensors[_RENAMED.replace("layer", "block")] = tensors.pop(_RENAMED)
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in stdlib_sources()[::8]]
    (directory / "code.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (directory / "config.yaml").write_text(json.dumps({"paths": {"models": {"base": ["llama-mtp"]}}}))
    (directory / "recipe.yaml").write_text(json.dumps(_RECIPE))


def said(scene: Scene, directory: Path) -> list[str]:
    """Return the lines that a command writes, without the clock and the place where it ran."""
    if scene.before is not None:
        scene.before(directory)
        return []
    words = [sys.executable, "-m", "wmtp.cli.main", *shlex.split(scene.typed)[1:]]
    env = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    done = subprocess.run(
        words, cwd=directory, env=env, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = done.stdout.replace(f"{directory.resolve()}/", "").replace(f"{directory}/", "")
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ", "", line) for line in text.rstrip().splitlines()]


def picture(scenes: list[tuple[str, list[str]]]) -> str:
    """Return the SVG of a screen, on which each line appears in its turn."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    starts: list[float] = []
    now = 0.5
    for typed, lines in scenes:
        styles = {"#": "dim", "w": "bold"}
        for text in (Text(f"$ {typed}", styles[typed[0]]), *map(_line, lines)):
            for part in text.wrap(console, WIDTH):
                console.print(part)
                starts.append(now)
                now += _SECONDS_A_LINE
        now += _SECONDS_A_COMMAND
    return console.export_svg(title="wmtp", code_format=_format(starts), unique_id="session")


def _line(text: str) -> Text:
    styles = {"error": "bold red", "hint:": "yellow", "prove": "green"}
    return Text(text, styles.get(text[:5], Style()))


def _format(starts: list[float]) -> str:
    """The form of rich, without fonts from elsewhere, and with the moment of each line."""
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace("Fira Code, ", "")
    moments = "".join(
        f'text[clip-path="url(#session-line-{number})"]{{{{animation-delay:{start:.2f}s}}}}\n'
        for number, start in enumerate(starts)
    )
    motion = (
        "@keyframes appear {{from {{opacity:0}} to {{opacity:1}}}}\n"
        "@media screen and (prefers-reduced-motion: no-preference) {{\n"
        f".session-matrix text {{{{animation: appear .05s linear both}}}}\n{moments}}}}}\n"
    )
    return form.replace("{styles}", f"{{styles}}\n{motion}")


if __name__ == "__main__":
    main()
