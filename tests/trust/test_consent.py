"""Consent comes from the operator, as hashes, and never from a checkpoint."""

import json
import shlex

import pytest

from code_files import code_refusal, run_code, write_code
from wmtp.errors import StorageError, TrustError
from wmtp.storage.store import open_store
from wmtp.trust.consent import consent_file, read_code, record_consent, recorded_consent


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
    assert recorded[digests[0]]["file"] == "modeling.py"
    assert recorded[digests[0]]["seen_at"] == f"{checkpoint}/modeling.py"
    assert recorded[digests[0]]["recorded"].endswith("+00:00")
    assert [path.name for path in consent_file().parent.iterdir()] == ["trust.json"]


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
