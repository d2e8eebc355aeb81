import pytest

from wmtp.errors import CheckpointError
from wmtp.serving.check import check_serving
from wmtp.serving.table import PROGRAMS


@pytest.fixture
def verdict():
    """What a program would do with a checkpoint."""
    return lambda directory, program="vllm": check_serving(directory, PROGRAMS[program])[1]


@pytest.fixture
def refusal(verdict):
    """All that stands in the way of a program, as it is printed."""

    def refused(directory, program="vllm"):
        with pytest.raises(CheckpointError) as caught:
            verdict(directory, program)
        return str(caught.value)

    return refused
