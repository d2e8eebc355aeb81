"""A checkpoint's own class, built as `cls(config)` with parameters on the meta device."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

import wmtp
from checkpoints import MODELING, write_custom
from wmtp.errors import TrustError
from wmtp.manifest import sha256_bytes

IDS = torch.arange(8).view(1, 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_class_with_its_own_file_loads_bit_equal_with_consent(place, tmp_path, dtype):
    consent, model = write_custom(tmp_path, dtype=dtype)
    result = place.load(tmp_path, allow_code=consent)
    assert torch.equal(result.model(IDS), model(IDS))
    assert result.receipt.code == consent
    assert result.receipt.notes == ()


def test_ties_made_in_init_and_buffers_of_any_kind_survive_construction(place, tmp_path):
    consent, model = write_custom(tmp_path)
    loaded = place.load_model(tmp_path, allow_code=consent)
    assert loaded.head.weight is loaded.embedding.weight
    assert loaded.shared_a is loaded.shared_b
    assert torch.equal(loaded.ramp, model.ramp)  # not persistent: from construction
    assert torch.equal(loaded.counter, model.counter)  # persistent: from the file
    assert loaded.frozen.requires_grad is False


def test_a_class_that_reads_its_parameters_is_built_on_the_cpu_and_the_receipt_says_so(place, tmp_path):
    reads = MODELING.replace("# in __init__", "self.scale_at_start = float(self.shared_a.sum().item())")
    consent, model = write_custom(tmp_path, modeling=reads)
    result = place.load(tmp_path, allow_code=consent)
    assert result.receipt.notes == ("built on the CPU: the class reads its parameters while it is built",)
    assert torch.equal(result.model(IDS), model(IDS))


def test_mixed_stored_dtypes_are_kept_for_a_class_of_its_own(place, tmp_path):
    consent, _ = write_custom(tmp_path, dtype=torch.bfloat16, float32_names=("shared_a",))
    loaded = place.load_model(tmp_path, allow_code=consent)
    assert loaded.shared_a.dtype == torch.float32
    assert loaded.embedding.weight.dtype == torch.bfloat16
    assert {p.dtype for p in place.load_model(tmp_path, allow_code=consent, dtype="float32").parameters()} == {
        torch.float32
    }


def test_without_consent_the_refusal_prints_the_very_line_that_would_give_it(place, tmp_path):
    consent, _ = write_custom(tmp_path)
    with pytest.raises(TrustError) as refusal:
        place.load_model(tmp_path)
    assert f"--allow-code modeling.py={consent['modeling.py']}" in refusal.value.hint
    assert "imports 'math', 'torch'" in refusal.value.problem
    assert not Path(tmp_path, "__pycache__").exists()


@pytest.mark.parametrize("name", ["ToyModul", "helper_function", "CONSTANT", "nn", "Module"])
def test_only_a_module_class_defined_in_the_file_may_be_named(place, tmp_path, name):
    consent, _ = write_custom(tmp_path, model_class_name=name)
    with pytest.raises(
        TrustError, match=f"model_class_name is '{name}', but .* defines no such torch.nn.Module"
    ) as refusal:
        place.load_model(tmp_path, allow_code=consent)
    assert "it defines: 'ToyModel'" in refusal.value.hint


def test_whatever_the_constructor_raises_becomes_our_error(place, tmp_path):
    exits = MODELING.replace("# in __init__", "raise SystemExit(3)")
    write_custom(tmp_path)
    (tmp_path / "modeling.py").write_text(exits)
    with pytest.raises(TrustError, match=r"modeling.py: the code raised SystemExit: '3'"):
        place.load_model(tmp_path, allow_code={"modeling.py": sha256_bytes(exits.encode())})


def test_loading_in_several_threads_at_once_gives_every_one_its_model(tmp_path):
    consent, model = write_custom(tmp_path, dtype=torch.bfloat16)
    outputs: list[torch.Tensor] = []

    def load() -> None:
        outputs.append(wmtp.load_model(tmp_path, allow_code=consent)(IDS))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outputs) == 4
    assert all(torch.equal(output, model(IDS)) for output in outputs)
    assert torch.get_default_dtype() == torch.float32
