import json

import pytest

from checkpoints import metadata_document, write_files
from tensor_files import tensors_as_bytes
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.errors import PlanError
from wmtp.load_plan.matching import make_plan
from wmtp.load_plan.plan import ParameterSpec

F32 = ("F32", [2])


def spec(*names, shape=(2,), dtype="F32"):
    return ParameterSpec(names, shape, dtype)


def plan(directory, tensors, specs, *, keep_stored_dtype=True, **mapping):
    write_files(directory, metadata=metadata_document({"state_dict_mapping": mapping}))
    (directory / "model.safetensors").write_bytes(tensors_as_bytes(tensors))
    checkpoint = open_checkpoint(directory)
    return make_plan(checkpoint, specs, model_class="Model", keep_stored_dtype=keep_stored_dtype, notes=["a note"])


def refusal(directory, tensors, specs, **mapping):
    with pytest.raises(PlanError) as caught:
        plan(directory, tensors, specs, **mapping)
    assert caught.value.problem.startswith(f"{directory}: the tensors do not fit Model: ")
    return caught.value


def test_every_parameter_gets_its_tensor_with_its_place_in_the_file(tmp_path):
    made = plan(tmp_path, {"m.a": F32, "m.b": ("F32", [])}, [spec("b", shape=()), spec("a")], remove_prefix="m.")
    assert [(a.names, a.source.name, a.rules) for a in made.assignments] == [
        (("b",), "m.b", ("remove_prefix 'm.'",)),
        (("a",), "m.a", ("remove_prefix 'm.'",)),
    ]
    assert (made.num_parameters, made.bytes_to_read, made.notes) == (3, 12, ("a note",))
    assert (made.uri, made.model_class) == (str(tmp_path), "Model")


def test_missing_unexpected_and_unfit_are_all_named_at_once(tmp_path):
    tensors = {"a": ("F32", [3]), "b": ("I32", [2]), "left": F32}
    error = refusal(tmp_path, tensors, [spec("a"), spec("b"), spec("c"), spec("d")])
    assert error.problem.endswith("2 missing, 1 unexpected, 2 unfit")
    assert error.faults == (
        "missing: no tensor for c in model.safetensors",
        "missing: no tensor for d in model.safetensors",
        "unexpected: no parameter for left in model.safetensors",
        "wrong shape: a is [3] in model.safetensors, the model has [2]",
        "wrong dtype: b is I32 in model.safetensors, the model has F32",
    )
    assert "'wmtp inspect --tensors' lists what they hold" in error.hint


def test_of_each_kind_twenty_are_named_and_the_rest_counted(tmp_path):
    tensors = {f"a{i:02}": ("F32", [3]) for i in range(22)} | {f"b{i:02}": F32 for i in range(23)}
    specs = [spec(f"a{i:02}") for i in range(22)] + [spec(f"c{i:02}") for i in range(24)]
    faults = refusal(tmp_path, tensors, specs).faults
    assert len(faults) == 63
    assert faults[19:22] == (
        "missing: no tensor for c19 in model.safetensors",
        "and 4 more",
        "unexpected: no parameter for b00 in model.safetensors",
    )
    assert faults[41:43] == ("and 3 more", "wrong shape: a00 is [3] in model.safetensors, the model has [2]")
    assert faults[62] == "and 2 more"


def test_names_of_tensors_are_shown_safely(tmp_path):
    error = refusal(tmp_path, {"w\u00e9'": F32}, [spec("w")])
    assert error.faults == (
        "missing: no tensor for w in model.safetensors",
        "unexpected: no parameter for w\\xe9' in model.safetensors",
    )


@pytest.mark.parametrize(
    ("stored", "wanted"), [("I64", "F32"), ("F32", "I64"), ("U8", "BOOL"), ("I32", "I64"), ("F32", "torch.complex64")]
)
def test_only_floating_types_may_differ(tmp_path, stored, wanted):
    error = refusal(tmp_path, {"w": (stored, [2])}, [spec("w", dtype=wanted)])
    assert error.faults == (f"wrong dtype: w is {stored} in model.safetensors, the model has {wanted}",)


@pytest.mark.parametrize(("keep", "loaded"), [(True, "BF16"), (False, "F32")])
def test_a_floating_tensor_keeps_its_dtype_or_takes_the_models(tmp_path, keep, loaded):
    made = plan(tmp_path, {"w": ("BF16", [2])}, [spec("w")], keep_stored_dtype=keep)
    assert made.assignments[0].dtype == loaded
    assert ("cast from BF16 to F32: 1 tensor" in made.summary()) is not keep


def test_shapes_must_be_equal_not_only_their_sizes(tmp_path):
    error = refusal(tmp_path, {"a": ("F32", [2, 1]), "b": ("F32", [])}, [spec("a"), spec("b", shape=(1,))])
    assert error.faults == (
        "wrong shape: a is [2, 1] in model.safetensors, the model has [2]",
        "wrong shape: b is [] in model.safetensors, the model has [1]",
    )


@pytest.mark.parametrize("stored", ["head", "embed"])
def test_a_tied_parameter_needs_one_tensor_under_any_of_its_names(tmp_path, stored):
    made = plan(tmp_path, {stored: F32}, [spec("embed", "head")])
    other = {"head": "embed", "embed": "head"}[stored]
    assert [a.names for a in made.assignments] == [(stored, other)]
    assert f"{other} tied to {stored}" in made.summary()
    assert made.num_parameters == 2


