from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from trainables.errors import DataError
from trainables.vector_file import read_vectors


def write(tmp_path: Path, content: str, name: str = "v.txt") -> Path:
    path = tmp_path / name
    data = content.encode("utf-8")
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["v.txt", "v.vec.gz"])
@pytest.mark.parametrize("header", ["", "3 2\n"])
def test_reads_the_wanted_tokens(tmp_path: Path, name: str, header: str) -> None:
    path = write(tmp_path, f"{header}a 1 2\nb 3 4\n中 5 6.5\n", name)
    found, width = read_vectors(path, {"a", "中", "missing"})
    assert width == 2
    assert sorted(found) == ["a", "中"]
    np.testing.assert_array_equal(found["中"], np.array([5, 6.5], np.float32))


def test_tokens_may_hold_spaces_and_odd_separators(tmp_path: Path) -> None:
    path = write(tmp_path, "a 1 2\n. . . 3 4\nx\u2028y 5 6\n")
    found, _ = read_vectors(path, {". . .", "x\u2028y"})
    assert set(found) == {". . .", "x\u2028y"}


def test_the_first_of_two_vectors_counts(tmp_path: Path) -> None:
    found, _ = read_vectors(write(tmp_path, "a 1 2\na 3 4\n"), {"a"})
    np.testing.assert_array_equal(found["a"], np.array([1, 2], np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("hello\n", ":1 is neither"),
        ("hello world\n", ":1 is neither"),
        ("a 1 2\na b\n", ":2 does not hold a token and 2 finite numbers"),
        ("b 1 2\na 1 x\n", ":2 does not hold"),
        ("b 1 2\na 1 nan\n", ":2 does not hold"),
    ],
)
def test_names_the_broken_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(write(tmp_path, content), {"a"})


def test_unreadable_files(tmp_path: Path) -> None:
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(b"a 1 2\n" * 1000)[:40])
    binary = tmp_path / "binary.vec"
    binary.write_bytes(b"3 2\n\xff\xfe\x00")
    for path in (torn, binary, tmp_path / "missing.txt"):
        with pytest.raises(DataError, match="cannot read the vectors"):
            read_vectors(path, {"a"})
