import pytest

from data_files import read, write_lines
from wmtp.data.documents import Document, hold_out
from wmtp.errors import DataError


def test_mbpp_lines_are_read_by_their_own_keys(tmp_path):
    path = write_lines(tmp_path / "mbpp.jsonl", {"text": "Add.", "code": "a + b", "test_list": ["assert True"]})
    (document,) = read(path, format="prompt_completion", prompt="text", completion="code")
    assert document == Document("a + b", prompt="Add.", where=f"{path}:1")
    assert document.whole_text == "Add.a + b"


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("A:", " four"),
        ("add\n\n", "\n\na + b\n"),
        ("  lead", "trail \t"),
        ("dos\r\n", "x = 1\r\ny = 2\r\n"),
        ("\ufeffbom", "\ufeffagain"),
        ("", "alone"),
        ("\u2028", "\U0001f600"),
    ],
)
def test_prompt_and_completion_are_what_the_data_says_to_the_byte(tmp_path, prompt, completion):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": prompt, "completion": completion})
    (document,) = read(path, format="prompt_completion")
    assert (document.prompt, document.text) == (prompt, completion)
    assert document.whole_text.encode() == prompt.encode() + completion.encode()


@pytest.mark.parametrize(
    ("template", "prompt", "text"),
    [
        ("{prompt}\n{completion}", "p{completion}\n", "c{prompt}"),
        ("Q: {prompt}\nA: {completion}\n---\n", "Q: p{completion}\nA: ", "c{prompt}\n---\n"),
        ("{} {{x}} {prompt}{other}{completion}{", "{} {{x}} p{completion}{other}", "c{prompt}{"),
    ],
)
def test_a_template_says_what_stands_around_them_and_other_braces_stand_for_themselves(
    tmp_path, template, prompt, text
):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p{completion}", "completion": "c{prompt}"})
    (document,) = read(path, format="prompt_completion", template=template)
    assert (document.prompt, document.text) == (prompt, text)


@pytest.mark.parametrize("written", [b"a\r\nb\r\n", b" \n x \n\n", b"\xef\xbb\xbfa", b"one\rtwo\x0c"])
def test_a_text_file_is_learned_to_the_byte_but_for_a_byte_order_mark(tmp_path, written):
    (tmp_path / "a.txt").write_bytes(written)
    (document,) = read(tmp_path / "a.txt")
    assert document.text.encode() == written.removeprefix(b"\xef\xbb\xbf")


def test_json_is_learned_as_it_stands_only_when_that_is_asked_for(tmp_path):
    text = '{"text": "a",\r\n "n": NaN}\n'
    for name in ("a.json", "b.jsonl", "c.txt", "d.csv"):
        (tmp_path / name).write_bytes(text.encode())
    found = read(*(tmp_path / name for name in ("a.json", "b.jsonl", "c.txt", "d.csv")), format="raw_text")
    assert [document.text for document in found] == [text] * 4


@pytest.mark.parametrize(
    "text", ['{"text": "a"}\n{"text": "b"}\n', '\n[\n {"text": "a"}\n]', '{\n "text": "a"\n}', '\ufeff{"a": 1}']
)
def test_a_text_file_that_holds_json_objects_is_refused_by_name(tmp_path, text):
    (tmp_path / "data.txt").write_text(text)
    with pytest.raises(DataError, match=r"data\.txt: its name says text, and it begins with a JSON object") as caught:
        read(tmp_path)
    assert "set format: raw_text" in caught.value.hint


@pytest.mark.parametrize("text", ["{x} = y", "[1, 2]\n", "{\n  int a;\n}", '["a", "b"]', "{}x", "[[link]] {"])
def test_text_with_brackets_is_text(tmp_path, text):
    (tmp_path / "data.txt").write_text(text)
    assert [document.text for document in read(tmp_path)] == [text]


def test_a_package_json_among_sources_names_the_way_to_learn_it_raw(tmp_path):
    (tmp_path / "package.json").write_text('{\n  "name": "x",\n  "version": "1"\n}\n')
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(DataError, match=r"package\.json:1: the key 'text' is missing; keys found: 'name'") as caught:
        read(tmp_path)
    assert "set format: raw_text to learn JSON as it stands, or data.train.text" in caught.value.hint
    assert len(read(tmp_path, format="raw_text")) == 2


