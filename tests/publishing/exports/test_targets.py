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


@pytest.mark.parametrize("target", ["medusa", "vllm-medusa", "meta"])
def test_native_modules_are_refused_where_heads_stand_side_by_side_and_told_where_they_are_written(tmp_path, target):
    write_native(tmp_path / "m", "mellum")
    init_metadata(tmp_path / "m")
    with pytest.raises(CheckpointError, match="its heads are native modules, which run one after another") as caught:
        wmtp.export(tmp_path / "m", tmp_path / "out", to=target)
    assert caught.value.hint.startswith("--to native writes them")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("head_type", "said"), [("transformer", "--to meta"), ("linear", "--to vllm-medusa")])
def test_heads_that_are_not_native_are_told_what_writes_their_type(tmp_path, head_type, said):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(head_type=head_type))
    with pytest.raises(CheckpointError, match="has no native heads") as caught:
        wmtp.export(tmp_path / "mtp", tmp_path / "out", to="native")
    assert caught.value.hint.startswith(said)


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_overwritten_and_nothing_loaded_for_it(tmp_path, target):
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        wmtp.export(tmp_path / "nowhere", tmp_path / "out", to=target)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_trunk_is_what_is_written_where_no_target_is_named(tmp_path):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp())
    written = wmtp.export(tmp_path / "mtp", tmp_path / "trunk")
    assert wmtp.load_metadata(written).loading_strategy.transformers_class == "AutoModelForCausalLM"
