import logging
import os
from pathlib import Path

import pytest

from wmtp.data.content import read_content
from wmtp.data.documents import read_documents
from wmtp.errors import DataError
from wmtp.settings.data import DataSource


def read(*files, **fields):
    source = DataSource.model_validate({"files": [str(file) for file in files], **fields})
    return read_documents(source, field="data.train")


def texts(*files, **fields):
    return [document.text for document in read(*files, **fields)]


def test_a_directory_is_read_recursively_and_hidden_files_are_left_out(tmp_path):
    (tmp_path / "inner" / ".git").mkdir(parents=True)
    (tmp_path / "b.py").write_text("b")
    (tmp_path / "inner" / "a.txt").write_text("a")
    (tmp_path / "inner" / ".git" / "hidden.txt").write_text("no")
    (tmp_path / "image.png").write_text("no")
    assert texts(tmp_path) == ["b", "a"]


def test_what_is_left_out_of_a_directory_is_counted_and_named_by_its_kind(tmp_path, caplog):
    (tmp_path / ".cache").mkdir()
    for name in ("a.png", "b.png", "c.PNG", "d.png", "e.csv", "Makefile", ".cache/x.txt"):
        (tmp_path / name).write_text("no")
    (tmp_path / "latin.py").write_bytes("é".encode("latin-1"))
    (tmp_path / "zeros.py").write_bytes(b"a\0b")
    (tmp_path / "good.py").write_text("x")
    (tmp_path / "lost.py").symlink_to("gone.py")
    assert texts(tmp_path) == ["x"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert line.startswith("data.train: left out of directories: 4 *.png ('a.png', 'b.png', 'c.PNG', ...); 2 that are")
    assert "2 that are not UTF-8 text ('latin.py', 'zeros.py')" in line
    assert "1 *.csv ('e.csv')" in line
    assert "1 without a suffix ('Makefile')" in line
    assert "1 hidden ('x.txt')" in line
    assert "1 that are dangling links ('lost.py')" in line


def test_a_directory_without_anything_that_is_read_says_what_it_holds(tmp_path):
    (tmp_path / "data.orc").write_bytes(b"ORC\0\0")
    with pytest.raises(DataError, match="there is no document") as caught:
        read(tmp_path)
    assert caught.value.hint.endswith("left out of directories: 1 *.orc ('data.orc')")


def test_prompts_and_completions_of_a_directory_are_in_its_json_files(tmp_path, caplog):
    for name in ("a.jsonl", "b.JSON", "c.ndjson"):
        (tmp_path / name).write_text(f'{{"prompt": "p", "completion": "{name}"}}')
    (tmp_path / "README.md").write_text("# data")
    assert texts(tmp_path, format="prompt_completion") == ["a.jsonl", "b.JSON", "c.ndjson"]
    assert "left out of directories: 1 *.md ('README.md')" in caplog.text


def test_a_named_file_must_be_readable(tmp_path):
    path = tmp_path / "latin.py"
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match="not readable as UTF-8 text") as caught:
        read(path)
    assert str(path) in caught.value.problem


def test_a_file_that_two_patterns_match_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    assert len(read(tmp_path / "*.txt", tmp_path)) == 1


@pytest.mark.parametrize(
    "name", ["data [run 1]/train.txt", "what?.txt", "all*.txt", "[!a].txt", "a[[]b.txt", "[*]x.txt"]
)
def test_a_path_that_exists_is_that_file_before_it_is_a_pattern(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("this")
    for other in ("data r", "data 1"):
        (tmp_path / other).mkdir()
        (tmp_path / other / "train.txt").write_text("another")
    for other in ("whats.txt", "all of it.txt", "b.txt", "a[b.txt"):
        (tmp_path / other).write_text("another")
    assert texts(path) == ["this"]


def test_a_directory_with_brackets_in_its_name_is_that_directory(tmp_path):
    (tmp_path / "set[1]").mkdir()
    (tmp_path / "set1").mkdir()
    (tmp_path / "set[1]" / "a.txt").write_text("this")
    (tmp_path / "set1" / "a.txt").write_text("another")
    assert texts(tmp_path / "set[1]") == ["this"]
    assert texts(tmp_path / "set[[]1]" / "*.txt") == ["this"]


def test_a_pattern_is_one_only_behind_the_directories_that_exist_under_the_very_name(tmp_path):
    for name in ("set [1]", "set 1"):
        (tmp_path / name / "in?").mkdir(parents=True)
        (tmp_path / name / "in?" / "a.txt").write_text(name)
    for pattern in ("set [1]/*/a.txt", "set [1]/in?/a.*", "set [1]/**/*.txt", "set [[]1]/in[?]/?.txt", "set [1]/in*/"):
        assert texts(f"{tmp_path}/{pattern}") == ["set [1]"]
    assert texts(f"{tmp_path}/set[ ][12]/in?/a.txt") == ["set 1"]


def test_a_name_that_does_not_exist_is_a_pattern(tmp_path):
    for name in ("a1.txt", "a2.txt", "b1.txt"):
        (tmp_path / name).write_text(name)
    assert texts(tmp_path / "a[12].txt") == ["a1.txt", "a2.txt"]
    assert texts(tmp_path / "[!a]?.*") == ["b1.txt"]


def test_a_pattern_without_a_match_says_what_is_there(tmp_path):
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"data\.train\.files: .*trian\.jsonl' matches no file") as caught:
        read(tmp_path / "trian.jsonl")
    assert caught.value.hint == f"{tmp_path} holds: 'train.jsonl' (did you mean 'train.jsonl'?)"


def test_what_is_meant_is_sought_where_the_path_goes_wrong(tmp_path):
    (tmp_path / "data [run 1]").mkdir()
    (tmp_path / "train.jsonl").write_text("{}")
    with pytest.raises(DataError, match="matches no file") as caught:
        read(tmp_path / "data [run 2]" / "train.jsonl")
    assert caught.value.hint.endswith("(did you mean 'data [run 1]'?)")


def test_a_name_that_no_file_can_have_matches_nothing(tmp_path):
    for name in ("x" * 5000, "a/" * 3000, "nul\0"):
        with pytest.raises(DataError, match="matches no file"):
            read(tmp_path / name)


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.txt").symlink_to("gone")
    for pattern in ("a.txt", "*.txt"):
        with pytest.raises(DataError) as caught:
            read(tmp_path / pattern)
        said = f"{tmp_path}/a.txt: a dangling symbolic link: 'gone', to which it points, is not there"
        assert (caught.value.problem, caught.value.hint) == (said, "put the file there, or leave it out")


def test_every_pattern_without_a_match_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match="2 faults") as caught:
        read(tmp_path / "b.txt", tmp_path / "a.txt", tmp_path / "*.jsonl")
    assert [fault.split("files: ")[1] for fault in caught.value.faults] == [
        f"'{tmp_path}/b.txt' matches no file",
        f"'{tmp_path}/*.jsonl' matches no file",
    ]


def test_a_file_is_learned_once_by_whatever_way_it_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("once")
    (tmp_path / "in" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert texts(tmp_path / "in" / ".." / "in" / "a.txt", tmp_path / "in" / "**" / "*.txt", tmp_path) == ["once"]


@pytest.mark.parametrize("size", [None, 10])
def test_a_pipe_and_a_device_are_refused_and_not_waited_for(tmp_path, size):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path in (tmp_path / "pipe.jsonl", Path(os.devnull)):
        with pytest.raises(DataError, match=f"^{path}: a pipe, a device or a socket, and data is read from files"):
            read_content(path, size)
