"""Sound files whose tensors are not those of the model."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hostile.bases import gpt2, layer_shapes, reward
from hostile.case import CAUSAL, Change, refusals
from hostile.changes import config, strategy, tensors, tensors_named
from hostile.draft import VOCAB, WIDTH, Draft, Tensor, random_tensor, tensors_of, zeros
from hostile.good import REWARD

refused = refusals("tensors", peer=CAUSAL)
FILE = "model.safetensors"
NORM, EMBEDDING, HEAD = "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"
MISSING, UNEXPECTED = "missing: no tensor for {}", "unexpected: no parameter for {}"

_NOT_FINITE = (
    ("not a number", float("nan"), "1 NaN"),
    ("infinite", float("inf"), "1 infinite"),
    ("infinite below nothing", float("-inf"), "1 infinite"),
)


def _renamed(rename: Callable[[str], str]) -> Change:
    def change(draft: Draft) -> None:
        draft.tensors = {rename(name): tensor for name, tensor in draft.tensors.items()}

    return change


def _stored_as(name: str, dtype: str) -> Change:
    return lambda draft: draft.tensors.update({name: zeros(dtype, *draft.tensors[name].shape)})


def _shaped(name: str, *shape: int) -> Change:
    return lambda draft: draft.tensors.update({name: random_tensor(name, shape)})


def _with_value(name: str, value: float) -> Change:
    def change(draft: Draft) -> None:
        tensor = draft.tensors[name]
        draft.tensors[name] = tensor._replace(data=struct.pack("<f", value) + tensor.data[4:])

    return change


def _tied_but_different(draft: Draft) -> None:
    draft.config["tie_word_embeddings"] = True


def _third_layer(draft: Draft) -> None:
    draft.tensors |= tensors_of(layer_shapes("model.layers.2."))


def _only_the_first_layer(draft: Draft) -> None:
    draft.tensors = {name: tensor for name, tensor in draft.tensors.items() if "layers.1." not in name}


def _adapters(draft: Draft) -> None:
    start = "model.layers.0.self_attn.q_proj.lora_"
    draft.tensors |= tensors_of({f"{start}A.weight": (2, WIDTH), f"{start}B.weight": (WIDTH, 2)})


def _packed(draft: Draft) -> None:
    name = "model.layers.0.self_attn.q_proj"
    del draft.tensors[f"{name}.weight"]
    draft.tensors |= {f"{name}.qweight": zeros("I32", 1, WIDTH), f"{name}.scales": zeros("F16", 1, WIDTH)}


def _eight_bits(draft: Draft) -> None:
    draft.tensors[NORM] = Tensor("F8_E4M3", (WIDTH,), b"\x38" * WIDTH)


def _wrong(name: str) -> tuple[str, ...]:
    return (FILE, "wrong shape", name)


CASES = [
    refused("a missing norm", "PlanError", MISSING.format(NORM), tensors_named({NORM: None})),
    refused("a missing head that is not tied", "PlanError", MISSING.format(HEAD), tensors_named({HEAD: None})),
    refused("missing embeddings", "PlanError", MISSING.format(EMBEDDING), tensors_named({EMBEDDING: None})),
    refused(
        "a missing norm of a gpt2",
        "PlanError",
        MISSING.format("transformer.ln_f.bias"),
        tensors_named({"transformer.ln_f.bias": None}),
        base=gpt2,
    ),
    refused(
        "a missing score of a reward model",
        "PlanError",
        MISSING.format("score.weight"),
        tensors_named({"score.weight": None}),
        base=reward,
        peer=REWARD,
    ),
    refused(
        "a layer that is not there",
        "PlanError",
        ("9 missing", "model.layers.1.mlp.up_proj.weight"),
        _only_the_first_layer,
    ),
    refused("a layer too many", "PlanError", ("9 unexpected", "model.layers.2.mlp.up_proj.weight"), _third_layer),
    refused(
        "a configuration with a layer more",
        "PlanError CheckpointError",
        ("model.layers.2",),
        config(num_hidden_layers=3),
    ),
    refused(
        "a configuration with a layer less",
        "PlanError CheckpointError",
        ("model.layers.1",),
        config(num_hidden_layers=1),
    ),
    refused(
        "a configuration with a larger vocabulary", "PlanError CheckpointError", (EMBEDDING,), config(vocab_size=64)
    ),
    refused("no tensors at all", "PlanError", "21 missing", lambda d: d.tensors.clear()),
    refused(
        "a tensor with a letter less",
        "PlanError",
        (MISSING.format(NORM), UNEXPECTED.format("model.norm.weigh")),
        _renamed(lambda n: "model.norm.weigh" if n == NORM else n),
    ),
    refused(
        "a tensor with a capital letter",
        "PlanError",
        (MISSING.format(NORM), "model.Norm.weight"),
        _renamed(lambda n: n.replace("model.norm", "model.Norm")),
    ),
    refused(
        "a tensor with a space behind",
        "PlanError",
        (MISSING.format(NORM), NORM + " "),
        _renamed(lambda n: n + " " if n == NORM else n),
    ),
    refused(
        "a tensor with a letter of another alphabet",
        "PlanError",
        (MISSING.format(NORM), "m\\u043edel.norm.weight"),
        _renamed(lambda n: "m\u043edel.norm.weight" if n == NORM else n),
    ),
    refused(
        "names as a data parallel wrapper leaves them",
        "PlanError",
        (EMBEDDING, "module.model.norm.weight", "remove_prefix"),
        _renamed(lambda n: f"module.{n}"),
    ),
    refused(
        "names as a compiled module leaves them",
        "PlanError",
        (EMBEDDING, "_orig_mod.model.norm.weight"),
        _renamed(lambda n: f"_orig_mod.{n}"),
    ),
    refused(
        "names without their prefix",
        "PlanError",
        (MISSING.format(NORM), "norm.weight"),
        _renamed(lambda n: n.removeprefix("model.")),
    ),
    refused(
        "every tensor under another name",
        "PlanError",
        ("21 missing, 21 unexpected", "and 1 more"),
        _renamed(lambda n: n[::-1]),
    ),
    refused("a tensor of another shape", "PlanError CheckpointError", _wrong(NORM), _shaped(NORM, WIDTH + 1)),
    refused("a transposed tensor", "PlanError CheckpointError", _wrong(EMBEDDING), _shaped(EMBEDDING, WIDTH, VOCAB)),
    refused("a flat tensor", "PlanError CheckpointError", _wrong(HEAD), _shaped(HEAD, WIDTH * VOCAB)),
    refused("a vector as a matrix of one row", "PlanError CheckpointError", _wrong(NORM), _shaped(NORM, 1, WIDTH)),
    refused("a single number for a vector", "PlanError CheckpointError", _wrong(NORM), _shaped(NORM)),
    refused("a tensor without a value", "PlanError CheckpointError", _wrong(NORM), _shaped(NORM, 0)),
    *[
        refused(f"a norm stored as {dtype}", "PlanError", (FILE, "wrong dtype", NORM, dtype), _stored_as(NORM, dtype))
        for dtype in ("I64", "I8", "BOOL")
    ],
    refused("weights stored as bytes", "PlanError", (FILE, "wrong dtype", HEAD, "U8"), _stored_as(HEAD, "U8")),
    refused("a norm of eight bits", "PlanError", (FILE, "wrong dtype", NORM, "F8_E4M3"), _eight_bits),
    refused(
        "two different tensors where the model has one",
        "IntegrityError PlanError",
        (FILE, "lm_head.weight"),
        _tied_but_different,
    ),
    refused(
        "a bias that the model does not have",
        "PlanError",
        UNEXPECTED.format("lm_head.bias"),
        tensors(lm_head__bias=zeros("F32", VOCAB)),
    ),
    refused(
        "biases of attention that the configuration denies",
        "PlanError",
        UNEXPECTED.format("model.layers.0.self_attn.q_proj.bias"),
        tensors(model__layers__0__self_attn__q_proj__bias=zeros("F32", WIDTH)),
    ),
    refused(
        "a configuration that wants biases",
        "PlanError",
        MISSING.format("model.layers.0.self_attn.q_proj.bias"),
        config(attention_bias=True),
    ),
    refused(
        "an adapter among the weights",
        "PlanError",
        UNEXPECTED.format("model.layers.0.self_attn.q_proj.lora_A.weight"),
        _adapters,
    ),
    refused(
        "weights packed for another library",
        "PlanError",
        (MISSING.format("model.layers.0.self_attn.q_proj.weight"), "q_proj.qweight"),
        _packed,
    ),
    refused(
        "frequencies that older versions stored",
        "PlanError",
        UNEXPECTED.format("model.layers.0.self_attn.rotary_emb.inv_freq"),
        tensors(model__layers__0__self_attn__rotary_emb__inv_freq=zeros("F32", 2)),
    ),
    refused(
        "a state of the optimizer among the weights",
        "PlanError",
        UNEXPECTED.format("optimizer.exp_avg"),
        tensors(optimizer__exp_avg=zeros("F32", 4)),
    ),
    refused(
        "a reward model with two scores",
        "PlanError CheckpointError",
        (FILE, "wrong shape", "score.weight"),
        _shaped("score.weight", 2, WIDTH),
        base=reward,
        peer=REWARD,
    ),
    refused(
        "a causal model declared as a reward model",
        "PlanError",
        (MISSING.format("score.weight"), UNEXPECTED.format(HEAD)),
        strategy(transformers_class="LlamaForSequenceClassification"),
        peer=REWARD,
    ),
    refused(
        "ten thousand tensors too many",
        "PlanError",
        ("10000 unexpected", "and 9,980 more"),
        lambda d: d.tensors.update({f"extra.{n}": zeros("F32", 0) for n in range(10_000)}),
    ),
    *[
        refused(
            f"a value that is {name} seen by a deep validation",
            "CheckpointError",
            (FILE, NORM, word),
            _with_value(NORM, value),
            call="validate",
            peer=None,
        )
        for name, value, word in _NOT_FINITE
    ],
]
