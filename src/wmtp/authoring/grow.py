"""From a plain causal LM to a base model with prediction heads that all start as its next-token head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from typing_extensions import Unpack

from wmtp import __version__
from wmtp.authoring.growth import check_heads, check_loads, check_logits, check_values
from wmtp.authoring.init import fitting_algorithms
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.errors import CheckpointError, DataError
from wmtp.loaders.base import LoadResult
from wmtp.loaders.configuration import model_config
from wmtp.loaders.standardized import URI, load
from wmtp.metadata.heads import MTPInfo
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata
from wmtp.models.heads import HeadType
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.parts import find_parts
from wmtp.publishing.parent import copied_files, parent_record
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import write_model_directory
from wmtp.settings.loading import LoadKeywords
from wmtp.trust.guards import answering_errors

_MAX_SAMPLE_TOKENS = 512
_RANDOM_TOKENS = 64
SAMPLE_TEXT = """\
A language model reads text from left to right and says, at each place, how probable every possible next word is.
Predicting several words at once is harder: the second word depends on the first, which is not known yet. A model that
can do it has to plan a little, and a program can then check several words in one step, which makes writing faster.
"""


@dataclass(frozen=True)
class GrowReport:
    """What `grow` made, measured before it was written.

    Attributes:
        path: The new checkpoint.
        num_heads: Heads, counting the next-token head.
        head_type: What heads 2..H are.
        num_parameters: Of the new model, tied ones counted once.
        num_new_parameters: Of the heads.
        sample: What the cross-entropies were measured on.
        cross_entropy: Of each head at step 0 on the sample, nats per token.
    """

    path: str
    num_heads: int
    head_type: HeadType
    num_parameters: int
    num_new_parameters: int
    sample: str
    cross_entropy: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        sizes = f"{self.num_parameters:,} parameters, {self.num_new_parameters:,} of them new"
        lines = [
            f"{self.path}: {self.num_heads} heads ({self.head_type}), {sizes}",
            "head 1 is bit-equal to the source, and every other head is equal to head 1",
            f"cross-entropy at step 0 on {self.sample}, nats per token:",
        ]
        return lines + [f"  head {k}: {ce:.4f}" for k, ce in enumerate(self.cross_entropy, start=1)]


def grow(
    source: URI,
    destination: Path,
    *,
    heads: int,
    head_type: HeadType = "transformer",
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
            `resblock`: of the unembedding, behind residual blocks that change nothing yet.
        head_options: Further fields of `mtp_config`: `num_blocks`, `block_bias` and `shared_unembedding` of `resblock`.
        sample_text: What cross-entropy is measured on. Without a tokenizer random tokens take its place.
        **options: As in `wmtp.load`.

    Raises:
        WmtpError: If the source does not load, is no plain causal LM, or cannot be a trunk; nothing is written then.
    """
    loaded = load(source, **options)
    trunk = _causal_lm(loaded)
    find_parts(trunk, with_layers=head_type == "transformer")  # or refuses, before anything is computed
    check_values(trunk, loaded)
    ids, sample = _sample(trunk, loaded.tokenizer, sample_text, heads)
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
        sample=sample,
        cross_entropy=tuple((output.ce.sum((0, 1)) / output.valid.sum((0, 1))).tolist()),
    )


def _causal_lm(loaded: LoadResult) -> PreTrainedModel:
    model: nn.Module = loaded.model
    where = f"{loaded.checkpoint.where}/metadata.json"
    if isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None and model.can_generate():
        return model
    raise CheckpointError(
        f"{where}: loads as {type(model).__name__}, which is no plain causal LM",
        hint="name a checkpoint with loader_type huggingface and transformers_class AutoModelForCausalLM",
    )


def _sample(trunk: PreTrainedModel, tokenizer: Any, text: str, heads: int) -> tuple[Tensor, str]:
    embeddings: Any = trunk.get_input_embeddings()
    unembedding: Any = trunk.get_output_embeddings()
    # Some models have further rows for what is no token that could be said, of images, say.
    vocab_size = min(len(part.weight) for part in (embeddings, unembedding) if hasattr(part, "weight"))
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocab_size, (1, _RANDOM_TOKENS), generator=generator)
    else:
        ids = tokenizer(text, return_tensors="pt").input_ids
    limit = getattr(trunk.config.get_text_config(), "max_position_embeddings", None) or _MAX_SAMPLE_TOKENS
    ids = ids[:, : min(limit, _MAX_SAMPLE_TOKENS)]
    num_tokens = ids.shape[1]
    if num_tokens <= heads or int(ids.max()) >= vocab_size:
        raise DataError(
            f"the sample has {num_tokens} tokens, for {heads} heads; the vocabulary has {vocab_size}",
            hint="give a longer sample_text; if it is long enough, the tokenizer belongs to a larger vocabulary",
        )
    said = (
        f"{num_tokens} random tokens (there is no tokenizer)" if tokenizer is None else f"{num_tokens} tokens of text"
    )
    return ids.to(next(trunk.parameters()).device), said


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
