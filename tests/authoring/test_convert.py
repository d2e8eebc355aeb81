"""Conversion as a whole: real pickles, the real limited process, real limits."""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import wmtp
from checkpoints import llama_metadata, write_llama_checkpoint
from hostile_pickles import Call, digests, old_pickle, raw, save, touching, tuples_that_take_ages_to_hash
from wmtp.authoring import convert as conversion
from wmtp.authoring.convert import convert
from wmtp.authoring.init import init_metadata
from wmtp.errors import CheckpointError, FormatError, NotFoundError, StorageError, TrustError
from wmtp.publishing.publish import verify_published

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux limits memory")


@pytest.fixture(autouse=True)
def nothing_is_unpickled_here(monkeypatch):
    """The process that asks for a conversion never reads a pickle itself."""

    def refuse(*arguments, **keywords):
        raise AssertionError("a pickle was opened in the parent process")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llama_checkpoint(tmp_path_factory.mktemp("llama") / "llama", tie_word_embeddings=True)


@pytest.fixture
def pickled_llama(llama, tmp_path):
    """The tiny llama as transformers wrote it before safetensors, ties under both names."""
    directory = tmp_path / "pickled"
    tensors = load_file(llama / "model.safetensors")
    save(directory, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_bytes((llama / name).read_bytes())
    return directory


def kinds_of_tensors():
    base = torch.arange(12.0)
    return {
        "bf16": torch.randn(3, 4).bfloat16(),
        "half": torch.randn(5).half(),
        "double": torch.tensor([float("nan"), float("-inf"), -0.0], dtype=torch.float64),
        "fp8": torch.randn(4).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True, False]),
        "long": torch.tensor([[2**62, -1]]),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "one": torch.tensor(3.5),
        "empty": torch.empty(0, 7),
        "other_empty": torch.empty(0, 7),
        "base": base,
        "tied": base,
        "part": base[3:7],
        "turned": base.view(3, 4).t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_every_tensor_is_equal_bit_for_bit(tmp_path, legacy):
    tensors = kinds_of_tensors()
    if legacy:
        del tensors["fp8"]  # torch's older format has no such storage
    source = save(tmp_path / "source", tensors, legacy=legacy)
    before = digests(source)
    report = convert(source, tmp_path / "made")
    made = load_file(tmp_path / "made" / "model.safetensors")
    assert report.same == {"tied": "base"}
    assert report.memory_limited is sys.platform.startswith("linux")
    assert set(made) == set(tensors) - {"tied"}
    for name, tensor in made.items():
        assert (tensor.dtype, tensor.shape) == (tensors[name].dtype, tensors[name].shape), name
        raw_bytes = [t.detach().contiguous().flatten().view(torch.uint8) for t in (tensor, tensors[name])]
        assert torch.equal(*raw_bytes), name
    assert digests(source) == before
    verify_published(tmp_path / "made")


def test_a_converted_llama_loads_as_the_original_here_and_in_transformers(llama, pickled_llama, tmp_path):
    report = convert(pickled_llama, tmp_path / "made")
    assert report.same == {"lm_head.weight": "model.embed_tokens.weight"}
    assert report.next_step == f"wmtp init {tmp_path / 'made'}"
    init_metadata(tmp_path / "made")
    expected = wmtp.load_model(llama).state_dict()
    for model in (wmtp.load_model(tmp_path / "made"), AutoModelForCausalLM.from_pretrained(tmp_path / "made")):
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
        assert set(model.state_dict()) == set(expected)


def sharded_llama(directory, llama):
    tensors = load_file(llama / "model.safetensors")
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    weight_map = {name: names[number % 2] for number, name in enumerate(tensors)}
    for file in names:
        save(directory, {name: tensors[name] for name in tensors if weight_map[name] == file}, file)
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_bytes((llama / "config.json").read_bytes())
    return weight_map


