"""What the command line promises: verbs, options, and that the quick ones are quick."""

import json
import subprocess
import sys

import pytest
import typer

from checkpoints import write_llama_checkpoint
from head_files import deepseek
from wmtp.cli.main import COMMANDS, app
from wmtp.cli.summaries import SUMMARIES

_SETTINGS = {"--config", "--recipe", "--json"}
_LOADS = {"--allow-code", "--lock", "--no-cache", "--dtype", "--device", "--allow-symlinks", "--json"}
VERBS = {
    "ls": (["PREFIX"], {"--json"}),
    "inspect": (["URI"], {"--tensors", "--allow-symlinks", "--json"}),
    "validate": (
        ["URI"],
        {"--deep", "--for", "--allow-code", "--lock", "--signature", "--public-key", "--allow-symlinks", "--json"},
    ),
    "load": (["URI"], _LOADS),
    "diff": (["A", "B"], {"--headers", "--exit-code", "--allow-symlinks", "--json"}),
    "init": (["DIR"], {"--class", "--json"}),
    "upgrade": (["DIR"], {"--yes", "--json"}),
    "grow": (["SRC", "DST"], {"--heads", "--head-type", "--num-blocks", "--shared-unembedding", *_LOADS}),
    "export": (["SRC", "DST"], {"--to", "--drop-heads", *_LOADS}),
    "convert": (["SRC", "DST"], {"--key", "--memory-limit", "--time-limit", "--allow-symlinks", "--json"}),
    "trust": (["URI"], {"--yes", "--full", "--lines", "--list", "--forget", "--allow-symlinks", "--json"}),
    "fetch": (["URI", "[DIR]"], {"--lock", "--allow-symlinks", "--json"}),
    "push": (["DIR", "URI"], {"--replace", "--public", "--allow-symlinks", "--json"}),
    "cache": ([], set()),
    "lock": (["URI"], {"--output", "--sign-with", "--signature", "--yes", "--allow-symlinks", "--json"}),
    "plan": (["[KEY=VALUE]..."], _SETTINGS | {"--world-size", "--nodes", "--bandwidth"}),
    "score": (["[KEY=VALUE]..."], _SETTINGS | {"--allow-code"}),
    "train": (["[KEY=VALUE]..."], _SETTINGS | {"--allow-code", "--resume", "--allow-change", "--dry-run"}),
    "evaluate": (
        ["MODEL..."],
        {
            *("--data", "--format", "--key", "--max-length", "--packing"),
            *("--tasks", "--samples", "--k", "--temperature", "--max-new-tokens", "--template"),
            *("--allow-code-execution", "--batch-size", "--limit", "--resamples", "--confidence", "--seed"),
            *_LOADS,
        },
    ),
    "generate": (
        ["MODEL", "[PROMPT]"],
        _LOADS
        | {
            "--prompts",
            "--max-new-tokens",
            "--temperature",
            "--top-p",
            "--seed",
            "--stop",
            "--drafts",
            "--chat",
            "--compare",
        },
    ),
    "report": (["RUN..."], {"--output", "-o", "--steps", "--documents", "--no-xray", "--allow-code", "--json"}),
    "selftest": ([], {"--model", "--data", "--allow-code", "--device", "--json"}),
    "schema": (["metadata|config|recipe"], {"--json"}),
    "env": ([], {"--json"}),
    "demo": (["DIR"], {"--gguf", "--data", "--steps", "--thorough"}),
    "explain": (["[CODE]"], {"--json"}),
    "completion": (["bash|zsh|fish"], set()),
}

# Run as the console script does, then say which heavy modules were imported.
_RUN = """\
import json, sys
from wmtp.cli.main import main
try:
    main()
finally:
    print(json.dumps(sorted({"torch", "transformers", "rich", "numpy"} & set(sys.modules))), file=sys.stderr)
"""


CACHE_VERBS = {
    "ls": ([], {"--json"}),
    "verify": ([], {"--json"}),
    "prune": ([], {"--unused-for", "--max-size", "--json"}),
    "rm": (["URI..."], {"--json"}),
}


def test_the_verbs_are_those_of_the_contract():
    group = typer.main.get_command(app)
    assert group.list_commands(None) == list(VERBS)


def arguments_and_options(command) -> tuple[list[str], set[str]]:
    arguments = [p.metavar for p in command.params if p.param_type_name == "argument"]
    return arguments, {name for p in command.params if p.param_type_name == "option" for name in p.opts} - {"--help"}


@pytest.mark.parametrize("verb", VERBS)
def test_arguments_and_options_of_a_verb(verb):
    assert arguments_and_options(typer.main.get_command(app).get_command(None, verb)) == VERBS[verb]


def test_the_verbs_of_the_cache():
    group = typer.main.get_command(app).get_command(None, "cache")
    assert {name: arguments_and_options(command) for name, command in group.commands.items()} == CACHE_VERBS


def test_the_list_of_commands_says_what_each_says_of_itself():
    program = typer.main.get_command(app)
    assert {name: program.get_command(None, name).help.split("\n")[0] for name in COMMANDS} == SUMMARIES
    assert list(SUMMARIES) == list(COMMANDS)


def test_every_verb_has_help_and_every_option_says_what_it_does():
    group = typer.main.get_command(app)
    for command in [group, *(group.get_command(None, verb) for verb in VERBS)]:
        assert command.help
        assert all(p.help for p in command.params if p.param_type_name == "option")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = write_llama_checkpoint(tmp_path_factory.mktemp("zoo") / "llama").parent
    deepseek(zoo / "heads")
    return zoo


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "--version", "ls ZOO", "inspect ZOO/llama", "validate ZOO/heads --for vllm"),
        *("schema metadata", "schema recipe", "explain", "completion bash"),
    ],
)
def test_what_answers_at_once_imports_no_torch(words, zoo):
    words = words.replace("ZOO", str(zoo)).split()
    done = subprocess.run([sys.executable, "-c", _RUN, *words], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
