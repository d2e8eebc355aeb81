import json

from checkpoints import metadata_document
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.plan import Assignment, LoadPlan
from wmtp.load_plan.receipt import LoadReceipt
from wmtp.metadata.schema import ModelMetadata

DIGEST = "sha256:" + "0" * 64


def receipt(*assignments, **plan):
    metadata = ModelMetadata.model_validate_json(json.dumps(metadata_document()))
    made = LoadPlan("models/a", metadata, "Model", assignments, **plan)
    return LoadReceipt.of_plan(made, device="cpu", code={"modeling.py": DIGEST}, verified={})


def assignment(*names, tensor, stored="BF16", loaded="BF16", repeats=False):
    info = TensorInfo(tensor, stored, (2,), "model.safetensors", 8, 12)
    return Assignment(names, info, loaded, ("remove_prefix 'm.'",), repeats)


def test_a_receipt_names_for_each_parameter_where_its_values_came_from():
    (parameter,) = receipt(assignment("w", tensor="m.w", loaded="F32")).parameters
    assert (parameter.name, parameter.tensor, parameter.file) == ("w", "m.w", "model.safetensors")
    assert (parameter.stored_dtype, parameter.loaded_dtype) == ("BF16", "F32")
    assert parameter.rules == ("remove_prefix 'm.'",)
    assert parameter.tied == ()


def test_a_tied_parameter_stands_once_with_the_tie_that_filled_it():
    names = ("embed", "head")
    made = receipt(assignment(*names, tensor="embed"), assignment(*names, tensor="head", repeats=True))
    assert [(parameter.name, parameter.tied) for parameter in made.parameters] == [("embed", ("head",))]
    assert made.num_bytes == 4
    assert "head tied to embed" in made.summary()


def test_the_summary_says_what_was_cast_kept_left_and_run():
    made = receipt(
        assignment("w", tensor="w", loaded="F32"),
        assignment("v", tensor="v"),
        kept_initial=("new",),
        left_unused=("old\u00e9",),
        notes=("a note",),
    )
    assert made.summary() == [
        "Model on cpu: 2 tensors, 8 bytes",
        "stored as BF16 (2)",
        "cast from BF16 to F32: 1 tensor",
        "no tensor, initial values kept: new",
        "tensor left unused: old\\xe9",
        f"ran modeling.py ({DIGEST})",
        "unverified, as no lock pins them: model.safetensors",
        "a note",
    ]


def test_a_receipt_without_tensors_can_be_shown():
    assert receipt().summary() == ["Model on cpu: 0 tensors, 0 bytes", f"ran modeling.py ({DIGEST})"]


def test_a_receipt_is_written_as_json_with_every_field():
    document = json.loads(receipt(assignment("w", tensor="m.w"), kept_initial=("new",)).to_json())
    assert document["parameters"] == [
        {
            "name": "w",
            "tensor": "m.w",
            "file": "model.safetensors",
            "stored_dtype": "BF16",
            "loaded_dtype": "BF16",
            "rules": ["remove_prefix 'm.'"],
            "tied": [],
            "made_of": [],
        }
    ]
    assert document["code"] == {"modeling.py": DIGEST}
    assert (document["uri"], document["device"], document["kept_initial"]) == ("models/a", "cpu", ["new"])
