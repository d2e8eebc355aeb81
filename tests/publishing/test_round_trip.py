"""What loading made of stored tensors is undone when a model is written: the very tensors come back, as named."""

from __future__ import annotations

import pytest
import torch

from sweep.child import changed_only_where_it_is_stored, comes_back, files_with_a_draft

FEW = ["mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss", "jamba", "camembert"]  # the last: tied, stored as the second


@pytest.mark.parametrize("model_type", FEW)
def test_tensors_of_a_family_come_back_byte_for_byte_and_a_change_stays_where_it_is(tmp_path, model_type):
    directory = files_with_a_draft(tmp_path / "m", "causal", model_type)
    with torch.random.fork_rng():
        assert comes_back(directory, tmp_path / "again") == "equal"
        assert changed_only_where_it_is_stored(directory, tmp_path / "changed") == "equal"
