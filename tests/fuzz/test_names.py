"""The path rule and the address parser: what they let through is harmless by every reader's rules."""

from __future__ import annotations

import ntpath
import posixpath
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import unquote

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from fuzz.target import fuzz_target
from wmtp.errors import URIError
from wmtp.storage.opening import open_store
from wmtp.storage.store import FileInfo
from wmtp.storage.uri import parse_uri
from wmtp.untrusted import relative_name_fault

PARTS = st.text(max_size=5) | st.sampled_from(
    [
        *("a", "b.safetensors", "..", ".", "", ".git", "~", "~root", "C:", "c:x", "\\", "..\\x", "%2e%2e", "%00", "\0"),
        *("a\u0301", "\u00e1", "\u2024\u2024", "\uff0e\uff0e", "\uff0f", "\u202e", "\u200b"),
        *(" ", "..a", "a..", "CON", "x" * 300),
    ]
)
paths = st.lists(PARTS, min_size=1, max_size=4).map("/".join) | st.text(max_size=12)
# Every character that the rule lets through, and little that it does not.
allowed = st.text(
    st.characters(exclude_categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"], exclude_characters="\\:%~/"),
    min_size=1,
    max_size=6,
)
allowed_paths = st.lists(allowed, min_size=1, max_size=4).map("/".join).filter(lambda n: not relative_name_fault(n))
plain = st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,9}", fullmatch=True), min_size=1, max_size=5)


# One odd thing in an otherwise plain name, so that no other fault hides it.
near_paths = st.builds(
    lambda name, odd, at: name[:at] + odd + name[at:],
    plain.map("/".join),
    st.sampled_from(
        ["~", ".", "/.", "/..", "/", "//", "\\", ":", "%", "%2f", "a\u0301", "\u212b", "\u202e", "\0", "\n"]
    ),
    st.integers(0, 12),
)


@fuzz_target(300)
@given(paths | allowed_paths | near_paths)
@example("a" * 1025)
@example("a/" * 511 + "a")
def test_a_name_that_is_let_through_stays_inside_by_every_systems_rules(name):
    if (fault := relative_name_fault(name)) is not None:
        event("refused")
        assert fault.isprintable()
        assert len(fault) < 100
        return
    event("let through")
    assert posixpath.normpath(posixpath.join("/root/dir", name)) == f"/root/dir/{name}"
    assert ntpath.normpath(ntpath.join("C:\\root", name)) == "C:\\root\\" + name.replace("/", "\\")
    assert not PurePosixPath(name).is_absolute()
    assert PureWindowsPath(name).anchor == ""
    assert unicodedata.normalize("NFC", name) == name == unquote(name)
    assert not any(part.startswith((".", "~")) for part in name.split("/"))
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name)


@fuzz_target()
@given(plain)
def test_every_plain_name_is_let_through(parts):
    assert relative_name_fault("/".join(parts)) is None


@fuzz_target(60)
@given(allowed_paths | plain.map("/".join), st.binary(max_size=4))
def test_a_file_of_a_name_that_is_let_through_is_listed_and_read_under_that_name(empty, name, content):
    directory = empty()
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert path.resolve().is_relative_to(directory.resolve())
    store = open_store(directory)
    assert store.list_files() == [FileInfo(name, len(content))]
    assert store.read_bytes(name, max_bytes=4) == content


SCHEMES = st.sampled_from(["file", "s3", "gs", "az", "hf", "S3", "https", "c", "s3a", ""])
MIDDLES = st.sampled_from(["://", "://", "://", ":/", ":", ":///", "//", "/"])
PIECES = st.text(max_size=4) | st.sampled_from(
    [
        *("bucket", "org/name", "a/b", "localhost", "@v1", "@", "?", "#", "%41", "%2e", "%2F", "%250a"),
        *("..", "~", ":", "//", "\n", "\ud800"),
    ]
)
addresses = st.builds(
    lambda scheme, middle, pieces: scheme + middle + "".join(pieces), SCHEMES, MIDDLES, st.lists(PIECES, max_size=5)
)
near_addresses = st.one_of(
    st.builds("{}://{}/{}".format, st.sampled_from(["s3", "gs", "az"]), st.sampled_from(["box", "b.1"]), paths),
    st.builds("hf://{}{}{}".format, st.sampled_from(["org/name", "o-1/n_2."]), st.sampled_from(["", "@", "/"]), paths),
    st.builds("file://{}/{}".format, st.sampled_from(["", "localhost", "/"]), paths),
    st.lists(st.sampled_from(["a", "%2F", "%250a", "%0a", "%41", "/", "..", "%3F"]), max_size=3).map(
        lambda pieces: "file:///" + "".join(pieces)
    ),
)


@fuzz_target(300)
@given(addresses | near_addresses | st.text(max_size=12))
def test_an_address_is_read_or_refused_with_our_own_error_and_prints_as_the_same_address(text):
    try:
        parsed = parse_uri(text)
    except URIError as error:
        event("refused")
        check_refusal(error)
        return
    event(parsed.scheme)
    assert parse_uri(str(parsed)) == parsed
    assert parse_uri(parsed) is parsed
    below = parsed / "x.json"
    assert (below.scheme, below.location, below.revision) == (parsed.scheme, parsed.location, parsed.revision)
    assert below.path == posixpath.join(parsed.path, "x.json")


@fuzz_target()
@given(
    st.sampled_from(["s3", "gs", "az", "hf", "file", "S3", "https", "minio"]),
    st.sampled_from(["://", ":/", ":"]),
    st.from_regex(r"[A-Za-z0-9+=_/%-]{12,40}", fullmatch=True),
    st.from_regex(r"[a-z0-9.-]{2,9}(/[a-z]{0,4}){0,2}([?#][a-z]{0,3})?", fullmatch=True),
)
def test_a_secret_in_an_address_is_never_shown(scheme, middle, secret, rest):
    with pytest.raises(URIError, match="has credentials in it") as caught:
        parse_uri(f"{scheme}{middle}AKIAEXAMPLE:{secret}@{rest}")
    assert secret not in repr(caught.value)
    assert "AKIAEXAMPLE" not in repr(caught.value)


def check_refusal(error: URIError) -> None:
    assert error.hint
    assert all(line.isprintable() and line.isascii() for line in str(error).splitlines())
