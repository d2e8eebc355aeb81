"""What other people's code imports from `wmtp`."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import wmtp

# A name leaves this list only with a major version.
PUBLIC = {
    "ComponentFactory",
    "Config",
    "Evaluation",
    "Generation",
    "LoadPlan",
    "LoadReceipt",
    "LoadResult",
    "ModelMetadata",
    "ModelURI",
    "Recipe",
    "Registry",
    "Resolution",
    "StandardizedModelLoader",
    "TrainResult",
    "WmtpError",
    "__version__",
    "create_model_loader",
    "evaluate",
    "export",
    "generate",
    "load",
    "load_config",
    "load_metadata",
    "load_model",
    "load_recipe",
    "loader_registry",
    "loading_strategies",
    "model_classes",
    "parse_uri",
    "plan_load",
    "resolve_models",
    "train",
}
FIXTURES = Path(__file__).parent / "metadata"
WITHOUT_TORCH = """
import sys
import wmtp
import wmtp.registry
wmtp.load_metadata(sys.argv[1])
wmtp.parse_uri("s3://bucket/key")
for registry in (wmtp.loader_registry, wmtp.loading_strategies, wmtp.model_classes, wmtp.registry.algorithms):
    assert registry.names()
loaded = {"torch", "transformers", "safetensors", "numpy"} & set(sys.modules)
assert not loaded, loaded
"""


def test_the_exported_names_are_those_that_were_promised():
    assert set(wmtp.__all__) == PUBLIC
    assert dir(wmtp) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_exported_name_resolves_and_is_documented(name):
    component = getattr(wmtp, name)
    assert inspect.getdoc(component)


def test_no_exported_name_is_also_a_room():
    # Importing the room would put the module in the name's place.
    rooms = {path.stem for path in Path(wmtp.__file__).parent.iterdir()}
    assert not PUBLIC & rooms


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'wmtp' has no attribute 'load_modle'"):
        wmtp.load_modle  # noqa: B018


def test_reading_metadata_and_names_imports_no_torch(tmp_path):
    (tmp_path / "metadata.json").write_bytes((FIXTURES / "2.0/custom_module.json").read_bytes())
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
