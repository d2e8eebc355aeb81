"""Addresses: what an operator may mistype, and what somebody may get an operator to paste."""

from __future__ import annotations

from hostile.bases import llama
from hostile.case import Case, refusals

refused = refusals("uris", base=llama)


def _case(sentence: str, uri: str, errors: str, *naming: str, **how: object) -> Case:
    return refused(sentence, errors, naming, uri=uri, **how)


CASES = [
    _case("an address of nothing", "", "URIError", "''"),
    _case("an address of a space", " ", "URIError NotFoundError", "no such directory|' '"),
    _case(
        "an address with a line in it",
        "{directory}\nINFO: verified",
        "URIError",
        "\\nINFO",
        "control character|cannot be printed",
    ),
    _case("an address with a terminal escape", "{directory}\x1b[2J", "URIError", "\\x1b"),
    _case("an address with a NUL", "{directory}\0.safetensors", "URIError", "\\x00"),
    _case(
        "an address with an escaped line",
        "file://{directory}%0AINFO",
        "URIError",
        "control character|cannot be printed",
    ),
    _case("an address with an escaped NUL", "file://{directory}%00", "URIError", "control character|cannot be printed"),
    _case("an address with a control character of eight bits", "{directory}\x9b31m", "URIError NotFoundError", "\\x9b"),
    _case("an address that turns the text around", "{directory}\u202emitp", "URIError NotFoundError", "\\u202e"),
    _case(
        "an address with letters of another alphabet",
        "{directory}/\u0441heckpoint",
        "URIError NotFoundError",
        "no such directory",
    ),
    _case("an address with a lone surrogate", "{directory}/\udc80", "URIError NotFoundError StorageError", "\\udc80"),
    _case("an address of half a character", "file://{directory}/%ff", "URIError NotFoundError", "no such directory"),
    _case("an address of the web", "https://example.invalid/model", "URIError", "'https'"),
    _case("an address of a shell", "ext::sh -c touch", "URIError", "'ext'"),
    _case("an address of data", "data:application/json,{}", "URIError", "'data'"),
    _case("an address in capitals", "S3://bucket/key", "URIError", "'S3'", "did you mean"),
    _case("an address of a drive", "C:\\models\\llama", "URIError", "'C'"),
    _case("an address of another host", "file://fileserver/models", "URIError", "'fileserver'"),
    _case("an address with a query", "file://{directory}?trust=1", "URIError", "'?'"),
    _case("an address with a fragment", "s3://bucket/key#part", "URIError", "'#'"),
    _case("an address with a slash too few", "s3:/bucket/key", "URIError", "//"),
    _case(
        "an address with a secret",
        "s3://AKIAEXAMPLE:hunter2@bucket/key",
        "URIError",
        "credentials",
        hiding=("hunter2", "AKIAEXAMPLE"),
    ),
    _case(
        "an address with a secret in its query",
        "s3://bucket/key?X-Amz-Signature=hunter2",
        "URIError",
        "'?'",
        hiding=("hunter2",),
    ),
    _case(
        "an address with a secret for the web",
        "https://me:hunter2@example.invalid/x",
        "URIError",
        "https",
        hiding=("hunter2",),
    ),
    _case("an address with a secret for a hub", "hf://token:hunter2@org/name", "URIError", "hf:", hiding=("hunter2",)),
    _case("a bucket without a name", "s3:///key", "URIError", "bucket"),
    _case("a bucket that climbs", "s3://../key", "URIError", "bucket"),
    _case("a key that climbs", "s3://bucket/a/../../other/key", "URIError", "'..'"),
    _case("a key with an escape", "gs://bucket/a%2f..%2fb", "URIError", "percent"),
    _case("a key with a backslash", "az://container/a\\b", "URIError", "backslash"),
    _case("a repository with a revision that climbs", "hf://org/name@../../x", "URIError", "Hub"),
    _case("a repository with parts too many", "hf://org/name/file", "URIError", "Hub"),
    _case("a directory that is not there", "{directory}/absent", "NotFoundError", "absent", "no such directory"),
    _case(
        "a directory beside the one that is there", "{directory}-old", "NotFoundError", "checkpoint-old", "'checkpoint'"
    ),
    _case(
        "a file in place of a directory", "{directory}/config.json", "NotFoundError", "config.json", "not a directory"
    ),
    _case("a device in place of a directory", "/dev/null", "NotFoundError", "/dev/null", "not a directory"),
    _case("a name beyond what a disk can hold", "/" + "a" * 300, "StorageError NotFoundError URIError", "aaa"),
    _case(
        "a path beyond what a disk can hold", "{directory}" + "/a" * 2200, "StorageError NotFoundError URIError", "/a/a"
    ),
    _case("a directory of the system", "/dev/fd", "NotFoundError StorageError", "metadata.json"),
]
