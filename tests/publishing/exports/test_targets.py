import pytest

import wmtp
from checkpoints import write_mtp_checkpoint
from native_files import write_native
from tiny_models import tiny_mtp
from wmtp.authoring.init import init_metadata
from wmtp.errors import CheckpointError, StorageError, UnknownNameError
from wmtp.publishing.exports.targets import TARGETS
from wmtp.publishing.publish import verify_published


def test_an_unknown_target_is_told_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown export target 'medsua'") as caught:
        wmtp.export(tmp_path / "nowhere", tmp_path / "out", to="medsua")
    assert "'transformers'" in caught.value.hint
    assert "did you mean 'medusa'" in caught.value.hint


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_is_published_whole_and_says_what_it_was_made_from(tmp_path, target):
    if target == "native":
        write_native(tmp_path / "mtp", "mellum")
        init_metadata(tmp_path / "mtp")
    else:
        head_type = "transformer" if target == "meta" else "linear"
        write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(head_type=head_type))
    assert wmtp.export(tmp_path / "mtp", tmp_path / "out", to=target) == tmp_path / "out"
    verify_published(tmp_path / "out")
    written = "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))
    assert str(tmp_path / "mtp") in written


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_overwritten_and_nothing_loaded_for_it(tmp_path, target):
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        wmtp.export(tmp_path / "nowhere", tmp_path / "out", to=target)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("head_type", "way_out"), [("transformer", "--to transformers writes head 1"), ("resblock", "--to vllm-medusa")]
)
def test_without_native_heads_the_hint_names_what_can_be_written_of_those_that_are_there(tmp_path, head_type, way_out):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(head_type=head_type))
    with pytest.raises(CheckpointError, match="MTPForCausalLM, which has no native heads") as caught:
        wmtp.export(tmp_path / "mtp", tmp_path / "native", to="native")
    assert way_out in caught.value.hint


def test_the_trunk_is_what_is_written_where_no_target_is_named(tmp_path):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp())
    written = wmtp.export(tmp_path / "mtp", tmp_path / "trunk")
    assert wmtp.load_metadata(written).loading_strategy.transformers_class == "AutoModelForCausalLM"
