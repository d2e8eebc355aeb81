import json
import struct
from contextlib import suppress

import pytest
from safetensors import safe_open

from effort import times_as_long
from tensor_files import safetensors_bytes, tensor_entry, tensors_as_bytes
from wmtp.checkpoint import headers
from wmtp.checkpoint.headers import read_tensors, weight_files
from wmtp.errors import FormatError, NotFoundError
from wmtp.storage.opening import open_store

ONE = {"w": tensor_entry("F32", [2], 0, 8)}
HUGE = 1 << 63


def read(directory, content=None):
    if content is not None:
        (directory / "model.safetensors").write_bytes(content)
    return read_tensors(open_store(directory))


def refusal(directory, content):
    with pytest.raises(FormatError) as caught:
        read(directory, content)
    assert caught.value.problem.startswith(f"{directory}/model.safetensors")
    return caught.value


def test_tensors_are_read_with_their_place_in_the_file(tmp_path):
    tensors = read(tmp_path, tensors_as_bytes({"a": ("BF16", [2, 3]), "b": ("I64", [1])}))
    start = (tmp_path / "model.safetensors").stat().st_size - 20
    assert [(t.name, t.dtype, t.shape, t.start - start, t.end - start) for t in tensors] == [
        ("a", "BF16", (2, 3), 0, 12),
        ("b", "I64", (1,), 12, 20),
    ]
    assert (tensors[0].num_elements, tensors[0].num_bytes) == (6, 12)


def test_empty_tensors_scalars_and_files_without_tensors_are_legal(tmp_path):
    held = {"empty": ("F32", [0, 5]), "scalar": ("F32", []), "also_empty": ("U8", [3, 0])}
    assert [t.num_elements for t in read(tmp_path, tensors_as_bytes(held))] == [0, 1, 0]
    assert read(tmp_path, safetensors_bytes({})) == []
    assert read(tmp_path, safetensors_bytes({"__metadata__": {"format": "pt"}})) == []


@pytest.mark.parametrize("padding", [b"", b" ", b"  ", b"\n"])
def test_a_header_of_any_length_is_legal(tmp_path, padding):
    content = safetensors_bytes(safetensors_bytes(ONE)[8:] + padding, b"\0" * 8)
    assert read(tmp_path, content)[0].start == len(content) - 8


def test_the_order_in_the_header_need_not_be_that_of_the_bytes(tmp_path):
    header = {"b": tensor_entry("U8", [4], 4, 8), "a": tensor_entry("U8", [4], 0, 4)}
    assert [tensor.name for tensor in read(tmp_path, safetensors_bytes(header, b"\0" * 8))] == ["b", "a"]


@pytest.mark.parametrize(
    ("start", "end", "fault"), [(12, 16, "leaves a hole before it"), (4, 8, "overlaps the one before it")]
)
def test_a_hole_or_an_overlap_between_tensors_is_refused(tmp_path, start, end, fault):
    header = {**ONE, "v": tensor_entry("F32", [1], start, end)}
    error = refusal(tmp_path, safetensors_bytes(header, b"\0" * end))
    assert "tensor 'v' at byte" in error.problem
    assert fault in error.problem
    assert error.hint == "write the file again with safetensors"


def test_an_empty_tensor_inside_another_is_an_overlap(tmp_path):
    header = {**ONE, "v": tensor_entry("F32", [0], 4, 4)}
    assert "tensor 'v' at byte" in refusal(tmp_path, safetensors_bytes(header, b"\0" * 8)).problem


@pytest.mark.parametrize("num_bytes", [7, 9])
def test_a_file_that_is_cut_short_or_has_something_appended_is_refused(tmp_path, num_bytes):
    error = refusal(tmp_path, safetensors_bytes(ONE, b"\0" * num_bytes))
    size = (tmp_path / "model.safetensors").stat().st_size
    assert f"the header describes {size - num_bytes + 8} bytes, the file has {size}" in error.problem
    assert "cut short or has something appended: copy it again" in error.hint


@pytest.mark.parametrize("dtype", ["F31", "f32", "C64", "", None, 4, ["F32"]])
def test_an_unknown_dtype_is_refused_and_the_known_ones_are_named(tmp_path, dtype):
    error = refusal(tmp_path, safetensors_bytes({"w": {**ONE["w"], "dtype": dtype}}, b"\0" * 8))
    assert "tensor 'w' has the dtype " in error.problem
    assert error.hint.startswith("store it as one of BOOL, U8, ")


@pytest.mark.parametrize("size", [-1, True, 2.0, "2", None, HUGE, [2]])
def test_a_size_that_is_no_number_of_elements_is_refused(tmp_path, size):
    error = refusal(tmp_path, safetensors_bytes({"w": {**ONE["w"], "shape": [size]}}, b"\0" * 8))
    assert "tensor 'w' has the shape [" in error.problem
    assert "which is not a list of at most 64 sizes" in error.problem


