"""What a checkpoint's code imports: its own files need consent of their own, and shadow nothing."""

from __future__ import annotations

import importlib.util
import marshal
from pathlib import Path

from hostile.case import Change
from hostile.changes import file
from hostile.class_cases import loads
from hostile.code_cases import FILE, TOUCH, consented, neighbour, source
from hostile.draft import Draft

_SHADOWS = (
    "wave",
    "sndhdr",
    "sentencepiece",
    "tiktoken",
    "flash_attn",
    "kernels",
    "bitsandbytes",
    "peft",
    "deepspeed",
    "timm",
    "sitecustomize",
)


def _poison(name: str) -> Change:
    def change(draft: Draft) -> None:
        code = marshal.dumps(compile(f"open({str(draft.marker)!r}, 'a').close()", name, "exec"))
        flags = (1).to_bytes(4, "little")  # by hash, and not to be checked against the source
        data = importlib.util.MAGIC_NUMBER + flags + b"\0" * 8 + code
        draft.files[importlib.util.cache_from_source(name)] = data
        draft.files[f"{Path(name).stem}.pyc"] = data

    return change


CASES = [
    consented(
        "a neighbour that nobody agreed to",
        "TrustError",
        ("blocks.py", "nobody agreed", "--allow-code blocks.py=sha256:"),
        source("from .blocks import WIDTH\n"),
        neighbour("blocks.py", TOUCH + "WIDTH = 1\n"),
    ),
    consented(
        "a neighbour of a neighbour that nobody agreed to",
        "TrustError",
        ("deeper.py", "nobody agreed"),
        source("from .blocks import WIDTH\n"),
        neighbour("blocks.py", "from .deeper import WIDTH\n"),
        neighbour("deeper.py", TOUCH + "WIDTH = 1\n"),
        consent=(FILE, "blocks.py"),
    ),
    consented(
        "a neighbour in a package",
        "TrustError",
        (FILE,),
        source("from .blocks.attention import WIDTH\n"),
        neighbour("blocks/attention.py", TOUCH),
        neighbour("blocks/__init__.py", TOUCH),
    ),
    consented(
        "a neighbour by its name as text",
        "TrustError",
        ("blocks.py", "nobody agreed"),
        source("__import__('importlib').import_module('.blocks', __package__)\n"),
        neighbour("blocks.py", TOUCH),
    ),
    consented(
        "a neighbour above the checkpoint",
        "TrustError",
        (FILE,),
        source("from ..outside import WIDTH\n"),
        lambda d: d.after.append(lambda p: (p.parent / "outside.py").write_text(f"open({str(d.marker)!r}, 'a')")),
    ),
    consented(
        "a neighbour that is bytecode only",
        "TrustError",
        (FILE,),
        source("from .blocks import WIDTH\n"),
        _poison("blocks.py"),
    ),
    consented(
        "a neighbour that is a library",
        "TrustError",
        (FILE,),
        source("from .blocks import WIDTH\n"),
        file("blocks.so", b"\x7fELF"),
        file("blocks.abi3.so", b"\x7fELF"),
    ),
    consented(
        "a plain import from the current directory",
        "TrustError",
        (FILE, "blocks"),
        source("import blocks\n"),
        neighbour("blocks.py", TOUCH),
        inside=True,
    ),
    consented(
        "a standard module that the current directory shadows",
        "TrustError",
        (FILE, "wave"),
        source("import wave\n"),
        neighbour("wave.py", TOUCH),
        inside=True,
    ),
    consented(
        "a path of its own to import from",
        "TrustError",
        (FILE, "blocks"),
        source("import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\nimport blocks\n"),
        neighbour("blocks.py", TOUCH),
    ),
    loads("poisoned bytecode beside the code", _poison(FILE)),
    loads(
        "a standard module shadowed in the checkpoint",
        source("import wave, json\nassert wave.WAVE_FORMAT_PCM == 1\n"),
        neighbour("wave.py", TOUCH),
        neighbour("json.py", TOUCH),
    ),
    loads(
        "another encoding declared than is meant",
        source("# coding: unicode_escape\n# harmless \\x0aopen(MARKER, 'a')\n"),
    ),
    loads(
        "a plain model in a directory of shadows", *[neighbour(f"{name}.py", TOUCH) for name in _SHADOWS], inside=True
    ),
]
