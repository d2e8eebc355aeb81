"""Consent comes from the operator, as hashes, and never from a checkpoint."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from code_files import code_refusal, run_code, write_code
from wmtp.errors import StorageError, TrustError
from wmtp.storage.opening import open_store
from wmtp.trust.changes import change_since_consent
from wmtp.trust.consent import read_code, record_consent
from wmtp.trust.records import consent_file, forget_record, kept_copy, recorded_consent


def record(directory, source):
    """Agree to a file; returns its hash."""
    digest = write_code(directory, source)["modeling.py"]
    record_consent(read_code(open_store(directory), "modeling.py"))
    return digest


def test_code_runs_with_consent_to_its_very_bytes(checkpoint):
    consent = write_code(checkpoint, "VALUE = 3\n")
    ran = run_code(checkpoint, consent)
    assert ran.module.VALUE == 3
    assert ran.code == consent
    assert ran.module.__file__ == f"{checkpoint}/modeling.py"


def test_without_consent_nothing_runs_and_the_refusal_prints_the_line_that_would_give_it(checkpoint):
    consent = write_code(checkpoint, "import os, numpy.linalg\nfrom .blocks import x\nraise SystemExit('ran')\n")
    error = code_refusal(checkpoint)
    assert error.problem == (
        f"{checkpoint}/modeling.py: this checkpoint builds its model with its own code, and nobody agreed to run it"
        " (70 bytes, imports '.blocks', 'numpy', 'os')"
    )
    assert f"--allow-code modeling.py={consent['modeling.py']} " in error.hint
    assert "wmtp trust" in error.hint


@pytest.mark.parametrize("given", ["sha256:" + "0" * 64, "", "true", True, "sha256:*", None])
def test_anything_but_the_right_hash_is_no_consent(checkpoint, given):
    digest = write_code(checkpoint, "raise SystemExit('ran')\n")["modeling.py"]
    error = code_refusal(checkpoint, {"modeling.py": given, "other.py": digest})
    assert ("consent was given for" in error.problem) is bool(given)
    assert digest in str(error)


def test_one_changed_byte_ends_the_consent(checkpoint):
    consent = write_code(checkpoint, "VALUE = 3\n")
    write_code(checkpoint, "VALUE = 4\n")
    assert f"consent was given for '{consent['modeling.py']}'" in code_refusal(checkpoint, consent).problem


def test_a_name_that_a_shell_would_run_is_quoted_in_the_line_to_copy(checkpoint):
    name = "a; touch ran $(b).py"
    consent = write_code(checkpoint, "", name)
    words = shlex.split(
        code_refusal(checkpoint, name=name).hint.partition("--allow-code ")[2].partition(" (in Python")[0]
    )
    assert words == [f"{name}={consent[name]}"]


def test_recorded_consent_counts_for_these_bytes_wherever_they_are(checkpoint, tmp_path):
    write_code(checkpoint, "VALUE = 3\n")
    assert record_consent(read_code(open_store(checkpoint), "modeling.py")) == tmp_path / "config/wmtp/trust.json"
    assert run_code(checkpoint, {}).module.VALUE == 3
    (checkpoint / "renamed.py").write_bytes((checkpoint / "modeling.py").read_bytes())
    assert run_code(checkpoint, {}, "renamed.py").module.VALUE == 3
    write_code(checkpoint, "VALUE = 4\n")
    with pytest.raises(TrustError, match="nobody agreed to run it"):
        run_code(checkpoint, {})


def test_consent_given_for_this_run_overrules_what_was_recorded(checkpoint):
    write_code(checkpoint, "VALUE = 3\n")
    record_consent(read_code(open_store(checkpoint), "modeling.py"))
    assert "consent was given for" in code_refusal(checkpoint, {"modeling.py": "sha256:00"}).problem


def test_the_record_says_what_was_agreed_to_where_and_when_and_keeps_the_older(checkpoint):
    digests = []
    for source in ("VALUE = 3\n", "VALUE = 4\n"):
        digests += write_code(checkpoint, source).values()
        record_consent(read_code(open_store(checkpoint), "modeling.py"))
    recorded = recorded_consent()
    assert list(recorded) == digests
    assert recorded[digests[0]].file == "modeling.py"
    assert recorded[digests[0]].seen_at == f"{checkpoint}/modeling.py"
    assert recorded[digests[0]].recorded.endswith("+00:00")


def test_a_private_copy_is_kept_beside_the_record_and_nothing_else(checkpoint):
    digest = record(checkpoint, "VALUE = 3\n")
    copy = consent_file().parent / "code" / f"{digest.removeprefix('sha256:')}.py"
    assert (kept_copy(digest), copy.read_bytes()) == (b"VALUE = 3\n", b"VALUE = 3\n")
    assert [path.stat().st_mode & 0o777 for path in (copy, copy.parent, consent_file())] == [0o600, 0o700, 0o600]
    assert sorted(path.name for path in consent_file().parent.rglob("*")) == sorted(
        ["trust.json", "trust.lock", "code", copy.name]
    )
    copy.write_bytes(b"VALUE = 4\n")
    assert kept_copy(digest) is None


_RECORD_FIVE = """
import sys
from wmtp.trust.records import ConsentRecord, add_record
from wmtp.manifest import sha256_bytes
for number in range(5):
    data = f"{sys.argv[1]} {number}".encode()
    add_record(sha256_bytes(data), ConsentRecord(file="m.py", seen_at="/x/m.py", recorded="now"), data)
