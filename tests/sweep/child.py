"""A process of the sweep: builds architectures, saves, drafts, loads and compares; one line of JSON for each."""

from __future__ import annotations

import json
import shutil
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from transformers.utils import logging

import wmtp
from sweep.exceptions import EXCEPTIONS
from sweep.tiny import tiny
from wmtp.authoring.grow import grow
from wmtp.authoring.init import draft_metadata, init_metadata
from wmtp.errors import TrainingError, WmtpError
from wmtp.metadata.file import dump_metadata
from wmtp.models.adapter import check_packing, trainable
from wmtp.models.foreign import LogitsModel
from wmtp.models.packing import mixing_of
from wmtp.models.plain import PlainModel
from wmtp.publishing.write import write_model_directory
from wmtp.storage.opening import open_store

logging.set_verbosity_error()
logging.disable_progress_bar()
warnings.filterwarnings("ignore")
torch.set_num_threads(1)

_VOCAB = 50  # token ids that every tiny model has

TASKS = {
    "causal": ("AutoModelForCausalLM", {}),
    "reward": ("AutoModelForSequenceClassification", {"num_labels": 1}),
    "image-text": ("AutoModelForImageTextToText", {}),
    "trunk": ("AutoModelForImageTextToText", {}),
}


def made(task: str, model_type: str) -> torch.nn.Module:
    auto, changes = TASKS[task]
    torch.manual_seed(0)
    config = tiny(model_type, EXCEPTIONS.get(model_type, {}), **changes)
    return getattr(transformers, auto).from_config(config)


def build(directory: Path, task: str, model_type: str) -> torch.nn.Module:
    model = made(task, model_type)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.normal_()
    model.save_pretrained(directory)
    return model


def text_class(model: torch.nn.Module) -> type | None:
    """The class of a larger model's text model alone."""
    return transformers.AutoModelForCausalLM._model_mapping.get(type(model.config.get_text_config()), None)


def as_text(directory: Path, model: torch.nn.Module, text: type) -> dict[str, torch.Tensor]:
    """Let config.json name the text model, and return what its parameters are to be: those of the larger model.

    Which those are is read off the modules: that of the whole text model, or of its body and an unembedding on top.
    """
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [text.__name__]}))
    whole = type(model).from_pretrained(directory, dtype="auto")
    own = text._from_config(whole.config.get_text_config())
    body = own.base_model if own.base_model is not own else own.get_decoder()
    own_prefix = "" if body is own else next(f"{name}." for name, module in own.named_modules() if module is body)
    inner = [f"{name}." for name, module in whole.named_modules() if name and type(module) is type(body)]
    values, expected = whole.state_dict(), {}
    for name in own.state_dict():
        if name.startswith(own_prefix) and len(inner) == 1:
            found = [inner[0] + name.removeprefix(own_prefix)]
        else:
            found = [each for each in values if each == name] or [each for each in values if each.endswith(f".{name}")]
        if len(found) == 1 and found[0] in values:
            expected[name] = values[found[0]]
    return expected


def compared(directory: Path, expected: dict[str, torch.Tensor], draft: Any) -> str:
    """What came of it, in a word and a reason."""
    try:
        found = wmtp.load_model(directory).state_dict()
    except WmtpError as error:
        notes = [note for note in draft.notes if note.startswith("state_dict_mapping")]
        return f"refused: {error.problem}; {'; '.join(error.faults[:2])}; {' '.join(notes)[:600]}"
    if found.keys() != expected.keys():
        return f"differs: names {sorted(found.keys() ^ expected.keys())[:3]}"
    other = [n for n in found if found[n].dtype != expected[n].dtype or not torch.equal(found[n], expected[n])]
    return f"differs: {len(other)} of {len(found)}, such as {other[0]}" if other else "equal"


def run(directory: Path, task: str, model_type: str) -> dict[str, Any]:
    try:
        model = build(directory, task, model_type)
    except Exception as error:  # noqa: BLE001  whatever the architecture raises is its row in the table
        where = traceback.extract_tb(error.__traceback__)[-1]
        return {"outcome": f"not built: {type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"}
    try:
        if task == "trunk":
            text = text_class(model)
            if not text or text is type(model):
                return {"outcome": "none: transformers has no class of its text model alone"}
            expected = as_text(directory, model, text)
        else:
            expected = type(model).from_pretrained(directory, dtype="auto").state_dict()
        draft = init_metadata(directory)
        mapping = draft.metadata.loading_strategy.state_dict_mapping.model_dump(exclude_defaults=True)
        num_bytes = len(json.dumps(mapping)) if mapping else 0
        return {"outcome": compared(directory, expected, draft), "bytes": num_bytes}
    except Exception as error:  # noqa: BLE001  what nobody foresaw is a row too, and a fault
        return {"outcome": f"crashed: {type(error).__name__}: {str(error)[:300]}"}


def again(directory: Path) -> dict[str, Any]:
    """Draft once more, in a process with another seed for hashes."""
    if not (directory / "metadata.json").exists():
        return {}
    text = dump_metadata(draft_metadata(open_store(directory)).metadata)
    return {"same": text == (directory / "metadata.json").read_text()}


def grown(directory: Path) -> dict[str, Any]:
    """Give it heads of both types that stand on any model, and load what was written."""
    if not (directory / "metadata.json").exists():
        return {}
    return {head_type: _grown(directory, head_type) for head_type in ("linear", "transformer")}


