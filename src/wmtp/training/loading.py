"""Loading the model of a run: whole, or of one in shards what this process keeps; and what each process has read."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

from wmtp.devices import DType
from wmtp.factory import create_model_loader
from wmtp.load_plan.filling import assign_tensors
from wmtp.load_plan.parameters import parameter_slots
from wmtp.load_plan.receipt import RankShare
from wmtp.load_plan.share import Share
from wmtp.loaders.base import LoadResult, execute, prepare
from wmtp.models.mtp import MTPForCausalLM
from wmtp.settings.config import Config, Devices
from wmtp.settings.loading import LoadOptions
from wmtp.storage.snapshot import retried_if_changed
from wmtp.training.processes import sum_over_processes
from wmtp.training.sharding import ShardReport


class ModelReader:
    """Loads the model to train, and the same from a checkpoint of the run.

    Args:
        config: As of the run.
        dtype: In which it is loaded, where it is loaded whole; in shards it stays pages of its files, as stored.
        share: What this process keeps of a model in shards; None: it is loaded whole.
    """

    def __init__(self, config: Config, dtype: DType, share: Share | None) -> None:
        devices = Devices(device="cpu", dtype="auto" if share else dtype)
        self._config, self._share = config.model_copy(update={"devices": devices}), share

    @property
    def is_sharded(self) -> bool:
        """Whether this process keeps a share alone."""
        return self._share is not None

    def load(self, uri: str | Path) -> LoadResult:
        """Load a model on the CPU; of one in shards, rows of other processes may be zero until it is cut.

        A class that has to be run before it is cut, to learn its shape, is read whole.
        """
        if self._share is None:
            loaded: LoadResult = create_model_loader(self._config).load(uri)
            return loaded
        loaded = self._in_part(uri, self._share)
        if isinstance(loaded.model, MTPForCausalLM):
            return loaded
        self._share.reads_all = True
        return self._in_part(uri, self._share)

    def read_by_now(self, loaded: LoadResult) -> int:
        """Return the bytes of stored tensors that this process has read once its rows of a model are cut."""
        assert self._share is not None
        filled = {name for each in loaded.receipt.parameters for name in (each.name, *each.tied)}
        slots = {name: slot.tensor for name, slot in parameter_slots(loaded.model)}
        in_pages = {slots[name] for name in filled - self._share.in_memory}
        return self._share.num_bytes + sum(self._bytes_of_rows(tensor, self._share) for tensor in in_pages)

    def _in_part(self, uri: str | Path, share: Share) -> LoadResult:
        share.in_memory.clear()  # of what was loaded before, in whose place this comes
        assign, config = partial(assign_tensors, share=share), self._config
        options = LoadOptions(allow_code=config.trust.allow_code, cache_dir=config.paths.cache_dir)
        return retried_if_changed(lambda: execute(prepare(uri, options), assign))

    @staticmethod
    def _bytes_of_rows(tensor: torch.Tensor, share: Share) -> int:
        if not isinstance(tensor, nn.Parameter) or not len(tensor):
            return tensor.nbytes  # buffers are on every process
        return len(share.rows(len(tensor))) * (tensor.nbytes // len(tensor))


def shares_of_all(kept: ShardReport, read_bytes: int, device: torch.device) -> tuple[RankShare, ...]:
    """Return what every process of a run has read and keeps, on all of them.

    Args:
        kept: What this one keeps.
        read_bytes: What it has read.
        device: Through which processes talk.
    """
    table = torch.zeros(kept.world_size, 3, dtype=torch.int64)
    table[kept.rank] = torch.tensor([read_bytes, kept.kept_bytes, kept.replicated_bytes])
    return tuple(RankShare(rank, *row) for rank, row in enumerate(sum_over_processes(table, device).tolist()))
