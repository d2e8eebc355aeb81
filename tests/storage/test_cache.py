"""The cache: what is fetched once is complete, and found again."""

import hashlib

import pytest

from cached_files import DATA, SHA256, SOURCE, BrokenServer, Server, hashed, left, names
from wmtp.errors import ChangedError, IntegrityError, StorageError
from wmtp.storage import cache as cache_module
from wmtp.storage.cache import Source, VerifiedCache


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cached(root):
    """The blob of a cache that has one file."""
    return VerifiedCache(root).receive(SOURCE, Server(), sha256=SHA256)


def test_a_file_is_fetched_once_and_then_found_by_any_process(root, monkeypatch):
    server = Server()
    assert VerifiedCache(root).find(SOURCE) is None
    assert not root.exists()
    path = VerifiedCache(root).receive(SOURCE, server, sha256=None)
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == path == root / "blobs" / SHA256
    assert VerifiedCache(root).receive(SOURCE, server, sha256=SHA256) == path
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (DATA, 0o444)
    assert (server.starts, seen, left(root)) == ([0], [], [])
    assert (root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


@pytest.mark.parametrize("other", [("s3://lab/model2", "model.safetensors", '"v1"'), ("s3://lab/model", "a", '"v1"'),
                                   ("s3://lab/model", "model.safetensors", '"v2"')])  # fmt: skip
def test_another_address_name_or_version_is_another_file(root, cached, other):
    uri, name, version = other
    source = Source(uri, name, len(DATA), version)
    assert VerifiedCache(root).find(source) is None
    server = Server()
    assert VerifiedCache(root).receive(source, server, sha256=None) == cached
    assert server.starts == [0]


def test_bytes_of_a_known_digest_are_not_fetched_for_a_second_checkpoint(root, cached):
    server, copy = Server(), Source("s3://mirror/model", "model.safetensors", len(DATA), "")
    assert VerifiedCache(root).receive(copy, server, sha256=SHA256) == cached
    assert server.starts == []


def test_a_file_whose_version_is_not_known_is_kept_for_one_cache_object_only(root):
    source, cache = Source("s3://lab/model", "a", len(DATA), ""), VerifiedCache(root)
    path = cache.receive(source, Server(), sha256=None)
    assert cache.find(source) == path
    assert VerifiedCache(root).find(source) is None


def test_an_empty_file_is_a_file(root):
    source, server = Source("s3://lab/model", "empty", 0, '"v"'), Server(b"")
    assert VerifiedCache(root).receive(source, server, sha256=None).read_bytes() == b""
    assert VerifiedCache(root).find(source).name == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("bad", [DATA[:-1], DATA + b"x", b"\xff" + DATA[1:], b""])
def test_wrong_bytes_are_fetched_once_more(root, bad):
    server = Server(bad, DATA)
    assert VerifiedCache(root).receive(SOURCE, server, sha256=SHA256).read_bytes() == DATA
    assert (server.starts, left(root)) == ([0, 0], [])


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (DATA[:-1], "only 511,999 of its 512,000 bytes came"),
        (DATA + b"x", "more came than the 512,000 bytes that it has"),
        (b"\xff" + DATA[1:], "it has sha256:"),
    ],
    ids=["short", "long", "flipped"],
)
def test_bytes_that_are_wrong_twice_are_refused_and_nothing_is_left(root, bad, problem):
    with pytest.raises(IntegrityError) as caught:
        VerifiedCache(root).receive(SOURCE, Server(bad), sha256=SHA256)
    assert caught.value.problem.startswith(f"s3://lab/model/model.safetensors: fetched twice, and {problem}")
    assert (names(root / "blobs"), left(root), VerifiedCache(root).find(SOURCE)) == ([], [], None)


def test_a_wrong_digest_is_named_beside_the_expected_one(root):
    bad = b"\xff" + DATA[1:]
    found = hashlib.sha256(bad).hexdigest()
    with pytest.raises(IntegrityError, match=f"sha256:{found}, sha256:{SHA256} is expected"):
        VerifiedCache(root).receive(SOURCE, Server(bad), sha256=SHA256)


@pytest.mark.parametrize("error", [StorageError("the line is dead", "x"), KeyboardInterrupt()])
def test_after_a_broken_connection_the_next_run_goes_on_from_there(root, error):
    with pytest.raises(type(error)):
        VerifiedCache(root).receive(SOURCE, BrokenServer(300_000, error), sha256=SHA256)
    assert VerifiedCache(root).find(SOURCE) is None
    server = Server()
    assert VerifiedCache(root).receive(SOURCE, server, sha256=None).read_bytes() == DATA
    assert (server.starts, left(root)) == ([300_000], [])


@pytest.mark.parametrize("version", ['"v2"', ""])
def test_a_part_of_another_version_or_of_none_is_not_gone_on_from(root, version):
    for known in ('"v1"', ""):
        source = Source(SOURCE.uri, SOURCE.name, len(DATA), known)
        with pytest.raises(StorageError):
            VerifiedCache(root).receive(source, BrokenServer(9000, StorageError("dead", "x")), sha256=None)
    server = Server()
    VerifiedCache(root).receive(Source(SOURCE.uri, SOURCE.name, len(DATA), version), server, sha256=None)
    assert server.starts == [0]


def test_nothing_is_kept_of_an_object_that_changed(root):
    with pytest.raises(ChangedError):
        VerifiedCache(root).receive(SOURCE, BrokenServer(9000, ChangedError("changed", "x")), sha256=None)
    assert left(root) == []


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("WMTP_CACHE", str(tmp_path / "own"))
    assert VerifiedCache().root == tmp_path / "own"
    monkeypatch.delenv("WMTP_CACHE")
    assert VerifiedCache().root == tmp_path / "xdg/wmtp"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert VerifiedCache().root == tmp_path / ".cache/wmtp"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("WMTP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache_module.Path, "home", no_home)
    with pytest.raises(StorageError, match=r"no home directory\nhint: name a directory of yours in WMTP_CACHE"):
        VerifiedCache()


def test_hostile_names_and_addresses_become_no_paths(root):
    source = Source("s3://lab/" + "../" * 50, "../../../x\x1b[2J\x00" + "n" * 5000, len(DATA), "\x00'\n")
    path = VerifiedCache(root).receive(source, Server(), sha256=None)
    assert VerifiedCache(root).find(source) == path == root / "blobs" / SHA256
    assert max(len(found.name) for found in root.rglob("*")) == 69