@pytest.mark.parametrize("offsets", [[0], [0, 8, 8], [-8, 0], [False, 8], [0, 8.0], [0, HUGE], "08", {"0": 8}, None])
def test_offsets_that_are_not_two_places_in_a_file_are_refused(tmp_path, offsets):
    error = refusal(tmp_path, safetensors_bytes({"w": {**ONE["w"], "data_offsets": offsets}}, b"\0" * 8))
    assert "tensor 'w' has the data_offsets " in error.problem


@pytest.mark.parametrize(("start", "end"), [(0, 4), (8, 0), (0, 9)])
def test_a_range_of_another_length_than_the_shape_needs_is_refused(tmp_path, start, end):
    error = refusal(tmp_path, safetensors_bytes({"w": tensor_entry("F32", [2], start, end)}, b"\0" * 8))
    assert f"tensor 'w' has {end - start} bytes, F32 of shape [2] needs 8" in error.problem


def test_sizes_whose_product_overflows_are_refused_unmultiplied_in_a_short_text(tmp_path):
    error = refusal(tmp_path, safetensors_bytes({"w": tensor_entry("F64", [HUGE - 1] * 64, 0, 8)}, b"\0" * 8))
    assert "tensor 'w' has the shape [9223372036854775807, " in error.problem
    assert "at most 64 sizes, or overflows" in error.problem
    assert len(str(error)) < 1000


def test_two_hundred_thousand_sizes_cost_no_more_than_reading_them(tmp_path):
    data = safetensors_bytes({"w": tensor_entry("F64", [HUGE - 1] * 200_000, 0, 8)}, b"\0" * 8)
    errors = []
    ratio = times_as_long(lambda: errors.append(refusal(tmp_path, data)), lambda: json.loads(data[8:-8]))
    assert "not a list of at most 64 sizes" in errors[0].problem
    assert ratio < 100  # multiplying them takes thousands of times as long


@pytest.mark.parametrize("shape", [[1 << 62, 1 << 62, 0], [0, 1 << 62, 1 << 62]])
def test_sizes_that_overflow_beside_a_zero_are_refused_as_safetensors_does(tmp_path, shape):
    error = refusal(tmp_path, safetensors_bytes({"w": tensor_entry("U8", shape, 0, 0)}))
    assert "or overflows" in error.problem


def test_a_minus_zero_is_no_size_and_no_offset(tmp_path):
    header = b'{"w":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}'
    assert "has the shape [-0.0]" in refusal(tmp_path, safetensors_bytes(header)).problem


@pytest.mark.parametrize("entry", [None, [], "F32", {}, {**ONE["w"], "extra": 1}, {"dtype": "F32", "shape": [2]}])
def test_an_entry_with_other_fields_is_refused(tmp_path, entry):
    error = refusal(tmp_path, safetensors_bytes({"w": entry}, b"\0" * 8))
    assert "tensor 'w' does not have exactly dtype, shape and data_offsets" in error.problem


@pytest.mark.parametrize("twin", [b'"w"', rb'"\u0077"'])
def test_a_name_that_stands_twice_is_refused_also_when_escapes_hide_it(tmp_path, twin):
    entry = b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    header = b'{"w":' + entry + b"," + twin + b":" + entry + b"}"
    assert "(header): has the key 'w' twice in one object" in refusal(tmp_path, safetensors_bytes(header)).problem


@pytest.mark.parametrize("name", ["", "a\nb", "a\x1b[31m", "a\u202eb", "a\u200bb", "\x00", "n" * 513, "é" * 257])
def test_an_empty_unprintable_or_long_name_is_refused_and_shown_safely(tmp_path, name):
    error = refusal(tmp_path, safetensors_bytes({name: ONE["w"]}, b"\0" * 8))
    assert "has a name that is empty, unprintable or longer than 512 bytes" in error.problem
    assert error.problem.isascii()
    assert error.problem.isprintable()


def test_notes_that_are_null_are_read_as_the_safetensors_library_reads_them(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = read(tmp_path, safetensors_bytes({"__metadata__": None, **ONE}, b"\0" * 8))
    assert [tensor.name for tensor in tensors] == ["w"]
    with safe_open(path, "np") as theirs:
        assert (theirs.metadata(), list(theirs.keys())) == (None, ["w"])


@pytest.mark.parametrize("notes", [["format"], {"format": 1}, {"format": None}, "pt", False, 0])
def test_notes_that_are_not_strings_are_refused(tmp_path, notes):
    error = refusal(tmp_path, safetensors_bytes({"__metadata__": notes, **ONE}, b"\0" * 8))
    assert "__metadata__ is " in error.problem


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 8\n", "a Git LFS pointer", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "an HTML or XML page", "download the file again"),
        (b'\xef\xbb\xbf\n <?xml version="1.0"?><Error/>', "an HTML or XML page", "download the file again"),
        (b"<script>{}</script>" * 4, "an HTML or XML page", "download the file again"),
        (b"PK\x03\x04\0\0\x08\x08\0\0archive/data.pkl" + b"\0" * 64, "a zip archive", "as safetensors"),
        (b"\x80\x02}q\0X\x01\0\0\0wq\x01s." + b"\0" * 64, "a Python pickle", "as safetensors"),
        (b"\x80\x04\x95\x08\0\0\0\0\0\0\0}\x94\x8c\x01w" + b"\0" * 64, "a Python pickle", "as safetensors"),
        (b"GGUF\x03\0\0\0" + b"\x02\0\0\0\0\0\0\0" * 9, "a GGUF file", "gguf_file"),
        (b"\0" * 4096, "filled with zeros", "download the file again"),
    ],
)
def test_another_kind_of_file_is_named_by_its_first_bytes(tmp_path, content, what, hint):
    error = refusal(tmp_path, content)
    assert f"model.safetensors: this is {what}" in error.problem
    assert hint in error.hint


