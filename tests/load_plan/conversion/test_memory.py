"""How much memory making parameters takes beside them: torch's own count of every allocation."""

from __future__ import annotations

import torch
from torch.profiler import ProfilerActivity, profile

import wmtp
from made_models import save_model


def peak_bytes(load) -> int:
    """The most that torch had allocated at one time while something ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = load()
    del kept
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def test_large_experts_take_no_memory_but_that_of_their_parameters(tmp_path):
    sizes = {"hidden_size": 512, "intermediate_size": 1032, "num_hidden_layers": 1, "vocab_size": 16}
    save_model(tmp_path, "mixtral", torch.bfloat16, **sizes)
    plan = wmtp.plan_load(tmp_path)
    made = sum(a.source.num_bytes for a in plan.assignments if len(a.tensors) > 1)
    assert made > 12 << 20
    assert made <= peak_bytes(lambda: wmtp.load_model(tmp_path, mmap=False)) < 1.1 * plan.bytes_to_read
    # Pages of the file, which torch counts as well, are mapped once and not copied.
    assert peak_bytes(lambda: wmtp.load_model(tmp_path)) < made + 1.1 * (tmp_path / "model.safetensors").stat().st_size
