"""Disks that are full or read-only, caches that are damaged: said with numbers, and nothing half-done stays."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faults.child import run_with_mounts
from faults.site import BUCKET, CONFIG, WEIGHTS, Site
from servers.faults import slow
from wmtp.errors import StorageError

KEY = f"model/{WEIGHTS}"

FILLED_MEANWHILE = """
import pathlib, threading, time
uri, name, cache = sys.argv[1:]
cache, filler = pathlib.Path(cache), pathlib.Path(cache, "filler")

def fill():
    while not any(part.stat().st_size for part in cache.glob("parts/*.part")):
        time.sleep(0.001)
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass

thread = threading.Thread(target=fill)
thread.start()
fetch(uri, name)
thread.join()
print("left:", *cache.rglob("*.part"))
filler.unlink()
assert fetch(uri, name)
"""


def mounted(cache: Path, size: str) -> str:
    cache.mkdir(exist_ok=True)
    return f"mount -t tmpfs -o size={size} tmpfs '{cache}'"


def test_a_disk_without_room_is_an_error_with_needed_and_free_bytes(large_site: Site):
    site, size = large_site, len(large_site.files[WEIGHTS])
    program = "fetch(*sys.argv[1:3]); import pathlib; print('left:', *pathlib.Path(sys.argv[3]).rglob('*.part'))"
    said = run_with_mounts(mounted(site.cache, "4m"), program, site.uri, WEIGHTS, str(site.cache))
    assert said.startswith("StorageError"), said
    needed, free = (int(number.replace(",", "")) for number in re.findall(r"(\d[\d,]+) (?:bytes )?are", said))
    assert (size <= needed < size + (2 << 20), free < 5 << 20) == (True, True)
    assert "left:\n" in said
    assert "hint: " in said
    assert not site.server.asked("GET", KEY)
    site.survives(site.fetch)


def test_a_disk_that_fills_up_in_mid_write_is_named_and_the_rest_removed(large_site: Site):
    site = large_site
    site.server.fault(slow(0.003), key=KEY)
    said = run_with_mounts(mounted(site.cache, "30m"), FILLED_MEANWHILE, site.uri, WEIGHTS, str(site.cache))
    error, _, rest = said.partition("left:")
    assert error.startswith("StorageError"), said
    for word in ("No space left", f"{len(site.files[WEIGHTS]):,}", "free", str(site.cache)):
        assert word in error
    assert rest.startswith("\nfetched"), said


def test_a_complete_entry_in_a_read_only_cache_loads_and_another_says_why_not(site: Site):
    site.fetch(CONFIG)
    sealed = f"mount --bind '{site.cache}' '{site.cache}' && mount -o remount,ro,bind '{site.cache}'"
    before = site.server.asked("GET")
    program = "print(fetch(sys.argv[1], sys.argv[2])); print(fetch(sys.argv[1], sys.argv[3]))"
    said = run_with_mounts(sealed, program, site.uri, CONFIG, WEIGHTS)
    first, second = said.split("True\n")
    assert first.startswith("fetched")
    assert second.startswith("StorageError")
    for word in (str(site.cache), "Read-only", "WMTP_CACHE", "--no-cache"):
        assert word in second
    assert not [request for request in site.server.asked("GET")[len(before) :] if request.key.endswith(CONFIG)]
    site.survives(site.fetch)


def test_a_cache_that_is_no_directory_is_an_error_that_names_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WMTP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="WMTP_CACHE") as caught:
        site.fetch(CONFIG)
    assert str(tmp_path / "file") in caught.value.problem
    monkeypatch.setenv("WMTP_CACHE", str(tmp_path / "other"))
    site.survives(site.fetch)


def test_a_file_of_the_cache_that_was_changed_is_fetched_again(site: Site):
    site.load()
    blob = next(path for path in (site.cache / "blobs").iterdir() if path.stat().st_size == len(site.files[WEIGHTS]))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    site.server.requests.clear()
    site.load()
    assert site.server.asked("GET", KEY)
    assert blob.read_bytes() == site.files[WEIGHTS]


def test_what_is_in_the_cache_is_not_asked_for_again_while_it_is_the_same_version(site: Site):
    site.load()
    site.server.requests.clear()
    site.load()
    assert not site.server.asked("GET", KEY)
    site.server.put(BUCKET, KEY, site.files[WEIGHTS], etag='"another"')
    site.load()
    assert site.server.asked("GET", KEY)