def test_shards_become_shards_and_metadata_comes_along(llama, tmp_path, monkeypatch):
    source = tmp_path / "source"
    weight_map = sharded_llama(source, llama)
    metadata = llama_metadata(files=[{"path": "config.json", "size": 1, "sha256": "0" * 64}])
    metadata["loading_strategy"]["required_files"] = ["pytorch_model.bin.index.json", "config.json"]
    (source / "metadata.json").write_text(json.dumps(metadata))
    (source / "training_args.bin").write_bytes(b"\x80\x04")
    monkeypatch.setattr(conversion, "MAX_SHARD_BYTES", 20_000)
    report = convert(source, tmp_path / "made")
    written = json.loads((tmp_path / "made" / "metadata.json").read_text())
    assert written["loading_strategy"]["required_files"] == ["config.json", "model.safetensors.index.json"]
    assert "files" not in written
    assert len(report.weights) > 3
    assert report.num_tensors == len(weight_map)
    assert report.left_out == ("training_args.bin",)
    assert report.next_step.startswith("wmtp validate")
    expected = wmtp.load_model(llama).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in wmtp.load_model(tmp_path / "made").state_dict().items())


def test_a_shard_without_the_tensor_that_the_index_puts_there_is_refused(llama, tmp_path):
    weight_map = sharded_llama(tmp_path / "source", llama)
    weight_map["model.norm.weight"] = {
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    }.difference({weight_map["model.norm.weight"]}).pop()
    (tmp_path / "source" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FormatError, match=r"of-00002.bin: differs from what the index says .* 'model.norm.weight'"):
        convert(tmp_path / "source", tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_two_parallel_shards_are_merged_to_the_whole(tmp_path):
    torch.manual_seed(0)
    shapes = {"attention.wq": (8, 8), "attention.wk": (4, 8), "attention.wv": (4, 8), "attention.wo": (8, 8)}
    shapes |= {"feed_forward.w1": (12, 8), "feed_forward.w2": (8, 12), "feed_forward.w3": (12, 8)}
    whole = {f"layers.0.{name}.weight": torch.randn(shape).bfloat16() for name, shape in shapes.items()}
    whole |= {name: torch.randn(10, 8) for name in ("tok_embeddings.weight", "output.weight")}
    whole |= {"norm.weight": torch.randn(8), "layers.0.ffn_norm.weight": torch.randn(8), "rope.freqs": torch.randn(2)}
    by_columns = ("wo.weight", "w2.weight", "tok_embeddings.weight")
    for number in (0, 1):
        pieces = {
            name: t if t.dim() == 1 else t.chunk(2, dim=1 if name.endswith(by_columns) else 0)[number].clone()
            for name, t in whole.items()
        }
        save(tmp_path / "source", pieces, f"consolidated.{number:02d}.pth")
    params = {"dim": 8, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1, "norm_eps": 1e-5}
    (tmp_path / "source" / "params.json").write_text(json.dumps(params))
    report = convert(tmp_path / "source", tmp_path / "made")
    made = load_file(tmp_path / "made" / "model.safetensors")
    assert set(made) == set(whole)
    assert all(torch.equal(made[name], whole[name]) for name in whole)
    assert report.copied == ("params.json",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(tmp_path, form):
    marker, source = tmp_path / "marker", tmp_path / "source"
    content = {"weight": 1, "evil": touching(marker)}
    raw(source, old_pickle(content)) if form == "bare" else save(source, content, legacy=form == "legacy")
    before = digests(source)
    with pytest.raises(TrustError) as refused:
        convert(source, tmp_path / "made")
    assert refused.value.problem == (
        f"{source}/pytorch_model.bin: the pickle asks for 'posix.system', which weights do not need"
    )
    assert not marker.exists()
    assert digests(source) == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_wrapped_state_dict_is_unwrapped_and_the_rest_is_named(tmp_path):
    source = save(
        tmp_path / "source", {"model": {"a": torch.ones(2), "step": 3}, "epoch": 1, "rng": [1, 2]}, "last.ckpt"
    )
    report = convert(source, tmp_path / "made")
    assert report.unwrapped == "model"
    assert report.dropped == ("'epoch' (beside 'model')", "'rng' (beside 'model')", "'step' (int)")
    assert "the tensors stood under 'model'" in report.summary()
    assert list(load_file(tmp_path / "made" / "model.safetensors")) == ["a"]


def test_the_key_says_which_of_two_state_dicts_is_meant(tmp_path):
    source = save(tmp_path / "source", {"model": {"a": torch.ones(2)}, "ema": {"a": torch.zeros(2)}}, "last.pt")
    convert(source, tmp_path / "made", key="ema")
    assert load_file(tmp_path / "made" / "model.safetensors")["a"].tolist() == [0, 0]


@linux
def test_a_pickle_that_claims_a_huge_tensor_meets_the_limit_on_memory(tmp_path):
    source = save(tmp_path / "source", {"a": Call(torch.FloatTensor, 2**28)})
    with pytest.raises(CheckpointError, match="takes more than 200,000,000 bytes, the limit on memory") as refused:
        convert(source, tmp_path / "made", memory_limit_bytes=200_000_000)
    assert "--memory-limit" in refused.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@linux
def test_python_objects_without_end_meet_the_limit_on_memory_too(tmp_path):
    source = raw(tmp_path / "source", b"\x80\x02" + b"]" * 20_000_000)
    with pytest.raises(CheckpointError, match="takes more than 50,000,000 bytes, the limit on memory"):
        convert(source, tmp_path / "made", memory_limit_bytes=50_000_000)


def test_a_pickle_that_takes_for_ever_meets_the_limit_on_time(tmp_path):
    source = raw(tmp_path / "source", tuples_that_take_ages_to_hash())
    with pytest.raises(CheckpointError, match="took more than 1 seconds, the limit on time") as refused:
        convert(source, tmp_path / "made", time_limit_seconds=1)
    assert "--time-limit" in refused.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, and a child that ends with its parent")
def test_a_killed_conversion_leaves_nothing_under_the_destination_and_no_process_behind(tmp_path):
    source, made = raw(tmp_path / "source", tuples_that_take_ages_to_hash()), tmp_path / "made"
    code = "from wmtp.authoring.convert import *; import sys; convert(sys.argv[1], Path(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", code, source, made]) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        assert happens(lambda: children.read_text().split())
        child = Path("/proc", children.read_text().split()[0], "status")
        assert happens(lambda: "NoNewPrivs:\t1" in child.read_text())
        parent.kill()
    assert happens(lambda: not child.exists() or "State:\tZ" in child.read_text())
    assert not made.exists()


