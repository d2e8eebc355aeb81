import pytest
import torch

from wmtp.devices import check_device, chosen_device, machine_faults, setting_faults, training_device, training_dtype
from wmtp.errors import CheckpointError, TrainingError
from wmtp.settings.config import Devices

HAS_CUDA = torch.cuda.is_available()


def test_auto_is_cuda_where_there_is_any_and_a_device_that_is_named_stays_as_it_is():
    assert chosen_device("auto") == ("cuda" if HAS_CUDA else "cpu")
    assert chosen_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta"])
def test_a_device_that_torch_has_passes(device):
    check_device(device)


def test_what_is_no_device_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"^device is 'gpu'") as refusal:
        check_device("gpu")
    assert refusal.value.hint == "use cpu, cuda, cuda:0 or mps"


def test_a_cuda_device_beyond_those_that_are_there_is_refused():
    number = torch.cuda.device_count()
    said = f"torch finds {number} here, numbered from 0" if HAS_CUDA else "finds none here"
    with pytest.raises(CheckpointError, match=f"^device is 'cuda:{number}', and .*{said}"):
        check_device(f"cuda:{number}")


@pytest.mark.parametrize(
    ("devices", "said", "hint"),
    [
        ({"device": "cuda:1"}, "devices.device is 'cuda:1'", "CUDA_VISIBLE_DEVICES=1"),
        ({"dtype": "float16"}, "devices.dtype is 'float16', whose gradients underflow", "bfloat16 or float32"),
    ],
)
def test_settings_that_no_machine_trains_with_are_faults_everywhere(devices, said, hint):
    (fault,) = setting_faults(Devices(**devices))
    assert str(fault).startswith(said)
    assert hint in fault.hint


def test_off_cuda_auto_trains_in_float32_and_what_is_asked_for_is_kept():
    assert training_dtype(Devices(device="cpu")) == "float32"
    assert training_dtype(Devices(device="cpu", dtype="bfloat16")) == "bfloat16"
    assert training_device(Devices(device="cpu")) == "cpu"
    assert machine_faults(Devices(device="cpu", dtype="bfloat16")) == []


@pytest.mark.skipif(HAS_CUDA, reason="needs a machine without CUDA")
def test_cuda_that_is_not_there_is_a_fault_of_the_machine_with_a_way_out():
    (fault,) = machine_faults(Devices(device="cuda"))
    assert "devices.device is 'cuda', and torch finds none" in str(fault)
    assert fault.hint == "set devices.device: cpu"
    with pytest.raises(TrainingError, match="torch finds none"):
        training_device(Devices(device="cuda"))
