"""The family of errors: what each may be caught as, and that it survives a process boundary."""

import copy
import inspect
import pickle

import pytest

from wmtp import errors

BUILT_IN = {
    "WmtpError": Exception,
    "URIError": ValueError,
    "StorageError": OSError,
    "NotFoundError": FileNotFoundError,
    "ChangedError": OSError,
    "MetadataError": ValueError,
    "SettingsError": ValueError,
    "CheckpointError": ValueError,
    "FormatError": ValueError,
    "PlanError": ValueError,
    "IntegrityError": ValueError,
    "ArrivalError": ValueError,
    "TrustError": PermissionError,
    "UnknownNameError": LookupError,
    "IncompatibleModelError": ValueError,
    "DataError": ValueError,
    "TrainingError": RuntimeError,
    "GenerationError": ValueError,
    "MissingPackageError": ImportError,
    "InternalError": Exception,
}
CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


def test_the_family_is_complete_and_drawn_in_the_docstring():
    assert {cls.__name__ for cls in CLASSES} == set(BUILT_IN)
    assert errors.__doc__ is not None
    assert all(cls.__name__ in errors.__doc__ for cls in CLASSES)


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_is_ours_and_its_built_in(error_class):
    assert issubclass(error_class, errors.WmtpError)
    assert issubclass(error_class, BUILT_IN[error_class.__name__])


@pytest.mark.parametrize("error_class", CLASSES)
@pytest.mark.parametrize("clone", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_every_error_survives_pickling_and_copying_whole(error_class, clone):
    error = error_class("the problem", hint="the hint", faults=["one", "two"])
    twin = clone(error)
    assert type(twin) is error_class
    assert (twin.problem, twin.hint, twin.faults) == ("the problem", "the hint", ("one", "two"))
    assert str(twin) == str(error) == "the problem\n  one\n  two\nhint: the hint"
