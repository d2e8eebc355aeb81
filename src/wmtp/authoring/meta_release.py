"""Declaring Meta's multi-token release once its pickle is converted: two files are made from params.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from wmtp import __version__
from wmtp.authoring.pickles.sources import PickledWeights
from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.contents import small_files
from wmtp.checkpoint.headers import read_tensors, weights_name
from wmtp.checkpoint.meta_release import (
    EMBEDDING,
    PARAMS_FILE,
    UNEMBEDDING,
    MetaParams,
    llama_config,
    mapping,
    parse_params,
    read_params,
    stored_shapes,
)
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.checkpoint.tokenizer import tokenizer_fingerprint
from wmtp.errors import CheckpointError, FormatError
from wmtp.metadata.file import METADATA_FILE, write_metadata
from wmtp.metadata.heads import MTPInfo
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata
from wmtp.publishing.write import write_json
from wmtp.storage.opening import open_store
from wmtp.storage.store import Store
from wmtp.untrusted import first_few, show, show_all

_COUNT = "n_future_tokens"
_FREQUENCIES = "rope.freqs"  # of older code: it follows from rope_theta
_LAYER = re.compile(r"(layers|extra_heads)\.(\d{1,9})\.")
_WIDTH_OF = "layers.0.feed_forward.w1.weight"
_FETCH_AGAIN = "copy params.json and the weights again, from one directory of the release"


@dataclass(frozen=True)
class MetaRelease:
    """A directory of Meta's multi-token release.

    Attributes:
        params: Its params.json.
        params_file: That file, as errors show it.
        weights_file: The pickle, as errors show it.
    """

    params: MetaParams
    params_file: str
    weights_file: str


def find_release(store: Store, weights: PickledWeights) -> MetaRelease | None:
    """Return what params.json declares; None where none says how many tokens are predicted, or metadata.json is there.

    Raises:
        FormatError: If params.json is not as Meta's code reads it.
        CheckpointError: If the weights are model-parallel shards, or config.json stands there already.
    """
    if not store.has(PARAMS_FILE) or store.has(METADATA_FILE):
        return None
    document, where = read_params(store), str(store.uri / PARAMS_FILE)
    if _COUNT not in document:
        return None
    params = parse_params(document, where=where)
    if len(weights.files) > 1:
        raise CheckpointError(
            f"{store.uri}: {', '.join(show_all(weights.files))} are {len(weights.files)} files, and {where} has"
            f" {_COUNT}: the release is one file, and how its heads are divided among several is not known",
            hint="put them together with the code that wrote them, and save one consolidated.pth",
        )
    if store.has(CONFIG_FILE):
        raise CheckpointError(
            f"{store.uri / CONFIG_FILE}: stands beside {PARAMS_FILE}, from which it would be made",
            hint=f"move it away; or move {PARAMS_FILE} away, if the tensors have the names of another class",
        )
    return MetaRelease(params, where, str(store.uri / weights.files[0]))


def refuse_undeclared_heads(store: Store, names: Iterable[str]) -> None:
    """Raise FormatError for further heads beside a params.json that does not count them."""
    if store.has(METADATA_FILE) or not store.has(PARAMS_FILE):
        return
    heads = [name for name in names if name.startswith("extra_heads.")]
    if heads:
        raise FormatError(
            f"{store.uri / PARAMS_FILE}: {_COUNT} is missing, and the weights have {show(heads[0])}", hint=_FETCH_AGAIN
        )


def declare(directory: Path, release: MetaRelease, same: Mapping[str, str]) -> None:
    """Write config.json and metadata.json beside converted weights, and prove from headers that they load.

    Args:
        directory: With the weights and the files that went along.
        release: What is declared.
        same: Names that are stored under others.

    Raises:
        FormatError: If params.json and the tensors contradict each other; all faults at once.
    """
    from wmtp.loaders.standardized import plan_load  # with transformers, which no other conversion needs

    store = open_store(directory)
    tensors = {tensor.name: tensor for tensor in read_tensors(store)}
    absent = _tied(same)
    sizes = _sizes(release, tensors, absent)
    unused = tuple(name for name in (_FREQUENCIES,) if name in tensors)
    _check_shapes(release, {name: each.shape for name, each in tensors.items() if name not in unused}, sizes, absent)
    tied, dtype = absent is not None, _dtype(tensors)
    write_json(directory / CONFIG_FILE, llama_config(release.params, **sizes, tied=tied, dtype=dtype))
    strategy = LoadingStrategy(
        loader_type="custom_mtp",
        model_class_name="MTPForCausalLM",
        state_dict_mapping=mapping(release.params, absent=absent, unused=unused),
        required_files=[*small_files(store), PARAMS_FILE, weights_name(store)],
    )
    write_metadata(directory, _metadata(store, release, strategy, dtype))
    plan_load(directory, cache=False)  # or raises what is wrong with it


def _metadata(store: Store, release: MetaRelease, strategy: LoadingStrategy, dtype: str) -> ModelMetadata:
    from wmtp.authoring.init import fitting_algorithms

    return ModelMetadata(
        wmtp_type="base_model",
        training_algorithm="mtp",
        base_architecture="llama",
        storage_version="2.0",
        loading_strategy=strategy,
        algorithm_compatibility=fitting_algorithms("base_model"),
        mtp=MTPInfo(n_future_tokens=release.params.n_future_tokens, head_type="transformer"),
        tokenizer=tokenizer_fingerprint(store),
        created_by=f"wmtp {__version__}",
        dtype=dtype,
    )


def _tied(same: Mapping[str, str]) -> str | None:
    """The one of embedding and unembedding that is stored under the other's name."""
    return next((name for name, first in same.items() if {name, first} == {EMBEDDING, UNEMBEDDING}), None)


