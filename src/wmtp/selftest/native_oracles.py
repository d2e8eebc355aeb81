"""Oracles of native heads: what each module reads, and that it computes what transformers' own module computes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor
from transformers.modeling_layers import MtpModel

from wmtp.models.calls import recorded_calls
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.models.parts import final_norm_after, find_parts
from wmtp.selftest.oracles import LOSS_TOLERANCE, Finding
from wmtp.selftest.subject import Subject

# Logits, where the losses' tolerance is one of nats: some trunks answer with figures of a hundred.
_LOGIT_TOLERANCE = 10 * LOSS_TOLERANCE
_NUMBER = re.compile(r"^\d+")


@torch.no_grad()
def native_heads_read_what_is_known(subject: Subject) -> Iterator[Finding]:
    """A head says the same whether the tokens that it predicts are there or not, and hangs on the one before them.

    Head k drafts token j + k at row j when tokens up to j + k - 1 are known: that is what a server has, and a head
    that learned from more would draft worse there than its loss says.
    """
    model = subject.model
    if not isinstance(model, NativeMTPForCausalLM):
        return
    oracle, ids = "native heads read what is known", _longest(subject)
    yield _head_1_is_the_trunks(model, ids, oracle)
    whole = model(ids).logits
    for k in range(2, model.num_heads + 1):
        row = (ids.shape[1] - k) // 2
        if row < 1:
            yield Finding(oracle, f"head {k}", note=f"no document has {k + 2} tokens")
            continue
        known = ids[:, : row + k]
        found = model(known).logits[0, row, k - 1]
        difference = float((found - whole[0, row, k - 1]).abs().max())
        yield Finding(oracle, f"head {k}: a document, and its beginning", difference, _LOGIT_TOLERANCE)
        other = known.clone()
        other[0, -1] = (other[0, -1] + 1) % whole.shape[-1]
        is_moved = bool((model(other).logits[0, row, k - 1] != found).any())
        yield Finding(oracle, f"head {k}: reads the token before", 0.0 if is_moved else 1.0)


def _longest(subject: Subject) -> Tensor:
    longest = max(subject.rows.examples, key=len)
    return longest.input_ids.long().unsqueeze(0).to(subject.device)


def _head_1_is_the_trunks(model: NativeMTPForCausalLM, ids: Tensor, oracle: str) -> Finding:
    own = model.trunk(ids, use_cache=False).logits
    difference = float((model(ids).logits[:, :, 0] - own).abs().max())
    return Finding(oracle, "head 1, and the trunk alone", difference, _LOGIT_TOLERANCE)


@torch.no_grad()
def native_modules_are_those_of_transformers(subject: Subject) -> Iterator[Finding]:
    """Each module's logits are those of `MtpModel.forward_layer` with the same values, where transformers has one.

    The order of a module's inputs and where it norms are then transformers' own, so a wrong convention shows here.
    """
    model = subject.model
    if not isinstance(model, NativeMTPForCausalLM):
        return
    oracle = "native heads are transformers'"
    made = _of_transformers(model)
    if made is None:
        yield Finding(oracle, "logits of MtpModel", note="transformers has no such modules for this model")
        return
    ids = _longest(subject)
    logits = model(ids).logits
    for k, expected in enumerate(_logits(model, made, ids), 2):
        difference = float((logits[:, :, k - 1] - expected).abs().max())
        yield Finding(oracle, f"head {k}: logits of MtpModel", difference, _LOGIT_TOLERANCE)


def _of_transformers(model: NativeMTPForCausalLM) -> MtpModel | None:
    """Return transformers' modules on the same trunk with the same values; None where it has none of this form."""
    config = model.trunk.config.get_text_config(decoder=True)
    kinds = [getattr(config, name, None) for name in ("layer_types", "mtp_layer_types")]
    is_known = getattr(config, "num_mtp_layers", None) == len(model.heads) and model.recursion == 1
    if not is_known or (kinds[0] is not None and kinds[1] is None):
        return None
    with torch.random.fork_rng():
        made = MtpModel(model.trunk, len(model.heads)).eval()
    shared = (".embed_tokens.", ".unembedding.")
    own = {name: value for name, value in model.heads.state_dict().items() if not any(part in name for part in shared)}
    values = {_NUMBER.sub(lambda found: f"layers.{int(found[0]) - 2}", name): value for name, value in own.items()}
    wanted = {name: value.shape for name, value in made.state_dict().items() if name.startswith("layers.")}
    if wanted != {name: value.shape for name, value in values.items()}:
        return None
    # Not strictly: what it shares with the trunk it has from there, and of its layers names and shapes were compared.
    made.load_state_dict(values, strict=False)
    return made.to(next(model.parameters()).device)


def _logits(model: NativeMTPForCausalLM, made: MtpModel, ids: Tensor) -> Iterator[Tensor]:
    norm = model.trunk.get_submodule(final_norm_after(model.trunk, find_parts(model.trunk)))
    with recorded_calls(norm) as calls:
        after = model.trunk.base_model(ids, use_cache=False).last_hidden_state
    # What transformers does not know of, is done to what its modules are given.
    passed = after if model.conventions.hidden == "after_norm" else calls[norm][0][0]
    positions = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
    for i in range(len(model.heads)):
        vectors = made.embed_tokens(F.pad(ids[:, 1 + i :], (0, 1 + i)))
        if i == 0 and model.conventions.first_embedding == "zeroed":
            vectors[:, 0] = 0
        passed = made.forward_layer(i, passed, positions, None, inputs_embeds=vectors)
        yield made._project_to_logits(passed)
