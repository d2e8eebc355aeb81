"""Models whose parameters are made of several stored tensors, bit for bit as `from_pretrained` makes them."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import wmtp
from made_models import MAPPINGS, declare, merged_experts, rewrite, same, save_model, values_of
from wmtp.errors import IntegrityError, PlanError
from wmtp.manifest import sha256_bytes

KINDS = ("mixtral", "qwen3_moe")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mmap", [True, False])
def test_experts_that_are_stored_one_by_one_load_from_every_place(place, tmp_path, kind, mmap):
    expected = save_model(tmp_path, kind, torch.bfloat16)
    assert same(values_of(place.load_model(tmp_path, mmap=mmap)), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_made_parameters_are_cast_as_from_pretrained_casts_them(tmp_path, kind, dtype):
    save_model(tmp_path, kind, torch.bfloat16)
    expected = values_of(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype))
    for mmap in (True, False):
        assert same(values_of(wmtp.load_model(tmp_path, dtype=dtype, mmap=mmap)), expected)


def test_large_experts_are_read_to_where_they_belong(tmp_path):
    expected = save_model(tmp_path, "mixtral", hidden_size=512, intermediate_size=528)  # 1 MiB and more each
    for mmap in (True, False):
        assert same(values_of(wmtp.load_model(tmp_path, mmap=mmap)), expected)


def fuse_attention(tensors):
    for layer in range(2):
        start = f"model.layers.{layer}.self_attn"
        parts = [tensors.pop(f"{start}.{part}_proj.weight") for part in "qkv"]
        tensors[f"{start}.qkv.weight"] = torch.cat(parts)


def test_a_fused_tensor_is_cut_into_parameters(place, tmp_path):
    expected = save_model(tmp_path, "llama")
    rewrite(tmp_path, fuse_attention)
    cut = {"split": 0, "sizes": [32, 16, 16], "of": "model.layers.{i}.self_attn.qkv.weight"}
    rules = {f"model.layers.{{i}}.self_attn.{part}_proj.weight": {**cut, "take": n} for n, part in enumerate("qkv")}
    declare(tmp_path, "llama", {"tensors": rules})
    assert same(values_of(place.load_model(tmp_path)), expected)


def test_pieces_of_one_tensor_may_be_joined_in_another_order(tmp_path):
    expected = save_model(tmp_path, "llama")
    name = "model.layers.{i}.mlp.up_proj.weight"
    pieces = [{"split": 0, "sizes": [30, 18], "take": take, "of": name} for take in (1, 0)]
    rewrite(tmp_path, lambda tensors: tensors.update({
        name.format(i=i): torch.roll(tensors[name.format(i=i)], 30, 0) for i in range(2)
    }))  # fmt: skip
    declare(tmp_path, "llama", {"tensors": {name: {"concatenate": 0, "of": pieces}}})
    assert same(values_of(wmtp.load_model(tmp_path)), expected)


def test_transposed_weights_and_rotary_rows_are_rearranged(place, tmp_path):
    expected = save_model(tmp_path, "llama")

    def other_layout(tensors):
        for name in [name for name in tensors if "layers" in name and "proj" in name]:
            if "k_proj" in name:
                tensors[name] = tensors[name].view(2, 2, 4, 32).transpose(1, 2).reshape(16, 32)
            else:
                tensors[name] = tensors[name].T

    rewrite(tmp_path, other_layout)
    turned = {f"self_attn.{part}_proj" for part in "qvo"} | {f"mlp.{part}_proj" for part in ("gate", "up", "down")}
    rules = {f"model.layers.{{i}}.{part}.weight": {"rearrange": "a b -> b a"} for part in turned}
    rules["model.layers.{i}.self_attn.k_proj.weight"] = {
        "rearrange": "(h d two) x -> (h two d) x",
        "sizes": {"h": 2, "two": 2},
    }
    declare(tmp_path, "llama", {"tensors": {name: {**rule, "of": name} for name, rule in rules.items()}})
    assert same(values_of(place.load_model(tmp_path)), expected)


def in_fp8(tensors, block=16):
    """Store every projection in 8 bits with a scale for each block; what transformers cannot do at an edge, too."""
    for name in [name for name in tensors if name.endswith("proj.weight")]:
        rows, columns = tensors[name].shape
        grid = (-(-rows // block), -(-columns // block))
        scales = torch.rand(grid) / 64 + 2**-8
        each = scales.repeat_interleave(block, 0)[:rows].repeat_interleave(block, 1)[:, :columns]
        tensors[name] = (tensors[name].float() / each).clamp(-448, 448).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales


def fp8(name: str) -> dict:
    return {"dequantise": "fp8_block", "block": [16, 16], "of": name, "scales": f"{name}_scale_inv"}


def fp8_experts(rule):
    if isinstance(rule, str):
        return fp8(rule)
    return {**rule, "of": [fp8_experts(part) for part in rule["of"]] if isinstance(rule["of"], list) else fp8_experts(
        rule["of"])}  # fmt: skip


def write_fp8_model(directory):
    save_model(directory, "qwen3_moe", torch.bfloat16)
    rewrite(directory, in_fp8)
    projections = [f"model.layers.{{i}}.self_attn.{part}_proj.weight" for part in "qkvo"]
    projections += [f"model.layers.{{i}}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")]
    rules = {name: fp8(name) for name in projections}
    rules |= {name: fp8_experts(rule) for name, rule in MAPPINGS["qwen3_moe"]["tensors"].items()}
    declare(directory, "qwen3_moe", {"tensors": rules})
    config = json.loads((directory / "config.json").read_text())
    settings = {"quant_method": "fp8", "weight_block_size": [16, 16], "activation_scheme": "dynamic", "fmt": "e4m3"}
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def test_fp8_with_a_scale_for_each_block_is_what_transformers_dequantises(place, tmp_path):
    from transformers import FineGrainedFP8Config

    write_fp8_model(tmp_path)
    settings = FineGrainedFP8Config(dequantize=True, weight_block_size=(16, 16))
    expected = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=settings, dtype=torch.bfloat16)
    assert same(values_of(place.load_model(tmp_path, dtype="bfloat16")), values_of(expected))


def test_mxfp4_experts_are_what_transformers_dequantises(place, tmp_path):
    expected = save_model(tmp_path, "mixtral", torch.bfloat16, hidden_size=64, intermediate_size=64)
    blocks = {
        "gate_up": torch.randint(0, 256, (4, 128, 2, 16), dtype=torch.uint8),
        "down": torch.randint(0, 256, (4, 64, 2, 16), dtype=torch.uint8),
    }
    scales = {part: torch.randint(110, 135, block.shape[:-1], dtype=torch.uint8) for part, block in blocks.items()}

    def packed(tensors):
        for name in [name for name in tensors if ".experts." in name]:
            del tensors[name]
        for part, block in blocks.items():
            for layer in range(2):
                start = f"model.layers.{layer}.mlp.experts.{part}_proj"
                tensors[f"{start}_blocks"], tensors[f"{start}_scales"] = block, scales[part]

    rewrite(tmp_path, packed)
    rules = {}
    for part, block in blocks.items():
        name = f"model.layers.{{i}}.mlp.experts.{part}_proj"
        made = {"dequantise": "mxfp4", "of": f"{name}_blocks", "scales": f"{name}_scales"}
        rules[name] = {"rearrange": "e i o -> e o i", "of": {"rearrange": "e o i -> e i o", "of": made}}
        for layer in range(2):
            turned = convert_moe_packed_tensors(block, scales[part])  # gpt-oss has these the other way round
            expected[f"model.layers.{layer}.mlp.experts.{part}_proj"] = turned.transpose(1, 2).contiguous()
    declare(tmp_path, "mixtral", {**MAPPINGS["mixtral"], "tensors": rules})
    assert same(values_of(place.load_model(tmp_path)), expected)


def test_a_lock_is_held_while_parameters_are_made(tmp_path):
    expected = save_model(tmp_path, "mixtral")
    path = tmp_path / "model.safetensors"
    files = {name: (tmp_path / name).read_bytes() for name in ("metadata.json", "config.json", "model.safetensors")}
    files |= {"generation_config.json": (tmp_path / "generation_config.json").read_bytes()}
    lock = {name: f"sha256:{sha256_bytes(data).removeprefix('sha256:')}" for name, data in files.items()}
    loaded = wmtp.load(tmp_path, lock=lock, mmap=False)
    assert same(values_of(loaded.model), expected)
    assert "model.safetensors" in loaded.receipt.verified
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        wmtp.load(tmp_path, lock=lock, mmap=False)


def test_receipt_and_plan_say_what_was_made_of_what(tmp_path):
    save_model(tmp_path, "mixtral")
    loaded = wmtp.load(tmp_path)
    (entry,) = [p for p in loaded.receipt.parameters if p.name == "model.layers.1.mlp.experts.down_proj"]
    assert entry.made_of == tuple(f"model.layers.1.block_sparse_moe.experts.{e}.w2.weight" for e in range(4))
    assert entry.rules == ("tensors 'model.layers.{i}.mlp.experts.down_proj'",)
    line = "'model.layers.{i}.mlp.experts.gate_up_proj': 2 parameters made of 16 tensors"
    assert line.replace("'", "") in loaded.plan.summary()
    assert f"tensors {line}" in loaded.receipt.summary()


def test_a_rule_that_another_one_contradicts_is_refused_with_the_name_of_the_tensor(tmp_path):
    save_model(tmp_path, "mixtral")
    rules = merged_experts("block_sparse_moe", "w1", "w2", "w1")
    declare(tmp_path, "mixtral", {**MAPPINGS["mixtral"], "tensors": rules})
    with pytest.raises(PlanError, match=r"experts\.\d\.w1\.weight' is used 2 times, .* and 7 more like it"):
        wmtp.plan_load(tmp_path)
