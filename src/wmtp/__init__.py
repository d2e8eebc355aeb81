"""Checkpoints that declare how they load, proven before a weight is read; weighted multi-token prediction on top.

`import wmtp` imports no torch: public names are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "load_metadata": "wmtp.metadata.file",
    "ModelMetadata": "wmtp.metadata.schema",
    "parse_uri": "wmtp.storage.uri",
    "ModelURI": "wmtp.storage.uri",
    "load_model": "wmtp.loaders.standardized",
    "load": "wmtp.loaders.standardized",
    "plan_load": "wmtp.loaders.standardized",
    "StandardizedModelLoader": "wmtp.loaders.standardized",
    "LoadResult": "wmtp.loaders.base",
    "LoadPlan": "wmtp.load_plan.plan",
    "LoadReceipt": "wmtp.load_plan.receipt",
    "loader_registry": "wmtp.registry",
    "loading_strategies": "wmtp.registry",
    "model_classes": "wmtp.registry",
    "Registry": "wmtp.registry",
    "ComponentFactory": "wmtp.factory",
    "create_model_loader": "wmtp.factory",
    "resolve_models": "wmtp.factory",
    "Resolution": "wmtp.factory",
    "load_config": "wmtp.settings.config",
    "load_recipe": "wmtp.settings.recipe",
    "Config": "wmtp.settings.config",
    "Recipe": "wmtp.settings.recipe",
    "generate": "wmtp.generation.generate",
    "Generation": "wmtp.generation.result",
    "train": "wmtp.training.run",
    "TrainResult": "wmtp.training.run",
    "evaluate": "wmtp.evaluation.texts",
    "Evaluation": "wmtp.evaluation.results",
    "export": "wmtp.publishing.exports.targets",
    "WmtpError": "wmtp.errors",
}

__all__ = sorted([*_PUBLIC, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'wmtp' has no attribute {name!r}")
    try:
        return getattr(import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        from wmtp.extras import refuse_missing

        refuse_missing(error)
        raise


def __dir__() -> list[str]:
    return __all__
