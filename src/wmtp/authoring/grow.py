"""From a plain causal LM to a base model with prediction heads that all start as its next-token head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from typing_extensions import Unpack

from wmtp import __version__
from wmtp.authoring.growing import SAMPLE_TEXT, GrownType, GrowReport, causal_lm, sample
from wmtp.authoring.growth import check_heads, check_loads, check_logits, check_values
from wmtp.authoring.init import fitting_algorithms
from wmtp.authoring.native_grow import grow_native
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.loaders.base import LoadResult
from wmtp.loaders.configuration import model_config
from wmtp.loaders.standardized import URI, load
from wmtp.metadata.heads import MTPInfo
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.parts import find_parts
from wmtp.publishing.cards.card import Source, write_card
from wmtp.publishing.cards.origin import origin_of
from wmtp.publishing.parent import copied_files, parent_record
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import write_model_directory
from wmtp.settings.loading import LoadKeywords
from wmtp.trust.guards import answering_errors


def grow(
    source: URI,
    destination: Path,
    *,
    heads: int,
    head_type: GrownType = "transformer",
    head_options: Mapping[str, Any] | None = None,
    sample_text: str = SAMPLE_TEXT,
    **options: Unpack[LoadKeywords],
) -> GrowReport:
    """Make a multi-token prediction model from a plain causal LM and write it as a checkpoint.

    Args:
        source: A checkpoint of the strategy `huggingface`.
        destination: A directory that does not exist yet.
        heads: Heads, counting the model's own next-token head, which is head 1.
        head_type: `transformer`: each new head is a copy of the last decoder layer. `linear`: of the unembedding.
            `resblock`: of the unembedding, behind residual blocks that change nothing yet. `deepseek`: a native module
            of the trunk's family, as `wmtp.authoring.native_grow` has it.
        head_options: Further fields of `mtp_config`: `num_blocks`, `block_bias` and `shared_unembedding` of `resblock`.
        sample_text: What cross-entropy is measured on. Without a tokenizer random tokens take its place.
        **options: As in `wmtp.load`.

    Raises:
        WmtpError: If the source does not load, is no plain causal LM, or cannot be a trunk; nothing is written then.
    """
    loaded = load(source, **options)
    if head_type == "deepseek":
        return grow_native(loaded, destination, heads=heads, head_options=head_options or {}, sample_text=sample_text)
    trunk = causal_lm(loaded)
    find_parts(trunk, with_layers=head_type == "transformer")  # or refuses, before anything is computed
    check_values(trunk, loaded)
    ids, said = sample(trunk, loaded.tokenizer, sample_text, heads)
    where = f"{loaded.checkpoint.where}: {type(trunk).__name__}"
    with torch.no_grad(), answering_errors(where, f"{ids.shape[1]} token ids"):
        config = model_config(loaded.checkpoint, trunk.dtype)
        fields = {"heads": heads, "head_type": head_type, **(head_options or {})}
        model = MTPForCausalLM.around(trunk, config=config, **fields)
        expected = trunk(ids, use_cache=False).logits
        check_logits(expected, ids, loaded)
        check_heads(model, model(ids).logits, expected)
        output = model(ids, labels=ids)
    _write(model, loaded, destination)
    new = sum(parameter.numel() for parameter in model.heads.parameters())
    return GrowReport(
        path=str(destination),
        num_heads=heads,
        head_type=head_type,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_new_parameters=new,
        sample=said,
        cross_entropy=tuple((output.ce.sum((0, 1)) / output.valid.sum((0, 1))).tolist()),
    )


def _write(model: MTPForCausalLM, loaded: LoadResult, destination: Path) -> None:
    source = loaded.metadata
    mtp_config = model.config.mtp_config
    metadata = ModelMetadata(
        wmtp_type="base_model",
        training_algorithm=source.training_algorithm,
        base_architecture=source.base_architecture,
        storage_version="2.0",
        loading_strategy=LoadingStrategy(
            loader_type="custom_mtp", model_class_name=MTPForCausalLM.__name__, required_files=[CONFIG_FILE]
        ),
        algorithm_compatibility=fitting_algorithms("base_model"),
        mtp=MTPInfo(n_future_tokens=model.num_heads, head_type=model.head_type),
        tokenizer=source.tokenizer,
        created_by=f"wmtp {__version__}",
        provenance={"made_by": "grow", "parent": parent_record(loaded)},
    )
    # The architecture of the file, so that transformers does not take it for a plain model with odd tensors.
    changes = {"architectures": [MTPForCausalLM.__name__], "mtp_config": mtp_config}
    with publish_directory(destination) as directory:
        write_model_directory(
            directory,
            state_dict=model.state_dict(),
            config=loaded.checkpoint.config | changes,
            metadata=metadata,
            extra_files=copied_files(loaded),
            source=loaded,
        )
        check_loads(directory, destination)
        write_card(directory, Source(origin_of(loaded), source))
