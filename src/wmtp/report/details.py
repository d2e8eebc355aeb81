"""Everything about one run, folded away: plan against what happened, fingerprints, receipt, recipe, configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from wmtp.html_table import html_cells
from wmtp.report.loose import UNKNOWN, items, mapping, number, text_of, within
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import visible
from wmtp.run_plan.cost import flops
from wmtp.untrusted import first_few
from wmtp.wording import size


def details(run: SavedRun) -> str:
    """Return what else there is to know about a run, as HTML."""
    parts = {
        "Plan against what happened": _plan(run),
        "Models, data and versions, by fingerprint": _fingerprints(run.provenance),
        "How the base model was loaded (receipt)": _receipt(run.receipt),
        "Recipe": _document(run.file.recipe),
        "Configuration": _document(run.file.config),
    }
    folded = "".join(f"<details><summary>{escape(name)}</summary>{part}</details>" for name, part in parts.items())
    return f"<h3>{escape(visible(run.name))}</h3>{folded}"


def _plan(run: SavedRun) -> str:
    if run.file.plan is None:
        return "<p>The run has not kept its plan.</p>"
    cost, memory = mapping(within(run.file.plan, "cost")), mapping(within(run.file.plan, "memory"))
    computed = number(cost.get("value_stage")) + number(cost.get("training"))
    happened = _happened(run, computed)
    planned = {
        "optimizer steps": f"{number(cost.get('steps')):,}",
        "tokens trained on": f"{number(cost.get('tokens')):,}",
        "compute": f"about {flops(computed)}",
        "memory": f"{size(sum(map(number, memory.values())))} for weights, gradients, optimizer; without activations",
    }
    if fitted := number(cost.get("value_steps")):
        planned["steps of the value heads alone (stage 1)"] = f"{fitted:,}"
    rows = ([name, planned.get(name, UNKNOWN), happened.get(name, UNKNOWN)] for name in {**planned, **happened})
    notes = "".join(f"<li>{escape(text_of(note))}</li>" for note in items(within(run.file.plan, "notes")))
    return html_cells(["", "planned", "happened"], rows) + (f"<ul>{notes}</ul>" if notes else "")


def _happened(run: SavedRun, computed: int) -> dict[str, str]:
    outcome = run.file.result
    if outcome is None:
        return {"optimizer steps": f"{max(run.checkpoints, default=0):,} in the newest checkpoint; the run is not over"}
    found = {"optimizer steps": f"{outcome.steps:,}", "time": f"{outcome.seconds:,.0f} s"}
    cost = mapping(within(run.file.plan, "cost"))
    if planned := number(cost.get("steps")):
        found["tokens trained on"] = f"{number(cost.get('tokens')) * outcome.steps // planned:,}"
        if outcome.steps == planned and outcome.seconds > 0:
            found["compute"] = f"the same: about {flops(round(computed / outcome.seconds))} in each second"
    if outcome.peak_bytes is not None:
        found["memory"] = f"{size(outcome.peak_bytes)} at most, {_whose(run)}"
    return found


def _whose(run: SavedRun) -> str:
    device = text_of(within(run.file.config, "devices", "device"))
    if device == "cpu":
        return "of the whole process: Python, libraries, data and activations too"
    if device.startswith("cuda"):
        return "of what torch allocates on the device, activations too"
    return "activations too: of the whole process, or where it ran on CUDA of the device"


def _fingerprints(provenance: Mapping[str, Any]) -> str:
    files = items(within(provenance, "parent", "files"))
    rows = [[f"base model: {text_of(within(each, 'path'))}", text_of(within(each, "sha256"))] for each in files]
    for section in ("data", "scores", "versions"):
        found = mapping(provenance.get(section))
        rows += [[f"{section}: {visible(name)}", text_of(value)] for name, value in found.items()]
    for change in items(provenance.get("changes")):
        rows.append([f"let differ at step {text_of(within(change, 'step'))}", text_of(within(change, "values"))])
    return html_cells(["what", "which"], rows) if rows else "<p>The run has no checkpoint that says it.</p>"


def _receipt(receipt: Mapping[str, Any]) -> str:
    if not receipt:
        return "<p>The run has no checkpoint that keeps it.</p>"
    parameters = items(receipt.get("parameters"))
    dtypes = {f"{text_of(within(p, 'stored_dtype'))} as {text_of(within(p, 'loaded_dtype'))}" for p in parameters}
    rows = [
        ["address", text_of(receipt.get("uri"))],
        ["class", text_of(receipt.get("model_class"))],
        ["tensors", f"{len(parameters):,}, {size(number(receipt.get('num_bytes')))}: {', '.join(sorted(dtypes))}"],
        ["left at their initial values", str(len(items(receipt.get("kept_initial"))))],
        ["tensors left unused", str(len(items(receipt.get("left_unused"))))],
    ]
    rows += [[f"code that ran: {visible(name)}", text_of(it)] for name, it in mapping(receipt.get("code")).items()]
    rows += [["note", note] for note in first_few([text_of(note) for note in items(receipt.get("notes"))])]
    return html_cells(["what", "which"], rows)


def _document(document: Mapping[str, Any]) -> str:
    return f'<pre tabindex="0">{escape(visible(json.dumps(document, indent=1, ensure_ascii=False)))}</pre>'
