"""The public way in: from an address to a model, a result with its receipt, or only the plan."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from typing_extensions import Unpack

from wmtp.devices import chosen_device
from wmtp.errors import SettingsError
from wmtp.load_plan.plan import LoadPlan
from wmtp.loaders.base import LoadResult, execute, prepare
from wmtp.settings.config import Config
from wmtp.settings.loading import LoadKeywords, LoadOptions
from wmtp.storage.snapshot import retried_if_changed
from wmtp.storage.uri import ModelURI

URI = str | Path | ModelURI


def load_model(uri: URI, **options: Unpack[LoadKeywords]) -> nn.Module:
    """Load the checkpoint at an address; returns the model in eval mode.

    Args:
        uri: `/path`, `./path`, `file:///path`, `s3://bucket/key`, `gs://…`, `az://…` or `hf://org/name@revision`.
        **options: As in `LoadOptions`: dtype, device, algorithm, allow_code, lock, mmap and the others.

    Raises:
        WmtpError: If the checkpoint is not exactly what it declares; nothing is guessed and nothing left random.
    """
    return load(uri, **options).model


def load(uri: URI, **options: Unpack[LoadKeywords]) -> LoadResult:
    """Load the checkpoint at an address; returns model, metadata, receipt and (on first use) tokenizer.

    Takes and raises what `load_model` does.
    """
    given = LoadOptions(**options)
    return retried_if_changed(lambda: execute(prepare(uri, given)))


def plan_load(uri: URI, **options: Unpack[LoadKeywords]) -> LoadPlan:
    """Return what loading would do, without reading a weight; takes and raises what `load_model` does."""
    given = LoadOptions(**options)
    return retried_if_changed(lambda: prepare(uri, given).plan)


class StandardizedModelLoader:
    """Loads models as a configuration says: its device, dtype and consent are the defaults of every load.

    Args:
        config: Where models live and how they are loaded; None: nothing but the options.
        **options: Override the configuration; see `LoadOptions`.
    """

    def __init__(self, config: Config | None = None, **options: Unpack[LoadKeywords]) -> None:
        self._candidates = config.paths.models.base if config else []
        self._options: LoadKeywords = {**(_configured(config) if config else {}), **options}

    def load_model(self, uri: URI | None = None) -> nn.Module:
        """Load one model; without an address the only base model that is configured."""
        return self.load(uri).model

    def load(self, uri: URI | None = None) -> LoadResult:
        """Load one model with its receipt; without an address the only base model that is configured.

        Raises:
            SettingsError: If no address is given and the configuration does not name exactly one base model.
        """
        if uri is None and len(self._candidates) != 1:
            raise SettingsError(
                f"paths.models.base names {len(self._candidates)} models, and no address was given",
                hint="pass an address, or let a recipe pick one: create_model_loader(config, recipe)",
            )
        return load(self._candidates[0] if uri is None else uri, **self._options)


def _configured(config: Config) -> LoadKeywords:
    return {
        "device": chosen_device(config.devices.device),
        "dtype": config.devices.dtype,
        "allow_code": config.trust.allow_code,
        "cache_dir": config.paths.cache_dir,
    }
