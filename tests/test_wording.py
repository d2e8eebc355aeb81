import pytest

from wmtp.wording import counted, file_count, size


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 bytes"),
        (931, "931 bytes"),
        (2_500, "2.5 kB"),
        (999, "999 bytes"),
        (1_000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (13_500_000_000, "13.5 GB"),
    ],
)
def test_bytes_are_said_in_the_unit_that_a_person_would_use(num_bytes, words):
    assert size(num_bytes) == words


def test_more_than_terabytes_are_still_terabytes():
    assert size(5_000 * 10**12) == "5000.0 TB"


@pytest.mark.parametrize(("count", "words"), [(0, "0 files"), (1, "1 file"), (1_234, "1,234 files")])
def test_files_are_counted_in_the_right_number(count, words):
    assert file_count(count) == words


def test_things_are_counted_in_the_right_number():
    assert [counted(number, "module") for number in (0, 1, 2)] == ["0 modules", "1 module", "2 modules"]
