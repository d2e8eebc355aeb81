"""A native module for a trunk that has none: in the layout of a family that servers draft with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wmtp import __version__
from wmtp.authoring.growing import GrowReport, causal_lm, sample
from wmtp.authoring.growth import check_loads, check_logits, check_values
from wmtp.authoring.init import draft_metadata
from wmtp.authoring.native_families import DRAFTING, GROWN, Grown, conventions_of, released_name
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import PROCESSOR_FILES
from wmtp.checkpoint.families import family_named
from wmtp.checkpoint.native_heads import with_count
from wmtp.errors import CheckpointError
from wmtp.loaders.base import LoadResult
from wmtp.metadata.file import write_metadata
from wmtp.metadata.heads import MTPInfo
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.models.text_part import is_text_part, text_configuration
from wmtp.publishing.cards.card import Source, write_card
from wmtp.publishing.cards.origin import origin_of
from wmtp.publishing.parent import copied_files, parent_record
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import write_model_directory, write_receipt
from wmtp.storage.opening import open_store
from wmtp.trust.guards import answering_errors
from wmtp.untrusted import show

NUM_HEADS = 2


def grow_native(
    loaded: LoadResult, destination: Path, *, heads: int, head_options: Mapping[str, Any], sample_text: str
) -> GrowReport:
    """Make a model with one native module from a plain causal LM, and write it as its family's releases are.

    The module's block is a copy of a layer of the trunk, its norms are copies of the final norm, and its projection
    lets the hidden state pass and adds a little of the embedding: it is trained from there.

    Args:
        loaded: The trunk.
        destination: A directory that does not exist yet.
        heads: 2: the next-token head, and the module.
        head_options: None are taken.
        sample_text: What cross-entropy is measured on.

    Raises:
        WmtpError: If the source is no plain causal LM of a family that can be grown; nothing is written then.
    """
    trunk = causal_lm(loaded)
    grown = _grown(trunk, loaded, heads, head_options)
    check_values(trunk, loaded)
    ids, said = sample(trunk, loaded.tokenizer, sample_text, heads)
    where = f"{loaded.checkpoint.where}: {type(trunk).__name__}"
    with torch.no_grad(), answering_errors(where, f"{ids.shape[1]} token ids"):
        expected = trunk(ids, use_cache=False).logits
        check_logits(expected, ids, loaded)
        model = NativeMTPForCausalLM.on_trunk(trunk, _declared(grown, trunk))
        _begin(model)
        output = model(ids, labels=ids)
    _write(model, grown, loaded, destination)
    return GrowReport(
        path=str(destination),
        num_heads=heads,
        head_type="deepseek",
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_new_parameters=sum(parameter.numel() for parameter in model.heads.parameters()),
        sample=said,
        cross_entropy=tuple((output.ce.sum((0, 1)) / output.valid.sum((0, 1))).tolist()),
    )


def _grown(trunk: PreTrainedModel, loaded: LoadResult, heads: int, head_options: Mapping[str, Any]) -> Grown:
    model_type = trunk.config.get_text_config(decoder=True).model_type
    if model_type not in GROWN:
        raise CheckpointError(
            f"{loaded.checkpoint.where}/{CONFIG_FILE}: model_type is {show(model_type)}, and native modules are grown"
            f" for {' and '.join(map(repr, GROWN))} only",
            hint="'--head-type resblock' makes Medusa heads, which vLLM takes beside any trunk; where the release of a"
            " model has modules of its own, take them from there, and 'wmtp init' drafts how they load",
        )
    if heads != NUM_HEADS or head_options:
        what = f"with {', '.join(head_options)}" if head_options else f"of {heads} heads"
        raise CheckpointError(
            f"{loaded.checkpoint.where}: a model {what} was asked for, and one native module is grown, which is head 2",
            hint="give '--heads 2', and no options of other heads; to draft more tokens a round, set mtp.recursion in"
            " the metadata.json that is written (docs/native_heads.md)",
        )
    return GROWN[model_type]


def _declared(grown: Grown, trunk: PreTrainedModel) -> MTPInfo:
    config, drafting = trunk.config.get_text_config(decoder=True), DRAFTING[grown.family]
    kinds = getattr(config, "layer_types", None) or [drafting.attention] * config.num_hidden_layers
    like = [n for n, kind in enumerate(kinds) if drafting.attention in (None, kind)]
    if not like:
        raise CheckpointError(
            f"{type(trunk).__name__}: no layer of it has {drafting.attention}, and the module of {grown.family} does",
            hint="grow heads of another type: '--head-type resblock'",
        )
    conventions = {**conventions_of(family_named(grown.family), drafting), "block_like": like[-1:]}
    fields = {"kind": "sequential", "n_future_tokens": NUM_HEADS, "head_type": "deepseek", "conventions": conventions}
    return MTPInfo.model_validate(fields)


def _begin(model: NativeMTPForCausalLM) -> None:
    """Give the module values to be trained from: those of the layer that its block is like, behind an identity."""
    module: Any = model.heads[str(NUM_HEADS)]
    [like] = model.conventions.block_like
    module.mtp_block.load_state_dict(model.layer(like).state_dict())
    weight: Any = module.eh_proj.weight  # [dim, 2 dim], for hidden and embedding in the declared order
    dim = weight.shape[0]
    start = 0 if model.conventions.concatenation == "hidden_embedding" else dim
    weight[:, start : start + dim] = torch.eye(dim, dtype=weight.dtype, device=weight.device)


def _write(model: NativeMTPForCausalLM, grown: Grown, loaded: LoadResult, destination: Path) -> None:
    tensors, config, files = _tensors(model, grown), loaded.checkpoint.config, copied_files(loaded)
    if is_text_part(model.trunk, loaded.metadata.base_architecture):
        # Of its own: servers look for the names of the larger model where its configuration stands.
        config = text_configuration(model.trunk, config)
        files = {name: file for name, file in files.items() if name not in PROCESSOR_FILES}
    with publish_directory(destination) as directory:
        write_model_directory(
            directory,
            state_dict=tensors,
            config=_config(config, grown),
            metadata=loaded.metadata,
            extra_files=files,
        )
        write_receipt(directory, loaded)
        metadata = draft_metadata(open_store(directory)).metadata
        changes = {
            "training_algorithm": loaded.metadata.training_algorithm,
            "dtype": str(model.trunk.dtype).removeprefix("torch."),
            "tokenizer": loaded.metadata.tokenizer,
            "created_by": f"wmtp {__version__}",
            "provenance": {"made_by": "grow", "parent": parent_record(loaded)},
        }
        write_metadata(directory, metadata.model_copy(update=changes))
        check_loads(directory, destination)
        write_card(directory, Source(origin_of(loaded), loaded.metadata))


def _tensors(model: NativeMTPForCausalLM, grown: Grown) -> dict[str, Tensor]:
    """Return what is written, by its names in files; an unembedding of its own where the family has one."""
    depth = model.trunk.config.get_text_config(decoder=True).num_hidden_layers
    drafting, state = DRAFTING[grown.family], model.state_dict()
    if grown.is_untied:
        state["trunk.lm_head.weight"] = state["trunk.lm_head.weight"].clone()
    return {released_name(drafting, name, depth): tensor for name, tensor in state.items()}


def _config(config: Mapping[str, Any], grown: Grown) -> dict[str, Any]:
    changed = with_count(config, 1)
    nested = changed.get("text_config")
    own = {grown.count: 1}
    changed = changed | ({"text_config": {**nested, **own}} if isinstance(nested, dict) else own)
    if grown.architecture is not None:
        changed["architectures"] = [grown.architecture]
    return changed | ({"tie_word_embeddings": False} if grown.is_untied else {})
