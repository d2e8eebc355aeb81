"""Pages that are made from the program itself: its commands, its public names, its schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import wmtp
from wmtp.cli.main import COMMANDS, app
from wmtp.metadata.file import metadata_json_schema
from wmtp.settings.config import config_json_schema
from wmtp.settings.recipe import recipe_json_schema

_SCHEMAS = {
    "metadata": ("metadata.json", metadata_json_schema),
    "config": ("config.yaml", config_json_schema),
    "recipe": ("recipe.yaml", recipe_json_schema),
}
_GROUPS = {
    "Loading": ("load", "load_model", "plan_load", "LoadResult", "LoadPlan", "LoadReceipt"),
    "Metadata and addresses": ("load_metadata", "ModelMetadata", "parse_uri", "ModelURI"),
    "Settings": ("load_config", "Config", "load_recipe", "Recipe", "resolve_models", "Resolution"),
    "Training": ("train", "TrainResult", "create_model_loader", "ComponentFactory"),
    "Using what was trained": ("evaluate", "Evaluation", "generate", "Generation", "export"),
    "Names and plug-ins": (
        *("Registry", "loader_registry", "loading_strategies", "model_classes", "StandardizedModelLoader"),
    ),
    "Errors": ("WmtpError",),
}
# What the public functions take and is no public name itself.
_BESIDE = {"Loading": ("wmtp.settings.loading.LoadOptions",)}


def write_reference(directory: Path) -> None:
    """Write all generated pages into a directory."""
    directory.mkdir(parents=True)
    (directory / "cli.md").write_text("\n".join(_command_lines()))
    (directory / "python.md").write_text("\n".join(_python_lines()))
    for name, (file, schema) in _SCHEMAS.items():
        (directory / f"schema-{name}.md").write_text("\n".join(_schema_lines(name, file, schema())))


def _command_lines() -> Iterator[str]:
    yield "# Command line\n\nWhat `wmtp --help` and `wmtp COMMAND --help` say, in one page."
    program = typer.main.get_command(app)
    context = typer.Context(program, info_name="wmtp")
    yield "\nExit status 0: fine. 1: what was asked for failed, or what was checked is not valid. 2: wrong usage. 130:"
    yield "interrupted. 143: ended by SIGTERM, a training run after its step.\n\n## Options of every command\n"
    yield from _parameters(program, context)
    for name in COMMANDS:
        yield from _command(program.get_command(context, name), typer.Context(program, info_name="wmtp"), name, "##")


def _command(command: Any, parent: Any, name: str, level: str) -> Iterator[str]:
    context = type(parent)(command, info_name=name, parent=parent)
    words = context.command_path
    yield f"\n{level} `{words}`\n\n{_prose(command.help)}\n"
    if children := getattr(command, "commands", None):
        for child, inner in children.items():
            yield from _command(inner, context, child, level + "#")
        return
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield from _parameters(command, context)


def _parameters(command: Any, context: Any) -> Iterator[str]:
    rows = [_parameter(parameter, context) for parameter in command.params if not getattr(parameter, "hidden", False)]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from rows


def _parameter(parameter: Any, context: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"| `{parameter.metavar or parameter.name}` | {_cell(getattr(parameter, 'help', None))} |"
    record = parameter.get_help_record(context) or (", ".join(parameter.opts), parameter.help)
    return f"| `{_code(record[0])}` | {_cell(record[1])} |"


def _code(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _cell(text: str | None) -> str:
    return _prose(text).replace("|", "\\|").replace("\n", " ")


def _prose(text: str | None) -> str:
    """Return what a person wrote for a terminal, so that Markdown shows every character of it."""
    return (text or "").replace("[", "\\[").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _python_lines() -> Iterator[str]:
    listed = {name for names in _GROUPS.values() for name in names} | {"__version__"}
    assert listed == set(wmtp.__all__), f"public names without a place in the reference: {listed ^ set(wmtp.__all__)}"
    yield "# Python\n\nWhat `import wmtp` gives, and the options that loading takes.\n"
    for group, names in _GROUPS.items():
        yield f"## {group}\n"
        yield from (f"::: {_where(name)}\n" for name in names)
        yield from (f"::: {name}\n" for name in _BESIDE.get(group, ()))


def _where(name: str) -> str:
    return f"{wmtp._PUBLIC[name]}.{name}"


def _schema_lines(name: str, file: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"# JSON Schema of {file}\n\nWhat `wmtp schema {name}` prints for editors: as tables, then whole.\n"
    yield f"## {file}\n"
    yield from _fields(schema)
    for title, definition in schema.get("$defs", {}).items():
        yield f"\n## {title}\n\n{_prose(definition.get('description'))}\n"
        yield from _fields(definition)
    yield f"\n## Whole\n\n```json\n{json.dumps(schema, indent=1, ensure_ascii=False)}\n```"


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    yield "| key | type | default | meaning |\n|---|---|---|---|"
    for key, field in schema.get("properties", {}).items():
        default = "required" if key in required else f"`{_code(json.dumps(field.get('default')))}`"
        yield f"| `{key}` | {_type(field)} | {default} | {_cell(field.get('description'))} |"


def _type(field: dict[str, Any]) -> str:
    """Return the type of a field in a few words, other objects as links to their tables."""
    if "$ref" in field:
        title = field["$ref"].rpartition("/")[2]
        return f"[{title}](#{title.lower()})"
    if "enum" in field:
        return " or ".join(f"`{_code(json.dumps(value))}`" for value in field["enum"])
    if choices := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    if "const" in field:
        return f"`{_code(json.dumps(field['const']))}`"
    kind = str(field.get("type", "anything"))
    return f"list of {_type(field['items'])}" if kind == "array" and "items" in field else kind
