"""What a large file holds, some of it at a time and without compression."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from wmtp.data.content import NotTextError, opened

_PART_BYTES = 1 << 20


def text_parts(path: Path, where: str) -> Iterator[str]:
    """Yield a text file in parts; one by gzip or zstd is unpacked.

    Args:
        path: The file.
        where: What messages call it.

    Raises:
        DataError: If it cannot be read.
        NotTextError: If it is not UTF-8, or has NUL characters.
    """
    decoder, passed = codecs.getincrementaldecoder("utf-8-sig")(), 0
    with opened(path) as (file, _):
        is_last = False
        while not is_last:
            data = file.read(_PART_BYTES)
            is_last = len(data) == 0
            try:
                text = decoder.decode(data, is_last)
            except UnicodeDecodeError as error:
                raise NotTextError(where, f"{error.reason} behind byte {passed:,}") from error
            if "\0" in text:
                raise NotTextError(where, "it has NUL characters")
            passed += len(data)
            if text:
                yield text


def line_parts(path: Path, most: int) -> Iterator[bytes]:
    """Yield the lines of a file with their ends; what is longer than `most` bytes comes in parts of that length."""
    with opened(path) as (file, _):
        while line := file.readline(most):
            yield line
