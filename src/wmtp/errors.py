"""Every error that wmtp raises on purpose.

    WmtpError
    ├── URIError(ValueError)              an address that cannot be read
    ├── StorageError(OSError)             bytes that cannot be had
    │   ├── NotFoundError(FileNotFoundError)
    │   └── ChangedError                  a file is not the version that was read before
    ├── MetadataError(ValueError)         metadata.json is malformed or untrue
    ├── SettingsError(ValueError)         config.yaml or recipe.yaml
    ├── CheckpointError(ValueError)       the files of a checkpoint
    │   ├── FormatError                   a file is not what its name says
    │   ├── PlanError                     tensors and model do not fit each other
    │   └── IntegrityError                bytes differ from their digest
    │       └── ArrivalError              ... and they have only just been fetched
    ├── TrustError(PermissionError)       code that the operator has not agreed to, or that misbehaved
    ├── UnknownNameError(LookupError)     a name that no registry knows
    ├── IncompatibleModelError(ValueError)  no model fits the recipe
    ├── DataError(ValueError)             training data
    ├── TrainingError(RuntimeError)       training cannot start or go on
    ├── GenerationError(ValueError)       text cannot be generated as asked
    ├── MissingPackageError(ImportError)  a package that an extra of wmtp brings
    └── InternalError                     a fault of wmtp itself

`str(error)` is what a person reads: the problem, one indented line for each further fault, then the next step.
`error.code` is what `wmtp explain` tells more about.
"""

from __future__ import annotations

from collections.abc import Sequence


class WmtpError(Exception):
    """Base of all errors; catch this to catch everything wmtp refuses.

    Attributes:
        problem: What is wrong and where: the file, the field, what was found.
        hint: The next step for the person who reads it.
        faults: Further faults of the same kind, all found at once.
    """

    def __init__(self, problem: str, hint: str, faults: Sequence[str] = ()) -> None:
        super().__init__(problem, hint, tuple(faults))
        self.problem = problem
        self.hint = hint
        self.faults = tuple(faults)

    @property
    def code(self) -> str:
        """The name under which it is explained: that of its class, or of the nearest one in this module."""
        return next(cls.__name__ for cls in type(self).__mro__ if cls.__module__ == __name__)

    def __str__(self) -> str:
        return "\n".join([self.problem, *(f"  {fault}" for fault in self.faults), f"hint: {self.hint}"])

    def __reduce__(self) -> tuple[type[WmtpError], tuple[str, str, tuple[str, ...]]]:
        # OSError's own __reduce__ would drop what it does not know.
        return type(self), (self.problem, self.hint, self.faults)


class URIError(WmtpError, ValueError):
    """An address that cannot be read."""


class StorageError(WmtpError, OSError):
    """Bytes that cannot be had from where they are."""


class NotFoundError(StorageError, FileNotFoundError):
    """Nothing stands at that address."""


class ChangedError(StorageError):
    """A file of a checkpoint is no longer the version of which other parts were read."""


class MetadataError(WmtpError, ValueError):
    """A metadata.json that is malformed, or that states what is not so."""


class SettingsError(WmtpError, ValueError):
    """A config.yaml or recipe.yaml that cannot be used."""


class CheckpointError(WmtpError, ValueError):
    """The files of a checkpoint cannot be used."""


class FormatError(CheckpointError):
    """A file is not what its name says."""


class PlanError(CheckpointError):
    """The tensors of a checkpoint and the parameters of its model do not fit each other."""


class IntegrityError(CheckpointError):
    """Bytes differ from the digest recorded for them."""


class ArrivalError(IntegrityError):
    """Bytes were fetched and differ from the digest recorded for them; the next try may get the right ones."""


class TrustError(WmtpError, PermissionError):
    """Code that the operator has not agreed to run, or that broke its promises when run."""


class UnknownNameError(WmtpError, LookupError):
    """A name that the registry does not know."""


class IncompatibleModelError(WmtpError, ValueError):
    """No model fits what was asked for."""


class DataError(WmtpError, ValueError):
    """Training data that cannot be used."""


class TrainingError(WmtpError, RuntimeError):
    """Training cannot start, or cannot go on."""


class GenerationError(WmtpError, ValueError):
    """Text cannot be generated as it was asked for."""


class MissingPackageError(WmtpError, ImportError):
    """A package is not installed that an extra of wmtp brings."""


class InternalError(WmtpError):
    """Something that wmtp did not expect: a fault of its own."""
