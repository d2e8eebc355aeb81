"""The class that metadata.json names, through the whole of `wmtp.load_model`."""

import pytest
from safetensors.torch import load_file, save_file

import wmtp
from checkpoints import MODELING, write_custom
from code_files import write_code
from wmtp.errors import MetadataError, PlanError, TrustError


def load(directory, consent):
    return wmtp.load_model(directory, allow_code=consent)


@pytest.mark.parametrize(
    "name", ["ToyModul", "helper_function", "CONSTANT", "nn", "Module", "math", "Imported", "NotAModule"]
)
def test_a_name_that_is_no_module_class_of_the_file_is_refused(tmp_path, name):
    modeling = MODELING + "\nclass NotAModule:\n    pass\n\n\nImported = nn.Linear\n"
    consent, _ = write_custom(tmp_path / "toy", modeling=modeling, model_class_name=name)
    with pytest.raises(TrustError) as caught:
        load(tmp_path / "toy", consent)
    assert f"toy/metadata.json: loading_strategy.model_class_name is '{name}'" in caught.value.problem
    assert "it defines: 'ToyModel'" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["__class__", "__init__", "nn.Linear", "ToyModel.forward", "ToyModel()", "", "Toy\u200b"]
)
def test_a_dunder_or_dotted_name_is_refused_before_any_code_is_looked_at(tmp_path, name):
    consent, _ = write_custom(tmp_path / "toy", model_class_name=name)
    (tmp_path / "toy" / "modeling.py").unlink()
    with pytest.raises(MetadataError, match=r"model_class_name is '.*', which is not the plain name of a class"):
        load(tmp_path / "toy", consent)


@pytest.mark.parametrize(
    "place", ["# in __init__", "hidden = self.embedding"], ids=["constructing the class", "nothing but running it"]
)
def test_what_the_class_does_when_built_is_guarded_and_what_it_does_later_is_its_own(tmp_path, place):
    modeling = MODELING.replace(place, "raise SystemExit(3)  #")
    write_custom(tmp_path / "toy")
    consent = write_code(tmp_path / "toy", modeling)
    if place == "# in __init__":
        with pytest.raises(TrustError, match=r"modeling\.py: the code raised SystemExit: '3'"):
            load(tmp_path / "toy", consent)
    else:
        with pytest.raises(SystemExit):
            load(tmp_path / "toy", consent)(None)


def test_a_class_that_hides_its_submodules_is_filled_all_the_same(tmp_path):
    hiding = MODELING + "\n    def named_modules(self, *args, **kwargs):\n        yield '', self\n"
    write_custom(tmp_path / "toy")
    consent = write_code(tmp_path / "toy", hiding)
    assert not load(tmp_path / "toy", consent).embedding.weight.is_meta
    tensors = load_file(tmp_path / "toy" / "model.safetensors")
    del tensors["embedding.weight"]
    save_file(tensors, tmp_path / "toy" / "model.safetensors")
    with pytest.raises(PlanError) as caught:
        load(tmp_path / "toy", consent)
    assert caught.value.faults == ("missing: no tensor for embedding.weight in model.safetensors",)


def test_a_namespace_made_to_trip_the_reader_is_refused_by_our_error(tmp_path):
    tripping = (
        "\n\nclass Meta(type):\n    def __getattribute__(cls, name): raise SystemExit(5)\n\n"
        "class Trap(nn.Module, metaclass=Meta):\n    pass\n\n\nglobals()[1] = ToyModel\n"
    )
    write_custom(tmp_path / "toy", model_class_name="Absent")
    with pytest.raises(TrustError, match=r"modeling\.py: the code raised "):
        load(tmp_path / "toy", write_code(tmp_path / "toy", MODELING + tripping))


def test_loading_with_consent_leaves_the_directory_byte_identical(tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    before = {path: path.read_bytes() for path in (tmp_path / "toy").rglob("*")}
    load(tmp_path / "toy", consent)
    with pytest.raises(TrustError):
        load(tmp_path / "toy", {})
    assert {path: path.read_bytes() for path in (tmp_path / "toy").rglob("*")} == before