def happens(condition, seconds=300):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not (so := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return so


def test_views_that_would_fill_the_disk_are_refused(tmp_path):
    base = torch.zeros(100_000)
    source = save(tmp_path / "source", {f"v{n}": base.view(n, -1) for n in (1, 2, 4, 5, 8, 10, 16, 20)})
    with pytest.raises(FormatError, match="bytes more than may be written"):
        convert(source, tmp_path / "made")


def test_nothing_is_overwritten_and_nothing_is_put_into_the_source(tmp_path):
    source = save(tmp_path / "source", {"a": torch.ones(2)})
    with pytest.raises(StorageError, match="already exists"):
        convert(source, tmp_path)
    with pytest.raises(CheckpointError, match="inside the source, which is left as it is"):
        convert(source, source / "made")
    assert list(digests(source)) == ["pytorch_model.bin"]


def test_a_link_out_of_the_source_is_not_followed_unless_allowed(tmp_path):
    save(tmp_path / "elsewhere", {"a": torch.ones(2)})
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "pytorch_model.bin").symlink_to(tmp_path / "elsewhere" / "pytorch_model.bin")
    with pytest.raises(StorageError, match="a symbolic link to"):
        convert(tmp_path / "source", tmp_path / "made")
    assert convert(tmp_path / "source", tmp_path / "made", allow_symlinks=True).num_tensors == 1


def test_a_directory_with_safetensors_is_refused(tmp_path):
    source = save(tmp_path / "source", {"a": torch.ones(2)})
    save_file({"a": torch.ones(2)}, source / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has safetensors already: 'model\.safetensors'"):
        convert(source, tmp_path / "made")


def test_parallel_shards_without_params_are_refused(tmp_path):
    for number in (0, 1):
        save(tmp_path / "source", {"norm.weight": torch.ones(2)}, f"consolidated.{number:02d}.pth")
    with pytest.raises(NotFoundError, match=r"params.json: no such file, and it says how to merge shards"):
        convert(tmp_path / "source", tmp_path / "made")


def test_limits_below_one_are_refused(tmp_path):
    source = save(tmp_path / "source", {"a": torch.ones(2)})
    with pytest.raises(CheckpointError, match="time_limit_seconds is 0"):
        convert(source, tmp_path / "made", time_limit_seconds=0)