def test_a_tied_parameter_that_is_stored_twice_is_filled_once_and_compared_once(tmp_path):
    made = plan(tmp_path, {"head": ("BF16", [2]), "embed": F32}, [spec("embed", "head")])
    assert [(a.names, a.source.name, a.repeats) for a in made.assignments] == [
        (("embed", "head"), "embed", False),
        (("embed", "head"), "head", True),
    ]
    assert {a.dtype for a in made.assignments} == {"F32"}
    assert (made.num_parameters, made.bytes_to_read) == (2, 12)
    assert made.summary().count("head tied to embed") == 1
    assert "head repeats embed" in made.summary()


def test_a_tied_parameter_without_a_tensor_is_missing_under_its_first_name(tmp_path):
    assert refusal(tmp_path, {}, [spec("embed", "head")]).faults == (
        "missing: no tensor for embed in model.safetensors",
    )


def test_the_second_copy_of_a_tied_parameter_must_fit_as_well(tmp_path):
    error = refusal(tmp_path, {"embed": F32, "head": ("F32", [3])}, [spec("embed", "head")])
    assert error.faults == ("wrong shape: head is [3] in model.safetensors, the model has [2]",)


def test_what_the_metadata_lets_through_is_recorded_by_name(tmp_path):
    allowed = {"allow_missing": ["h.*.bias"], "allow_unexpected": ["old.?"]}
    specs = [spec("w"), spec("h.0.bias"), spec("h.1.bias")]
    made = plan(tmp_path, {"w": F32, "old.a": F32}, specs, **allowed)
    assert made.kept_initial == ("h.0.bias", "h.1.bias")
    assert made.left_unused == ("old.a",)
    assert "no tensor, initial values kept: h.1.bias" in made.summary()
    assert "tensor left unused: old.a" in made.summary()
    assert made.bytes_to_read == 8


def test_of_many_tensors_left_unused_a_person_is_told_the_beginnings(tmp_path):
    spare = [*(f"vision.tower.layers.{i}.weight" for i in range(1200)), "vision.tower.norm", "projector"]
    made = plan(tmp_path, dict.fromkeys(["w", *spare], F32), [spec("w")], allow_unexpected=["vision.*", "projector"])
    assert "1,202 tensors left unused: vision.tower.* (1,201), projector (1); --json names each" in made.summary()
    assert len(made.to_dict()["left_unused"]) == 1202


def test_globs_let_through_nothing_that_they_do_not_name(tmp_path):
    allowed = {"allow_missing": ["b?", "H"], "allow_unexpected": ["[xy]"]}
    error = refusal(tmp_path, {"x": F32, "z": F32}, [spec("b"), spec("b1"), spec("h")], **allowed)
    assert error.faults == (
        "missing: no tensor for b in model.safetensors",
        "missing: no tensor for h in model.safetensors",
        "unexpected: no parameter for z in model.safetensors",
    )


def test_a_name_that_rules_have_changed_is_told_with_the_rules(tmp_path):
    rules = {"remove_prefix": "m.", "key_transforms": {"b": "c"}}
    error = refusal(tmp_path, {"m.a": F32, "m.b": F32, "w": F32}, [spec("m.a"), spec("w")], **rules)
    unexpected = "unexpected: no parameter for {} in model.safetensors, which becomes {}, by remove_prefix 'm.'"
    assert error.faults == (
        "missing: no tensor for m.a in model.safetensors",
        unexpected.format("m.a", "a"),
        unexpected.format("m.b", "c") + ", key_transforms 'b'",
    )


def test_allowing_a_missing_tensor_does_not_let_a_wrong_shape_through(tmp_path):
    allowed = {"allow_missing": ["*"], "allow_unexpected": ["*"]}
    assert "wrong shape" in refusal(tmp_path, {"w": ("F32", [3])}, [spec("w")], **allowed).faults[0]


def test_the_refusal_prints_the_mapping_that_would_mend_it(tmp_path):
    tensors = {"model.a": F32, "model.h.0.w": F32, "lm_head": F32}
    error = refusal(tmp_path, tensors, [spec("a"), spec("h.0.w")])
    assert error.hint == (
        'if this class is meant, set in metadata.json, in loading_strategy: "state_dict_mapping": '
        '{"remove_prefix": "model.", "allow_unexpected": ["lm_head"]}'
    )
    mended = json.loads(error.hint.partition('"state_dict_mapping": ')[2])
    assert plan(tmp_path, tensors, [spec("a"), spec("h.0.w")], **mended).left_unused == ("lm_head",)


def test_a_plan_is_plain_json(tmp_path):
    made = plan(tmp_path, {"m.w": ("BF16", [2])}, [spec("w", "v")], remove_prefix="m.", keep_stored_dtype=False)
    document = json.loads(json.dumps(made.to_dict()))
    (assignment,) = document.pop("assignments")
    start, end = assignment.pop("bytes")
    assert end - start == 4
    assert assignment == {
        "names": ["w", "v"],
        "tensor": "m.w",
        "file": "model.safetensors",
        "shape": [2],
        "stored_dtype": "BF16",
        "loaded_dtype": "F32",
        "rules": ["remove_prefix 'm.'"],
        "repeats": False,
    }
    assert document["num_parameters"] == 2
    assert document["notes"] == ["a note"]
