"""Code runs from the bytes that were agreed to, and reaches no other file of its checkpoint."""

import importlib.util
import py_compile
import sys
import threading

import pytest

from code_files import code_refusal, run_code, write_code
from wmtp.errors import NotFoundError, StorageError


def test_a_file_is_read_as_utf8_whatever_encoding_it_declares(checkpoint):
    # As `unicode_escape`, the comment would end in the middle and the rest run; no reader would see it.
    consent = write_code(checkpoint, "# coding: unicode_escape\n# harmless \\x0aVALUE = 'hidden'\nNAME = 'é'\n")
    ran = run_code(checkpoint, consent)
    assert not hasattr(ran.module, "VALUE")
    assert ran.module.NAME == "é"
    assert run_code(checkpoint, write_code(checkpoint, b"\xef\xbb\xbfVALUE = 3\n")).module.VALUE == 3


def test_poisoned_bytecode_beside_the_file_is_not_run_and_none_is_written(checkpoint):
    consent = write_code(checkpoint, "from .blocks import WHO\n") | write_code(
        checkpoint, "WHO = 'source'\n", "blocks.py"
    )
    for name in ("modeling", "blocks"):
        (checkpoint / "evil.py").write_text("WHO = 'poison'\n")
        poisoned = importlib.util.cache_from_source(str(checkpoint / f"{name}.py"))
        py_compile.compile(
            str(checkpoint / "evil.py"), poisoned, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
    before = sorted(checkpoint.rglob("*"))
    assert run_code(checkpoint, consent).module.WHO == "source"
    assert sorted(checkpoint.rglob("*")) == before


def test_no_bytecode_directory_appears_where_there_was_none(checkpoint):
    consent = write_code(checkpoint, "from . import blocks\n") | write_code(checkpoint, "X = 1\n", "blocks.py")
    run_code(checkpoint, consent)
    assert sorted(path.name for path in checkpoint.rglob("*")) == ["blocks.py", "modeling.py"]


def test_a_file_of_the_checkpoint_does_not_shadow_the_standard_library(checkpoint, monkeypatch):
    for name in ("json.py", "wave.py"):
        write_code(checkpoint, "raise SystemExit('shadow')\n", name)
    consent = write_code(checkpoint, "import json, wave\nTEXT = json.dumps(wave.__name__)\n")
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    monkeypatch.delitem(sys.modules, "json")
    assert run_code(checkpoint, consent).module.TEXT == '"wave"'


def test_a_neighbour_runs_only_with_consent_of_its_own(checkpoint):
    consent = write_code(checkpoint, "from .blocks import DEPTH\n")
    own = write_code(checkpoint, "from . import deeper\nDEPTH = deeper.DEPTH + 1\n", "blocks.py")
    deeper = write_code(checkpoint, "DEPTH = 1\n", "deeper.py")
    assert f"{checkpoint}/blocks.py: this checkpoint builds" in code_refusal(checkpoint, consent).problem
    error = code_refusal(checkpoint, consent | own)
    assert f"{checkpoint}/deeper.py: this checkpoint builds" in error.problem
    assert f"--allow-code deeper.py={deeper['deeper.py']}" in error.hint
    ran = run_code(checkpoint, consent | own | deeper)
    assert ran.module.DEPTH == 2
    assert ran.code == consent | own | deeper


def test_a_module_in_a_subdirectory_finds_its_neighbours_beside_it(checkpoint):
    consent = write_code(checkpoint, "from .blocks import WHO\n", "code/modeling.py")
    consent |= write_code(checkpoint, "WHO = 'beside'\n", "code/blocks.py")
    write_code(checkpoint, "WHO = 'above'\n", "blocks.py")
    ran = run_code(checkpoint, consent, "code/modeling.py")
    assert (ran.module.WHO, ran.code) == ("beside", consent)


def test_neighbours_may_import_each_other_and_a_missing_one_is_named(checkpoint):
    consent = write_code(checkpoint, "WIDTH = 8\nfrom .blocks import double\nDOUBLE = double()\n")
    consent |= write_code(checkpoint, "from . import modeling\ndef double(): return 2 * modeling.WIDTH\n", "blocks.py")
    assert run_code(checkpoint, consent).module.DOUBLE == 16
    error = code_refusal(checkpoint, write_code(checkpoint, "from .absent import x\n"))
    assert "the code raised ModuleNotFoundError: " in error.problem
    assert ".absent" in error.problem


@pytest.mark.parametrize("name", ["blocks.py", "blocks/__init__.py", "blocks/attention.py", "code/blocks.py"])
def test_a_plain_import_never_reaches_a_file_of_the_checkpoint(checkpoint, monkeypatch, name):
    """Not even when its directory is the current one, which Python then searches."""
    write_code(checkpoint, "raise SystemExit('ran')\n", name)
    consent = write_code(checkpoint, "import blocks.attention\n", "code/modeling.py")
    monkeypatch.syspath_prepend(str((checkpoint / name).parent if name.startswith("code") else checkpoint))
    error = code_refusal(checkpoint, consent, "code/modeling.py")
    assert f"{checkpoint}/code/modeling.py: it imports blocks, which sys.path finds in the checkpoint" in error.problem
    assert "write 'from .blocks import ...'" in error.hint


def test_the_current_directory_is_such_a_place(checkpoint, monkeypatch):
    write_code(checkpoint, "raise SystemExit('ran')\n", "blocks.py")
    monkeypatch.chdir(checkpoint)
    monkeypatch.syspath_prepend("")
    assert "it imports blocks" in code_refusal(checkpoint, write_code(checkpoint, "import blocks\n")).problem


def test_code_that_puts_its_own_directory_on_the_path_gets_no_further(checkpoint):
    write_code(checkpoint, "raise SystemExit('ran')\n", "blocks.py")
    source = "import os, sys\nsys.path.insert(0, os.path.dirname(__file__))\nimport blocks\n"
    before = sys.path[:]
    assert "it imports blocks" in code_refusal(checkpoint, write_code(checkpoint, source)).problem
    assert sys.path == before


def test_the_import_system_is_left_as_it_was(checkpoint):
    path, finders = sys.path[:], sys.meta_path[:]
    meddling = "import sys\nsys.path.append('/nowhere')\nsys.meta_path.pop(0)\n"
    run_code(checkpoint, write_code(checkpoint, meddling))
    code_refusal(checkpoint, write_code(checkpoint, meddling + "raise ValueError\n"))
    assert (sys.path, sys.meta_path) == (path, finders)


def test_a_failed_import_leaves_no_half_made_module_behind(checkpoint):
    consent = write_code(checkpoint, "from . import blocks\nraise ValueError('late')\n")
    consent |= write_code(checkpoint, "X = 1\n", "blocks.py")
    assert "the code raised ValueError: 'late'" in code_refusal(checkpoint, consent).problem


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("raise SystemExit(0)", "SystemExit: '0'"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt: ''"),
        ("raise GeneratorExit('x')", "GeneratorExit: 'x'"),
        ("1 / 0", "ZeroDivisionError: 'division by zero'"),
        ("def", "SyntaxError: "),
        ("def f(): f()\nf()", "RecursionError: "),
        ("raise ValueError('\\x1b[31m' + 'x' * 500)", "ValueError: '\\x1b[31mxxx"),
        ("raise type('E\\n\\x1b[1m', (Exception,), {})", "E\\n\\x1b[1m: ''"),
        ("class E(Exception):\n  def __str__(self): raise SystemExit\nraise E", "an exception that cannot be shown"),
    ],
)
def test_whatever_the_code_raises_becomes_our_error(checkpoint, statement, shown):
    error = code_refusal(checkpoint, write_code(checkpoint, statement))
    assert error.problem.startswith(f"{checkpoint}/modeling.py: the code raised {shown}")
    assert error.problem.isprintable()
    assert len(error.problem) < 500 + len(str(checkpoint))
    assert "the checkpoint's own code" in error.hint


def test_same_file_in_two_checkpoints_keeps_its_own_neighbours_even_at_once(tmp_path):
    found = {}

    def load(index):
        directory = tmp_path / f"checkpoint-{index}"
        directory.mkdir()
        consent = write_code(directory, "import time\ntime.sleep(0.01)\nfrom .blocks import WHO\n")
        found[index] = run_code(directory, consent | write_code(directory, f"WHO = {index}\n", "blocks.py")).module.WHO

    threads = [threading.Thread(target=load, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {index: index for index in range(8)}


def test_a_module_file_that_is_missing_or_a_link_out_of_the_checkpoint_is_refused(checkpoint, tmp_path):
    with pytest.raises(NotFoundError, match=r"modeling\.py: no such file"):
        run_code(checkpoint, {})
    consent = write_code(tmp_path, "raise SystemExit('ran')\n", "outside.py")
    (checkpoint / "modeling.py").symlink_to(tmp_path / "outside.py")
    with pytest.raises(StorageError, match=r"modeling\.py: a symbolic link to "):
        run_code(checkpoint, {"modeling.py": consent["outside.py"]})
