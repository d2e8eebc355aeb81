from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmtp.errors import URIError, WmtpError
from wmtp.storage.uri import ModelURI, parse_uri


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("/models/a", ModelURI("file", "", "/models/a")),
        ("/models/a//", ModelURI("file", "", "/models/a")),
        ("./a", ModelURI("file", "", "./a")),
        ("a", ModelURI("file", "", "a")),
        ("/", ModelURI("file", "", "/")),
        ("file:///models/a%20b", ModelURI("file", "", "/models/a b")),
        ("file://localhost/models", ModelURI("file", "", "/models")),
        ("s3://bucket", ModelURI("s3", "bucket", "")),
        ("s3://bucket/key/of/model/", ModelURI("s3", "bucket", "key/of/model")),
        ("gs://bucket/key", ModelURI("gs", "bucket", "key")),
        ("az://container/key", ModelURI("az", "container", "key")),
        ("hf://org/name", ModelURI("hf", "org/name", "")),
        ("hf://org/name@v1.0", ModelURI("hf", "org/name", "", "v1.0")),
        (Path("/models/x:y"), ModelURI("file", "", "/models/x:y")),
        (ModelURI("s3", "b", "k"), ModelURI("s3", "b", "k")),
    ],
    ids=str,
)
def test_every_form_of_address_is_read_from_its_text_alone(text, parsed):
    assert parse_uri(text) == parsed


@pytest.mark.parametrize("text", ["/models/a", "s3://bucket/key", "gs://bucket", "hf://org/name@v1.0"])
def test_an_address_prints_as_it_was_written(text):
    assert str(parse_uri(text)) == text


@pytest.mark.parametrize(
    ("text", "below"),
    [("/", "/x"), ("/a", "/a/x"), (".", "./x"), ("s3://box", "s3://box/x"), ("hf://o/n@r", "hf://o/n/x@r")],
)
def test_a_name_is_joined_below_an_address(text, below):
    assert str(parse_uri(text) / "x") == below


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("", "'' is not an address", "use /path, ./path"),
        ("a\nb", r"'a\nb' has a character in it that cannot be printed", "use /path"),
        ("/a\x7f", r"'/a\x7f' has a character in it that cannot be printed", "use /path"),
        ("S3://b/k", "has the unknown scheme 'S3'", "did you mean 's3'?"),
        ("https://host/x", "has the unknown scheme 'https'", "s3://bucket/key"),
        ("C:/models", "has the unknown scheme 'C'", "use /path"),
        ("s3:/bucket/key", "lacks // after s3:", "s3://bucket/key"),
        ("file://host/path", "names the host 'host'", "three slashes"),
        ("file:///a%0Ab", "has a character in it that cannot be printed", "file:///path"),
        ("file:///a?b", "has a '?' after it", "without a query"),
        ("s3://bucket/key?versionId=1", "has a '?' after it", "without a query"),
        ("s3://bucket/key#part", "has a '#' after it", "without a query"),
        ("s3:///key", "has no valid bucket name: ''", "write s3://bucket/key"),
        ("gs://b/k", "has no valid bucket name: 'b'", "write gs://bucket/key"),
        ("s3://bucket/a/../b", "the key has the part '..' in it", "plain key"),
        ("az://box//k", "the key is an absolute path", "plain key"),
        ("hf://name", "is not a repository on the Hub", "hf://org/name"),
        ("hf://org/name/sub", "is not a repository on the Hub", "hf://org/name"),
        ("hf://org/name@", "is not a repository on the Hub", "hf://org/name@revision"),
        ("hf://org/name@../x", "is not a repository on the Hub", "hf://org/name@revision"),
    ],
)
def test_what_is_no_address_is_refused_with_the_form_to_write(text, problem, hint):
    with pytest.raises(URIError) as caught:
        parse_uri(text)
    assert problem in caught.value.problem
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIAKEY:secret@bucket/key",
        "s3://AKIAKEY:se/cret@bucket/key",
        "s3://AKIAKEY:secret@bucket/key?version=1",
        "s3:/AKIAKEY:secret@bucket",
        "S3://AKIAKEY:secret@bucket",
        "https://user:secret@host/model",
        "s3://AKIAKEY:sec%0Aret@bucket",
        "hf://user:secret@org/name",
        "file://user:secret@host/path",
        "s3://secret@bucket",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address):
    with pytest.raises(URIError, match=":// address has credentials in it") as caught:
        parse_uri(address)
    assert not any(part in str(caught.value) for part in ("secret", "cret", "AKIA", "user", "ret@"))


@pytest.mark.parametrize("address", ["hf://org/name@v1", "file:///models/a:b@c", "./a:b@c", "/a@b"])
def test_an_at_sign_that_names_no_user_is_no_secret(address):
    assert "@" in str(parse_uri(address))


@given(st.sampled_from(["", "file://", "s3://", "hf://", "x:"]), st.text())
def test_any_text_is_an_address_that_prints_back_or_our_own_error(scheme, rest):
    try:
        parsed = parse_uri(scheme + rest)
    except WmtpError:
        return
    assert parsed.scheme in ("file", "s3", "gs", "az", "hf")
    assert parse_uri(parsed) == parsed
