"""The wheel, installed as users do it, outside of the source tree: alone, and with what loads a model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from wmtp import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]
_OURS = ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")

# What `import wmtp` must give without torch, and the one sentence where it cannot.
WITHOUT_TORCH = """
import sys, wmtp
print(wmtp.load_metadata(sys.argv[1]).num_heads, sorted(wmtp.loading_strategies.names()))
try:
    wmtp.load
except ImportError as error:
    print(type(error).__name__, error.hint)
try:
    wmtp.loading_strategies.get("huggingface")
except ImportError as error:
    print(type(error).__name__, error.hint)
"""


def installed(directory: Path, requirement: str) -> Run:
    """Make an empty environment with one requirement in it; returns what runs its programs, from an empty directory."""
    subprocess.run([sys.executable, "-m", "venv", directory / "env"], check=True)
    # Compiling all of torch and transformers would take longer than everything else here.
    pip = [directory / "env/bin/python", "-m", "pip", "install", "--quiet", "--no-compile"]
    chosen = shlex.split(os.environ.get("PIP_ARGS", ""))
    subprocess.run([*pip, *chosen, "--constraint", ROOT / "constraints.txt", requirement], check=True)
    (directory / "elsewhere").mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in _OURS}

    def run(program: str, *words: object) -> subprocess.CompletedProcess[str]:
        line = [directory / "env/bin" / program, *map(str, words)]
        return subprocess.run(
            line, cwd=directory / "elsewhere", env=kept, text=True, capture_output=True, timeout=600, check=False
        )

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small model with heads, in a directory of models."""
    directory = tmp_path_factory.mktemp("models") / "small"
    return write_mtp_checkpoint(directory, tiny_mtp())


@pytest.fixture(scope="module")
def light(tmp_path_factory, dist):
    """The wheel, and what it brings without an extra."""
    (wheel,) = dist.glob("*.whl")
    return installed(tmp_path_factory.mktemp("light"), str(wheel))


@pytest.fixture(scope="module")
def full(tmp_path_factory, dist):
    """The wheel, and what loads a model."""
    (wheel,) = dist.glob("*.whl")
    return installed(tmp_path_factory.mktemp("full"), f"wmtp[torch] @ {wheel.as_uri()}")


def test_without_an_extra_no_torch_and_no_numpy_is_installed(light):
    listed = json.loads(light("python", "-m", "pip", "list", "--format", "json").stdout)
    names = {package["name"].lower() for package in listed}
    assert "wmtp" in names
    assert not names & {"torch", "transformers", "numpy", "safetensors", "tokenizers", "pyarrow", "botocore"}
    assert light("wmtp", "--version").stdout == f"wmtp {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ls", "{models}"), "small"),
        (("inspect", "{model}"), "model.safetensors"),
        (("validate", "{model}"), "metadata, files, headers and mapping are in order"),
        (("diff", "--headers", "{model}", "{model}"), "equal"),
        (("lock", "{model}"), "sha256"),
        (("schema", "metadata"), "wmtp_type"),
        (("schema", "recipe"), "algo"),
        (("trust", "{model}"), "this checkpoint runs no code of its own"),
        (("env",), "devices  not known without torch"),
        (("fetch", "{model}", "copy"), "is now in"),
        (("cache", "ls"), "0 checkpoints"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_without_torch_a_command_that_needs_none_does_its_work(light, checkpoint, words, said):
    filled = [word.format(models=checkpoint.parent, model=checkpoint) for word in words]
    done = light("wmtp", *filled)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout + done.stderr


def test_without_torch_a_checkpoint_counts_as_valid_and_not_as_proven(light, checkpoint):
    facts = json.loads(light("wmtp", "validate", checkpoint, "--json").stdout)
    assert (facts["valid"], facts["proven"]) == (True, False)
    assert facts["left"] == [
        "the model's parameters, which need torch; install it (python -m pip install 'wmtp[torch]')"
    ]


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (("load", "{model}"), "torch", "torch"),
        (("validate", "--deep", "{model}"), "torch", "torch"),
        (("init", "{model}"), "transformers", "torch"),
        (("grow", "{model}", "grown", "--heads", "2"), "torch", "torch"),
        (("export", "{model}", "exported"), "torch", "torch"),
        (("generate", "{model}", "words"), "torch", "torch"),
        (("selftest",), "accelerate", "train"),
        (("demo", "zoo"), "accelerate", "train"),
        (("ls", "s3://bucket/models"), "botocore", "s3"),
    ],
    ids=lambda value: "-".join(value[:1]) if isinstance(value, tuple) else value,
)
def test_without_torch_a_command_that_needs_more_says_what_to_install(light, checkpoint, words, package, extra):
    done = light("wmtp", *(word.format(model=checkpoint) for word in words))
    assert done.returncode == 1
    assert f"this needs the package '{package}', which is not installed" in done.stderr
    assert f"hint: install it (python -m pip install 'wmtp[{extra}]')\n" in done.stderr


def test_without_torch_the_package_is_imported_and_a_name_that_needs_it_says_what_to_install(light, checkpoint):
    done = light("python", "-c", WITHOUT_TORCH, checkpoint)
    missing = "MissingPackageError install it (python -m pip install 'wmtp[torch]')"
    assert done.stdout.splitlines()[1:] == [missing, missing], done.stderr
    assert done.stdout.splitlines()[0].endswith("['custom_mtp', 'huggingface']")


def test_with_torch_the_checkpoint_is_proven_and_loaded(full, checkpoint):
    listed = full("wmtp", "ls", checkpoint.parent)
    proven = full("wmtp", "validate", "--deep", checkpoint)
    loaded = full("wmtp", "load", checkpoint)
    assert [done.returncode for done in (listed, proven, loaded)] == [0, 0, 0], loaded.stderr
    assert "proven: every parameter has its tensor, and every tensor its parameter" in proven.stdout
    assert "MTPForCausalLM on cpu: 39 tensors" in loaded.stdout


def test_with_torch_alone_training_says_what_to_install(full):
    done = full("wmtp", "selftest")
    assert done.returncode == 1
    assert "this needs the package 'accelerate', which is not installed" in done.stderr