"""


def test_no_entry_is_lost_when_several_processes_record_at_once():
    running = [subprocess.Popen([sys.executable, "-c", _RECORD_FIVE, str(number)]) for number in range(6)]
    assert [process.wait() for process in running] == [0] * 6
    recorded = recorded_consent()
    assert len(recorded) == 30
    assert all(kept_copy(digest) for digest in recorded)


def test_consent_can_be_taken_back(checkpoint):
    digest = record(checkpoint, "VALUE = 3\n")
    assert forget_record(digest).file == "modeling.py"
    assert (recorded_consent(), kept_copy(digest)) == ({}, None)
    assert "nobody agreed to run it" in code_refusal(checkpoint).problem
    with pytest.raises(TrustError, match=r"trust\.json: no consent is recorded for 'sha256:") as caught:
        forget_record(digest)
    assert "wmtp trust --list" in caught.value.hint


def test_a_record_written_by_an_older_version_still_counts(checkpoint):
    digest = write_code(checkpoint, "VALUE = 3\n")["modeling.py"]
    entry = {"file": "modeling.py", "seen_at": "elsewhere/modeling.py", "recorded": "2026-01-01T00:00:00+00:00"}
    consent_file().parent.mkdir(parents=True)
    consent_file().write_text(json.dumps({digest: entry}))
    assert run_code(checkpoint, {}).module.VALUE == 3


_HASH = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("key", "entry", "problem"),
    [
        ("modeling.py", {}, "the entry 'modeling.py' is not sha256: with 64 hexadecimal digits"),
        (_HASH, True, f"the entry '{_HASH}' is true, expected an object"),
        (_HASH, {"file": "m.py", "recorded": "now"}, f"the entry '{_HASH}': seen_at is missing"),
        (_HASH, {"file": 1, "seen_at": "", "recorded": ""}, f"the entry '{_HASH}': file is 1: "),
        (_HASH, {"file": "", "seen_at": "", "recorded": "", "by": ""}, f"'{_HASH}': by is not a known field"),
    ],
    ids=["key", "no object", "missing", "no text", "unknown"],
)
def test_an_entry_of_another_shape_is_an_error_that_names_it(checkpoint, key, entry, problem):
    write_code(checkpoint, "raise SystemExit('ran')\n")
    consent_file().parent.mkdir(parents=True)
    consent_file().write_text(json.dumps({key: entry}))
    error = code_refusal(checkpoint)
    assert str(consent_file()) in error.problem
    assert problem in error.problem
    assert error.hint == "remove this entry, then agree again with 'wmtp trust URI'"


def test_a_change_is_told_against_the_last_file_agreed_to_at_this_address(checkpoint):
    for source in ("a = 1\nb = 2\n", "a = 1\nb = 3\n"):
        digest = record(checkpoint, source)
    write_code(checkpoint, "import os\na = 1\nb = 4")
    change = change_since_consent(read_code(open_store(checkpoint), "modeling.py"))
    assert (change.digest, change.old_size_bytes, change.new_imports) == (digest, 12, ("os",))
    assert (change.num_added, change.num_removed) == (2, 2)
    assert change.diff[3:] == ("+import os", " a = 1", "-b = 3", "-", "+b = 4")


def test_failing_that_against_one_in_a_directory_of_the_same_name(checkpoint, tmp_path):
    digest = record(checkpoint, "a = 1\n")
    moved = tmp_path / "new" / checkpoint.name
    stranger = tmp_path / "other name"
    for directory in (moved, stranger):
        directory.mkdir(parents=True)
        write_code(directory, "a = 2\n")
    assert change_since_consent(read_code(open_store(moved), "modeling.py")).digest == digest
    assert change_since_consent(read_code(open_store(stranger), "modeling.py")) is None


def test_an_address_means_the_same_from_any_directory(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    digest = write_code(checkpoint, "a = 1\n")["modeling.py"]
    record_consent(read_code(open_store(f"./{checkpoint.name}"), "modeling.py"))
    assert recorded_consent()[digest].seen_at == f"{checkpoint}/modeling.py"
    monkeypatch.chdir(checkpoint)
    write_code(checkpoint, "a = 2\n")
    assert change_since_consent(read_code(open_store("."), "modeling.py")).digest == digest


@pytest.mark.parametrize("damage", [Path.unlink, lambda copy: copy.write_text("b = 1\n")], ids=["missing", "changed"])
def test_without_a_true_copy_there_is_no_diff_and_no_failure(checkpoint, damage):
    digest = record(checkpoint, "a = 1\n")
    damage(consent_file().parent / "code" / f"{digest.removeprefix('sha256:')}.py")
    write_code(checkpoint, "a = 2\n")
    change = change_since_consent(read_code(open_store(checkpoint), "modeling.py"))
    assert (change.digest, change.old_size_bytes, change.diff) == (digest, None, None)


def test_files_made_to_be_slow_to_compare_are_not_compared(checkpoint):
    record(checkpoint, "a\nb\n" * 1500)
    write_code(checkpoint, "b\na\n" * 1500)
    assert change_since_consent(read_code(open_store(checkpoint), "modeling.py")).diff is None


def test_bytes_that_are_not_utf_8_differ_from_their_own_escape(checkpoint):
    record(checkpoint, b"a = '\\xff'")
    write_code(checkpoint, b"a = '\xff'")
    assert change_since_consent(read_code(open_store(checkpoint), "modeling.py")).num_added == 1


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}', "\x00"])
def test_a_damaged_record_is_an_error_and_not_consent(checkpoint, text):
    write_code(checkpoint, "raise SystemExit('ran')\n")
    consent_file().parent.mkdir(parents=True)
    consent_file().write_text(text)
    assert f"{consent_file()}: " in code_refusal(checkpoint).problem


def test_a_record_that_cannot_be_read_or_written_is_our_error(checkpoint):
    write_code(checkpoint, "VALUE = 3\n")
    consent_file().mkdir(parents=True)
    assert "recorded consent cannot be read or written" in code_refusal(checkpoint).problem
    consent_file().rmdir()
    consent_file().parent.rmdir()
    consent_file().parent.write_text("a file where a directory should be")
    with pytest.raises(TrustError, match=r"trust\.json: recorded consent cannot be read or written"):
        record_consent(read_code(open_store(checkpoint), "modeling.py"))


def test_a_checkpoint_in_the_current_directory_cannot_bring_a_record_of_its_own(checkpoint, monkeypatch, tmp_path):
    digest = write_code(checkpoint, "raise SystemExit('ran')\n")["modeling.py"]
    (checkpoint / "wmtp").mkdir()
    (checkpoint / "wmtp" / "trust.json").write_text(json.dumps({digest: {}}))
    monkeypatch.chdir(checkpoint)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in (".", ""):
        monkeypatch.setenv("XDG_CONFIG_HOME", value)
        assert "nobody agreed to run it" in code_refusal(checkpoint).problem
        assert consent_file() == tmp_path / ".config/wmtp/trust.json"


@pytest.mark.parametrize(
    "source",
    [b"-" * 200_000 + b"1", b"x=" + b"1+" * 200_000 + b"1", b"a." * 200_000 + b"a", b"(" * 300, b"\0", b"\xff", b"if"],
    ids=["unary", "binary", "attributes", "parentheses", "null", "not UTF-8", "syntax"],
)
def test_code_that_breaks_the_parser_is_refused_like_any_other(checkpoint, source):
    consent = write_code(checkpoint, source)
    assert "imports nothing" in code_refusal(checkpoint).problem
    assert "the code raised " in code_refusal(checkpoint, consent).problem


def test_a_file_too_large_to_be_a_model_class_is_refused_unparsed(checkpoint):
    write_code(checkpoint, "a\n" * 300_000)
    with pytest.raises(StorageError, match=r"modeling\.py: 600,000 bytes, more than the 524,288 allowed"):
        run_code(checkpoint, {})
