"""Numbers as people say them."""

from __future__ import annotations

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def size(num_bytes: int) -> str:
    """Return a number of bytes as people say it: `931 bytes`, `2.5 kB`, `13.5 GB`."""
    amount, unit = float(num_bytes), 0
    while amount >= 999.95 and unit < len(_UNITS) - 1:  # what would be rounded to 1000.0
        amount, unit = amount / 1000, unit + 1
    return f"{num_bytes} bytes" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def counted(number: int, what: str) -> str:
    """Return a number of things in words: `1 head`, `4 heads`."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def file_count(num_files: int) -> str:
    """Return a number of files in words."""
    return counted(num_files, "file")
