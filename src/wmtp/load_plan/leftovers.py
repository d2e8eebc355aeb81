"""What a tensor without a parameter is, as far as its name and shape tell: old buffers, or a part of other weights.

A tensor may be left unused only when the others mean the same without it. Scales, adapters and halves of a
parametrisation do not: whoever leaves them out loads other weights than were saved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.untrusted import plain

# Of a hostile file that holds a third of a million, the first are enough to say what it is.
_MAX_JUDGED = 10_000


@dataclass(frozen=True)
class Telling:
    """Tensors that change what other tensors mean.

    Attributes:
        pattern: Matches the last parts of their names.
        what: What they are.
        remedy: How to make a checkpoint without them that means the same.
    """

    pattern: str
    what: str
    remedy: str


_QUANTISED = (
    "load them with the program that quantised them and save them dequantised, or take the checkpoint they were made of"
)
_MERGE = (
    "merge it with peft (PeftModel.from_pretrained(base, adapter).merge_and_unload()), then save_pretrained the result"
)
# By the last parts of a name. The first that matches counts.
TELLING = (
    Telling(
        r"(?:.*\.)?(?:lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|vera_[AB]|vera_lambda_[bd]|modules_to_save"
        r"|original_module|base_layer|ia3_l|hada_[wt][12](?:_[ab])?|lokr_[wt][12](?:_[ab])?|o?boft_[RS]|oft_[rR]"
        r"|prompt_embeddings|adapter_prompt|trainable_tokens_delta)(?:\..*)?",
        "an adapter",
        _MERGE,
    ),
    Telling(
        r"(?:.*\.)?parametrizations\..*",
        "a parametrisation, such as weight norm, of which the weight is computed",
        'compute it: torch.nn.utils.parametrize.remove_parametrizations(module, "weight"), then save again',
    ),
    Telling(
        r"(?:.*\.)?(?:\w*_)?(?:weight|bias)_(?:orig|mask)",
        "pruning, a weight and the mask that it is multiplied with",
        'apply the mask: torch.nn.utils.prune.remove(module, "weight"), then save again',
    ),
    Telling(
        r"(?:.*\.)?(?:\w*_)?(?:weight|w)_(?:g|v|u|norm)",
        "weight norm or spectral norm, of which the weight is computed",
        "compute it: torch.nn.utils.remove_weight_norm(module) or remove_spectral_norm(module), then save again",
    ),
    Telling(
        r"(?:.*\.)?(?:(?!logit_scale$|layer_scale$)(?:\w*_)?(?:scales?|scale_inv|scales_inv|scale_2|scale_ub|zero_points?"
        r"|absmax|quant_map|packed|g_idx|amax|scales_and_zeros)|\w+_blocks|weight_(?:shape|format)|quant_state(?:\.\w+)?"
        r"|qweight|qzeros|SCB|codebooks?|trellis|Qidxs|W_q|q_(?:weight|groups|perm|invperm))",
        "quantised weights, stored in fewer bits with scales beside them",
        _QUANTISED,
    ),
)
_COMPANION = Telling(
    "", "a pair, with the tensor whose name it goes on from", "let the program that wrote both save finished weights"
)


def _is_mask(shape: tuple[int, ...]) -> bool:
    return len(shape) >= 2 and shape[-1] == shape[-2] and all(size == 1 for size in shape[:-2])


def _is_one_value(shape: tuple[int, ...]) -> bool:
    return all(size == 1 for size in shape)


def _any(shape: tuple[int, ...]) -> bool:  # noqa: ARG001  as the others
    return True


_HEADS = (
    *("lm_head", "score", "v_head", "value_head", "classifier", "pre_classifier", "classification_head", "qa_outputs"),
    *("embed_out", "cls", "pooler", "predictions", "generator_predictions", "generator_lm_head"),
    *("discriminator_predictions", "vocab_projector", "vocab_transform", "vocab_layer_norm", "final_logits_bias"),
)
# Name and shape: a bias of an attention layer is a parameter unless it is square.
_HARMLESS: tuple[tuple[re.Pattern[str], Callable[[tuple[int, ...]], bool]], ...] = (
    (re.compile(r"(?:.*\.)?(?:attn|attention|self_attn)\.(?:bias|causal_mask)"), _is_mask),
    (re.compile(r"(?:.*\.)?(?:attn|attention|self_attn)\.masked_bias"), _is_one_value),
    (re.compile(r"(?:.*\.)?(?:rotary_emb|rotary_pos_emb|rotary)\.(?:original_)?inv_freq"), _any),
    (re.compile(r"(?:.*\.)?(?:rotary_emb|rotary_pos_emb|rotary)\.(?:cos|sin)_cached"), _any),
    (re.compile(r"rope\.freqs"), _any),
    (re.compile(r"(?:.*\.)?(?:position_ids|relative_position_index|embed_positions\.weights)"), _any),
    (re.compile(r"(?:.*\.)?embeddings\.token_type_ids"), _any),
    (re.compile(rf"(?:[A-Za-z_]\w*\.)?(?:{'|'.join(_HEADS)})(?:\.\w+)*"), _any),
)
_TELLING = tuple((re.compile(kind.pattern, re.DOTALL), kind) for kind in TELLING)


def telling(name: str) -> Telling | None:
    """Return what a tensor changes about others, by its name; None when nothing is known of it."""
    return next((kind for pattern, kind in _TELLING if pattern.fullmatch(name)), None)


def is_harmless(tensor: TensorInfo) -> bool:
    """Say whether a tensor is known to be of no use to a model whose parameters are all filled: a buffer or a head."""
    if telling(tensor.name):
        return False
    return any(pattern.fullmatch(tensor.name) and fits(tensor.shape) for pattern, fits in _HARMLESS)


def told_apart(names: Iterable[str], held: Collection[str]) -> dict[Telling, list[str]]:
    """Return the names that tell of something, by what that is, in the order in which they come.

    Args:
        names: Tensors without a parameter.
        held: All tensors of the files: a name that goes on from another's is a part of what that one means.
    """
    found: dict[Telling, list[str]] = {}
    for name in islice(names, _MAX_JUDGED):
        kind = telling(name) or (_COMPANION if _goes_on(name, held) else None)
        if kind is not None:
            found.setdefault(kind, []).append(name)
    return found


def _goes_on(name: str, held: Collection[str]) -> bool:
    return any(name[: end.start()] in held for end in re.finditer(r"[._]", name))


def explained(kinds: Mapping[Telling, list[str]]) -> str:
    """Return in one line what tensors are that must not be left unused, and what to do about each kind."""
    return "; ".join(f"{_counted(names)} of {kind.what}: {kind.remedy}" for kind, names in kinds.items())


def _counted(names: Sequence[str]) -> str:
    return f"{plain(names[0])} and {len(names) - 1:,} more tell" if names[1:] else f"{plain(names[0])} tells"
