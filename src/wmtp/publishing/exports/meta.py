"""Heads of the type `transformer` on a llama, as Meta's own code reads them: consolidated.pth and params.json.

The layout is that of `checkpoint.meta_release`: what leads from it to our names is turned round, rotary rows included.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wmtp.checkpoint.meta_release import (
    PARAMS_FILE,
    MetaParams,
    feed_forward_fields,
    mapping,
    parse_params,
    read_params,
    stored_shapes,
)
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.checkpoint.tokenizer import tokenizer_files
from wmtp.errors import CheckpointError, FormatError
from wmtp.load_plan.conversion.inverse import stored_again
from wmtp.load_plan.matching import sources_of
from wmtp.load_plan.parameters import DTYPE_NAMES
from wmtp.loaders.base import LoadResult
from wmtp.models.logits import UNCHANGED
from wmtp.models.mtp import MTPForCausalLM
from wmtp.publishing.exports.parallel import model_with_heads
from wmtp.publishing.exports.targets import Writer
from wmtp.publishing.write import write_json, write_receipt
from wmtp.storage.store import Store
from wmtp.untrusted import first_few, show

WEIGHTS_FILE = "consolidated.pth"
_ELSE = "Meta's code knows plain llama alone; '--to transformers' writes the trunk of any other"


def prepare_meta(loaded: LoadResult) -> Writer:
    """Return what writes a model's tensors under Meta's names, with their values as they are, and params.json.

    Raises:
        CheckpointError: If the trunk is no plain llama, the heads have another type, or a tensor has no place there.
    """
    model = _check(loaded)
    params = _params(loaded, model.config)
    values = model.state_dict()
    tensors = _stored(params, model.config, values, where=loaded.checkpoint.where)
    document = _document(loaded.checkpoint.store, params)
    store = loaded.checkpoint.store

    def write(directory: Path) -> None:
        for name, path in store.local_paths(tokenizer_files(store)).items():
            (directory / name).write_bytes(path.read_bytes())
        _write_pickle(directory / WEIGHTS_FILE, tensors)
        if isinstance(document, bytes):
            (directory / PARAMS_FILE).write_bytes(document)
        else:
            write_json(directory / PARAMS_FILE, document)
        write_receipt(directory, loaded)

    return write


def _check(loaded: LoadResult) -> MTPForCausalLM:
    model, where = model_with_heads(loaded, "transformer", reader="Meta's code"), loaded.checkpoint.where
    config = model.config
    if config.model_type != "llama":  # others need not have the fields below
        raise CheckpointError(f"{where}/config.json: model_type is {show(config.model_type)}", hint=_ELSE)
    wanted = {"hidden_act": "silu", "head_dim": config.hidden_size // config.num_attention_heads}
    faults = [f"{key} is {show(found)}" for key, value in wanted.items() if (found := getattr(config, key)) != value]
    rotary = config.rope_parameters or {}
    if rotary.get("rope_type") != "default":
        faults.append(f"rope_parameters.rope_type is {show(rotary.get('rope_type'))}")
    if model.change != UNCHANGED:
        faults.append("logits are scaled or capped after the unembedding")
    if faults:
        raise CheckpointError(f"{where}/config.json: {'; '.join(faults)}", hint=_ELSE)
    return model


def _params(loaded: LoadResult, config: Any) -> MetaParams:
    heads: Any = loaded.model
    document = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers + heads.num_heads - 1,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "n_future_tokens": heads.num_heads,
        **feed_forward_fields(config.hidden_size, config.intermediate_size),
    }
    return parse_params(document, where=f"{loaded.checkpoint.where}, as params.json")


def _stored(params: MetaParams, config: Any, values: Mapping[str, Tensor], *, where: str) -> dict[str, Tensor]:
    """Return the tensors by Meta's names, in Meta's order."""
    shapes = stored_shapes(params, width=config.intermediate_size, vocab_size=config.vocab_size)
    some = next(iter(values.values()))
    infos = [TensorInfo(name, DTYPE_NAMES[some.dtype], shape, "", 0, 0) for name, shape in shapes.items()]
    sources = {name: source for name, (source, _) in sources_of(mapping(params), infos, where=where).items()}
    faults = [f"no place for {show(name)}" for name in values if name not in sources]
    faults += [f"no {show(name)}" for name in sources if name not in values]
    faults += [
        f"{show(name)} has the shape {list(value.shape)}, and Meta's code makes it {list(sources[name].shape)}"
        for name, value in values.items()
        if name in sources and tuple(value.shape) != sources[name].shape
    ]
    if faults:
        raise CheckpointError(
            f"{where}: {len(faults):,} tensors are not those of a plain llama", hint=_ELSE, faults=first_few(faults)
        )
    stored = stored_again(sources, values)
    return {name: stored[name] for name in shapes}


def _document(store: Store, params: MetaParams) -> dict[str, Any] | bytes:
    """Return params.json: that of the checkpoint, to the byte, where it says the same."""
    if store.has(PARAMS_FILE):
        try:
            found = parse_params(read_params(store), where=str(store.uri / PARAMS_FILE))
        except FormatError:
            found = None
        if found is not None and _means(found, params) == _means(params, params):
            return store.local_paths([PARAMS_FILE])[PARAMS_FILE].read_bytes()
    unset = {"max_batch_size", "max_seq_len"}
    return params.model_dump(exclude=unset, exclude_none=True)


def _means(params: MetaParams, other: MetaParams) -> dict[str, Any]:
    """Return the fields that decide what a model is, with the values that are left open taken from another."""
    fields = params.model_dump(include={"dim", "n_layers", "n_heads", "norm_eps", "rope_theta", "n_future_tokens"})
    vocab_size = params.vocab_size if params.vocab_size > 0 else other.vocab_size
    return fields | {"n_kv_heads": params.num_groups, "vocab_size": vocab_size}


def _write_pickle(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a plain dict of tensors, each with a storage of its own: torch writes the whole storage of a view."""
    written: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage()
        if storage.nbytes() != value.nbytes or storage.data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        written[name] = value
    torch.save(written, path)