@pytest.mark.parametrize("length", [0, 1 << 20, 100_000_001, (1 << 64) - 1])
def test_a_header_that_lies_about_its_length_is_refused(tmp_path, length):
    error = refusal(tmp_path, safetensors_bytes(b'{"w": 1}', length=length))
    if length:
        assert f"the header claims {length:,} bytes, the file has 16" in error.problem
        assert "cut short, or no safetensors file (their headers have at most 100,000,000 bytes)" in error.hint


def test_a_header_longer_than_allowed_is_refused_though_the_file_is_that_long(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 100_000_001) + b"{")
        file.truncate(200_000_000)  # a hole: no disk is used
    with pytest.raises(FormatError, match=r"claims 100,000,001 bytes, the file has 200,000,000"):
        read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x02", b"\0" * 7, struct.pack("<Q", 2)])
def test_a_file_too_short_for_a_header_is_refused(tmp_path, content):
    assert f"bytes, the file has {len(content)}" in refusal(tmp_path, content).problem


@pytest.mark.parametrize("header", [b" {}", b"[]", b'"{}"', b"null"])
def test_a_header_must_begin_with_a_brace(tmp_path, header):
    assert "the header does not begin with '{'" in refusal(tmp_path, safetensors_bytes(header)).problem


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (b'{"w": NaN}', "NaN"),
        (b'{"w": 1e999}', "overflows"),
        (b'{"\xff": 1}', "is not UTF-8"),
        (b'{"\\ud800": 1}', "lone surrogate"),
        (b'{"w": ' + b"[" * 80 + b"]" * 80 + b"}", "nested deeper than 64"),
        (b'{"w": 1' + b"0" * 5000 + b"}", "an integer of 5001 digits"),
        (b'{"w": 1} \0', "is not JSON"),
    ],
)
def test_a_header_is_read_as_strict_json(tmp_path, header, fault):
    error = refusal(tmp_path, safetensors_bytes(header))
    assert "model.safetensors (header): " in error.problem
    assert fault in error.problem


def test_single_bytes_of_a_good_file_can_change_without_any_other_kind_of_error(tmp_path):
    good = tensors_as_bytes({"a.b": ("F32", [2]), "c": ("BF16", [1, 3])})
    for position in range(len(good) - 14):
        for value in (0x00, 0x22, 0x30, 0x7B, 0xFF):
            with suppress(FormatError):
                read(tmp_path, good[:position] + bytes([value]) + good[position + 1 :])
    for length in range(len(good)):
        with pytest.raises(FormatError):
            read(tmp_path, good[:length])


def test_a_single_file_is_its_own_list_of_weight_files(tmp_path):
    read(tmp_path, tensors_as_bytes({}))
    assert weight_files(open_store(tmp_path)) == ["model.safetensors"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "last.ckpt"])
def test_pickled_weights_are_refused_unread(tmp_path, name):
    (tmp_path / name).write_bytes(b"never opened")
    (tmp_path / name).chmod(0)
    with pytest.raises(FormatError) as caught:
        read(tmp_path)
    assert f"the weights are in '{name}', which loading never opens" in caught.value.problem
    assert f"'wmtp convert {tmp_path} NEW'" in caught.value.hint


def test_a_directory_without_weights_is_refused(tmp_path):
    with pytest.raises(NotFoundError, match=r"no model\.safetensors and no model\.safetensors\.index\.json") as caught:
        read(tmp_path)
    assert "copy the weights beside metadata.json" in caught.value.hint


def test_headers_of_many_shards_are_bounded_together(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "_MAX_HEADERS_BYTES", 100)
    for shard in ("a", "b"):
        (tmp_path / f"{shard}.safetensors").write_bytes(tensors_as_bytes({shard: ("F32", [2])}))
    index = {"weight_map": {shard: f"{shard}.safetensors" for shard in ("a", "b")}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"the headers of 2 shards claim [\d,]+ bytes together"):
        read(tmp_path)