def _sizes(release: MetaRelease, tensors: Mapping[str, TensorInfo], absent: str | None) -> dict[str, int]:
    """Return what the tensors themselves tell: `width` of feed-forward layers, and `vocab_size`."""
    embedding = UNEMBEDDING if absent == EMBEDDING else EMBEDDING
    rows = {}
    for size, name in (("vocab_size", embedding), ("width", _WIDTH_OF)):
        if name not in tensors or len(tensors[name].shape) != 2:
            raise FormatError(f"{release.weights_file}: has no matrix {show(name)}", hint=_FETCH_AGAIN)
        rows[size] = tensors[name].shape[0]
    said, found = release.params, tensors[embedding].shape
    faults = [f"dim is {said.dim}, and {show(embedding)} has {found[1]} columns"] if said.dim != found[1] else []
    if said.vocab_size not in (-1, 0, found[0]):
        faults.append(f"vocab_size is {said.vocab_size}, and {show(embedding)} has {found[0]} rows")
    faults += _count_faults(said, tensors)
    if faults:
        first, *others = [f"{release.params_file}: {fault}" for fault in faults]
        raise FormatError(first, hint=_FETCH_AGAIN, faults=others)
    return rows


def _count_faults(said: MetaParams, tensors: Mapping[str, TensorInfo]) -> list[str]:
    numbered = {match.groups() for match in map(_LAYER.match, tensors) if match}
    found = Counter(kind for kind, _ in numbered)
    wanted = Counter(layers=said.num_trunk_layers, extra_heads=said.n_future_tokens - 1)
    if found == wanted:
        return []
    made, stored = (f"layers: {each['layers']}, extra_heads: {each['extra_heads']}" for each in (wanted, found))
    counts = f"n_layers is {said.n_layers} and n_future_tokens is {said.n_future_tokens}"
    return [f"{counts}: {made}; the weights have {stored}"]


def _check_shapes(
    release: MetaRelease, found: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], absent: str | None
) -> None:
    expected = stored_shapes(release.params, **sizes)
    faults = [f"missing: {show(name)}" for name in expected if name not in found and name != absent]
    faults += [f"unexpected: {show(name)}" for name in found if name not in expected]
    faults += [
        f"{show(name)} has the shape {list(shape)}, and {PARAMS_FILE} makes it {list(expected[name])}"
        for name, shape in found.items()
        if shape != expected.get(name, shape)
    ]
    if faults:
        raise FormatError(
            f"{release.weights_file}: {len(faults):,} tensors are not those that {release.params_file} declares",
            hint=_FETCH_AGAIN,
            faults=first_few(faults),
        )


def _dtype(tensors: Mapping[str, TensorInfo]) -> str:
    from wmtp.load_plan.parameters import TORCH_DTYPES

    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[tensor.dtype] += tensor.num_elements
    return str(TORCH_DTYPES[counts.most_common(1)[0][0]]).removeprefix("torch.")
