"""Strategy `custom_mtp`: a registered built-in class, or a class in the checkpoint's own Python file."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import TrustError, UnknownNameError
from wmtp.loaders.configuration import model_config
from wmtp.loaders.construction import Blueprint
from wmtp.registry import model_classes
from wmtp.settings.loading import LoadOptions
from wmtp.trust.guards import broken_promise
from wmtp.trust.running import ConsentedModule, run_module
from wmtp.untrusted import did_you_mean, show, show_all


class CustomMTPStrategy:
    """Calls the declared class as `cls(config)`."""

    def blueprint(self, checkpoint: Checkpoint, options: LoadOptions, dtype: torch.dtype) -> Blueprint:
        """Return how to build the declared class; runs the checkpoint's code if the operator agreed to it.

        Raises:
            TrustError: Without consent, or when the file does not define the class.
            UnknownNameError: When there is no such file and no built-in class has that name.
        """
        declared = checkpoint.metadata.loading_strategy
        config = model_config(checkpoint, dtype)
        config.declared_mtp = checkpoint.metadata.mtp and checkpoint.metadata.mtp.model_dump(exclude_none=True)
        name = str(declared.model_class_name)
        if declared.custom_module_file is None:
            model_class = _built_in_class(checkpoint, name)
            where = f"{checkpoint.where}/config.json"
            return Blueprint(lambda: model_class(config), where, True, guard=checkpoint.construction_errors)
        ran = run_module(checkpoint.store, declared.custom_module_file, options.allow_code or {})
        where = checkpoint.store.where(declared.custom_module_file)
        with broken_promise(where):  # looking at what the code left behind can run more of it
            own_class = _own_class(checkpoint, ran, name, where)
        return Blueprint(lambda: own_class(config), where, True, ran.code, guard=broken_promise)


def _built_in_class(checkpoint: Checkpoint, name: str) -> Callable[..., nn.Module]:
    try:
        return model_classes.get(name)
    except UnknownNameError as error:
        raise UnknownNameError(
            f"{checkpoint.where}/metadata.json: loading_strategy.model_class_name is {show(name)}, which is no built-in"
            " class, and loading_strategy.custom_module_file is null",
            hint=f"name the file that defines it in custom_module_file, or {error.hint}",
        ) from error


def _own_class(checkpoint: Checkpoint, ran: ConsentedModule, name: str, where: str) -> type[nn.Module]:
    module = ran.module
    defined = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and issubclass(value, nn.Module)
    }
    if name not in defined:
        raise TrustError(
            f"{checkpoint.where}/metadata.json: loading_strategy.model_class_name is {show(name)},"
            f" but {where} defines no such torch.nn.Module",
            hint=f"it defines: {', '.join(show_all(sorted(defined))) or 'none'}{did_you_mean(name, defined)}",
        )
    return defined[name]
