import errno

import pytest

from wmtp.errors import IncompatibleModelError, NotFoundError, StorageError, TrustError, WmtpError


def test_an_error_reads_as_problem_then_faults_then_hint():
    error = IncompatibleModelError("No compatible model found for x", hint="add one", faults=["a: why", "b: why"])
    assert str(error) == "No compatible model found for x\n  a: why\n  b: why\nhint: add one"


def test_an_error_without_further_faults_is_two_lines():
    assert str(WmtpError("it broke", hint="mend it")) == "it broke\nhint: mend it"


def test_a_hint_is_required():
    with pytest.raises(TypeError, match="hint"):
        WmtpError("it broke")


def test_a_missing_file_can_be_caught_as_the_built_in():
    with pytest.raises(FileNotFoundError) as caught:
        raise NotFoundError("there is nothing", hint="look elsewhere")
    assert isinstance(caught.value, StorageError)


@pytest.mark.parametrize("error_class", [StorageError, NotFoundError, TrustError])
def test_errors_of_the_os_family_keep_their_text_although_oserror_takes_two_arguments(error_class):
    error = error_class("the problem", hint="the hint", faults=["one"])
    assert (error.problem, error.hint, error.faults) == ("the problem", "the hint", ("one",))
    assert error.errno not in errno.errorcode