def _grown(directory: Path, head_type: str) -> str:
    destination = directory.parent / f"{directory.name}-{head_type}"
    try:
        grow(str(directory), destination, heads=3, head_type=head_type)
        trunk = wmtp.load_model(directory).state_dict()
        found = wmtp.load_model(destination).trunk.state_dict()
    except WmtpError as error:
        return f"refused: {error.problem}; {'; '.join(error.faults[:2])}; {error.hint}"
    except Exception as error:  # noqa: BLE001  a fault, and a row too
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"crashed: {type(error).__name__}: {str(error)[:300]} ({where.filename}:{where.lineno})"
    finally:
        shutil.rmtree(destination, ignore_errors=True)
    same = found.keys() == trunk.keys() and all(torch.equal(found[name], trunk[name]) for name in trunk)
    return "equal" if same else "differs"


def files_with_a_draft(directory: Path, task: str, model_type: str) -> Path:
    build(directory, task, model_type)
    init_metadata(directory)
    return directory


def written(directory: Path) -> dict[str, Any]:
    """Write what was loaded in the layout of its files, as it is and with one parameter changed."""
    if not (directory / "metadata.json").exists():
        return {}
    destination = directory.parent / f"{directory.name}-written"
    try:
        return {
            "same": comes_back(directory, destination),
            "changed": changed_only_where_it_is_stored(directory, destination),
        }
    except Exception as error:  # noqa: BLE001  a fault, and a row too
        return {"same": f"crashed: {type(error).__name__}: {str(error)[:300]}", "changed": ""}


def comes_back(directory: Path, destination: Path) -> str:
    """Whether the tensors of a checkpoint that was loaded and written are those of its files, byte for byte."""
    loaded = wmtp.load(directory, mmap=False)
    differing = sorted(_differing(loaded, directory, destination) - set(loaded.receipt.left_unused))
    return f"differs: {differing[:3]}" if differing else "equal"


def changed_only_where_it_is_stored(directory: Path, destination: Path) -> str:
    """Whether a change of one parameter changes the tensors that hold it, and no others."""
    loaded = wmtp.load(directory, mmap=False)
    made = [each for each in loaded.plan.assignments if len(each.tensors) > 1] or loaded.plan.assignments
    with torch.no_grad():
        loaded.model.state_dict()[made[-1].names[0]].add_(1)
    differing = _differing(loaded, directory, destination) - set(loaded.receipt.left_unused)
    expected = {tensor.name for tensor in made[-1].tensors}
    return "equal" if differing == expected else f"differs: {sorted(differing ^ expected)[:3]}"


def _differing(loaded: Any, directory: Path, destination: Path) -> set[str]:
    destination.mkdir()
    try:
        write_model_directory(
            destination,
            state_dict=loaded.model.state_dict(),
            config=loaded.checkpoint.config,
            metadata=loaded.metadata,
            extra_files={},
            source=loaded,
        )
        before, after = load_file(directory / "model.safetensors"), load_file(destination / "model.safetensors")
    finally:
        shutil.rmtree(destination)
    alike = {name for name in before.keys() & after.keys() if _is_same(before[name], after[name])}
    return (before.keys() | after.keys()) - alike


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def packed(task: str, model_type: str) -> dict[str, str]:
    """Whether documents packed into one row see each other: what the tables say, and what the model does."""
    try:
        model = made(task, model_type)
    except Exception:  # noqa: BLE001  told by the first run
        return {}
    said = "mixed" if mixing_of(model.config.to_dict()) else "apart"
    with torch.no_grad():
        for parameter in model.parameters():
            # At 0.02 every model of this size predicts the uniform distribution, whatever it reads.
            parameter.mul_(5 if parameter.dim() > 1 else 1).add_(0.1 * torch.randn_like(parameter))
        return {"said": said, "found": _packed(model), "losses": _losses(model.eval())}


def _packed(model: torch.nn.Module) -> str:
    try:
        check_packing(trainable(model))
    except TrainingError as error:
        return "mixed" if "see each other" in error.problem else f"unknown: {error.problem}"
    except Exception as error:  # noqa: BLE001  a model that does not answer so few token ids says nothing of them
        return f"unknown: {type(error).__name__}: {str(error)[:200]}"
    return "apart"


def _losses(model: torch.nn.Module) -> str:
    """How a plain model's losses come about, and whether they are those of its logits."""
    ids, wrapped = torch.randint(0, _VOCAB, (2, 9)), trainable(model)
    try:
        expected = LogitsModel(model, model.forward)(ids, labels=ids).ce
    except Exception as error:  # noqa: BLE001  a model that does not answer token ids alone
        return f"unknown: {type(error).__name__}"
    found = wrapped(ids, labels=ids).ce
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
        return f"differ: by {float((found - expected).abs().max())}"
    return "from its body" if isinstance(wrapped, PlainModel) and not wrapped.makes_logits() else "from its logits"


MODES = {"again": again, "grow": grown, "write": written}


def main() -> None:
    root, mode, task, *model_types = sys.argv[1:]
    for model_type in model_types:
        directory = Path(root) / task / model_type
        of_a_kind = {"first": partial(run, directory), "pack": packed}.get(mode)
        result = of_a_kind(task, model_type) if of_a_kind else MODES[mode](directory)
        sys.stdout.write(json.dumps({"task": task, "type": model_type, **result}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
