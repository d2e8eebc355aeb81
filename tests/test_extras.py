import pytest

from wmtp.errors import MissingPackageError
from wmtp.extras import install_hint, is_installed, refuse_missing, require_package
from wmtp.registry import Registry


def missing(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_package_that_an_extra_brings_is_named_with_the_command_that_brings_it():
    with pytest.raises(MissingPackageError) as caught:
        refuse_missing(missing("botocore"))
    assert caught.value.problem == "this needs the package 'botocore', which is not installed"
    assert caught.value.hint == "install it (python -m pip install 'wmtp[s3]')"


@pytest.mark.parametrize(
    "error", [missing("torch.nothing"), missing("unheard_of"), ImportError("no name"), KeyError("torch")]
)
def test_what_no_extra_would_mend_is_left_to_whoever_caught_it(error):
    assert refuse_missing(error) is None


def test_a_directory_that_has_the_name_of_a_package_is_none(tmp_path, monkeypatch):
    (tmp_path / "wandb_of_a_run").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("wandb_of_a_run")
    assert is_installed("torch")


def test_a_package_that_is_there_is_not_asked_for():
    assert require_package("torch") is None
    assert install_hint("lora") == "install it (python -m pip install 'wmtp[lora]')"


def test_a_component_that_needs_an_extra_is_not_called_broken(tmp_path, monkeypatch):
    (tmp_path / "plugin_without_its_extra.py").write_text("raise ModuleNotFoundError('none', name='accelerate')")
    monkeypatch.syspath_prepend(tmp_path)
    from importlib.metadata import EntryPoint

    point = EntryPoint("its name", "plugin_without_its_extra:Thing", "wmtp.tests.nothing")
    registry = Registry("loading strategy", "wmtp.tests.nothing")
    registry._entry_points = {point.name: point}
    with pytest.raises(MissingPackageError, match=r"wmtp\[train\]"):
        registry.get("its name")