def test_records_in_a_list_of_one_object_are_pointed_at(tmp_path):
    path = write_lines(tmp_path / "all.json", {"version": 1, "splits": [], "data": [{"text": "a"}]})
    with pytest.raises(DataError, match=r"all\.json:1: the key 'text' is missing") as caught:
        read(path)
    told = "its list 'data' holds the records: write that list alone into the file, or one record a line"
    assert caught.value.hint == told


def test_jsonl_beside_text_files_is_read_by_its_text_key(tmp_path):
    write_lines(tmp_path / "a.jsonl", {"content": "one\u2028line"})
    (tmp_path / "b.txt").write_text("two")
    assert [document.text for document in read(tmp_path, text="content")] == ["one\u2028line", "two"]


def test_a_line_without_the_key_names_the_line_the_keys_found_and_the_field_to_set(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c"}, {"prompt": "p", "completions": "c"})
    with pytest.raises(DataError) as caught:
        read(path, format="prompt_completion")
    assert caught.value.problem == f"{path}:2: the key 'completion' is missing; keys found: 'prompt', 'completions'"
    assert caught.value.hint == (
        "set data.train.completion in the recipe to the key that holds it (did you mean 'completions'?)"
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "is not JSON"),
        ("[1]", r"expected a JSON object, found \[1\]"),
        ('{"text": 3}', "'text' is 3, expected text"),
        ('{"text": " "}', "'text' is ' ', expected text"),
        ('{"text": "a", "text": "b"}', "'text' stands twice in one object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, fault):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "good"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=rf"a\.jsonl:3: .*{fault}"):
        read(path)


def test_numbers_of_the_data_become_scores_of_documents(tmp_path):
    values = [1, 0.25, True, False, -3]
    path = write_lines(tmp_path / "a.jsonl", *({"text": "a", "passed": value} for value in values))
    documents = read(path, columns={"reward": "passed"})
    assert [document.scores for document in documents] == [{"reward": float(value)} for value in values]


def test_a_line_without_its_score_names_line_key_and_keys_found(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"text": "a", "passed": 1}, {"text": "b", "pased": 0})
    with pytest.raises(DataError) as caught:
        read(path, columns={"reward": "passed"})
    assert caught.value.problem == (
        f"{path}:2: the key 'passed' is missing, which holds a score of the document; keys found: 'text', 'pased'"
    )
    assert caught.value.hint.endswith("name the key that holds it in the recipe (did you mean 'pased'?)")


@pytest.mark.parametrize("value", ["null", '"0.5"', "[1]", "1e39", "-1e300"])
def test_a_score_that_is_no_finite_number_is_named(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a", "passed": {value}}}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: 'passed' is .*, expected a finite number, or true or false"):
        read(path, columns={"reward": "passed"})


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_score_that_is_no_json_is_named(tmp_path, value):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a", "passed": {value}}}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*(which is not JSON|which overflows)"):
        read(path, columns={"reward": "passed"})


def test_a_text_file_cannot_have_scores(tmp_path):
    write_lines(tmp_path / "a.jsonl", {"text": "a", "passed": 1})
    (tmp_path / "b.txt").write_text("b")
    with pytest.raises(DataError, match=r"b\.txt: a text file has no key 'passed', which holds a score"):
        read(tmp_path, columns={"reward": "passed"})


def test_data_without_a_document_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match=r"data\.train\.files: there is no document"):
        read(tmp_path)


def test_what_is_held_out_depends_on_the_documents_alone():
    documents = [Document(f"text {number}") for number in range(50)]
    train, held = hold_out(documents, 0.1)
    assert (len(train), len(held)) == (45, 5)
    again = hold_out(documents[::-1], 0.1)[1]
    assert sorted(d.text for d in again) == sorted(d.text for d in held)


def test_equal_documents_are_never_on_both_sides():
    documents = [Document(f"text {number % 4}") for number in range(40)]
    train, held = hold_out(documents, 0.3)
    assert not {d.text for d in train} & {d.text for d in held}
    assert train
    assert held


def test_a_single_document_cannot_be_split():
    with pytest.raises(DataError, match="cannot be split"):
        hold_out([Document("a"), Document("a")], 0.5)
