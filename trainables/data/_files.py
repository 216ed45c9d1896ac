"""Bytes and text of local files, with errors that say where the trouble is."""

from __future__ import annotations

import gzip
import unicodedata
import zlib
from pathlib import Path

from trainables.data._table import did_you_mean
from trainables.errors import DataError
from trainables.store import file_digest

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def existing_file(path: str | Path) -> Path:
    """Return ``path`` if it is a file.

    Raises:
        DataError: It does not exist or is a folder.
    """
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{file} is a folder; name the file in it")
    if not file.is_file():
        siblings = [entry.name for entry in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(
            f"{file} does not exist{did_you_mean(file.name, siblings)} "
            "(a relative path starts at the folder of the config)"
        )
    return file


def digest(path: str | Path) -> str:
    """Return the sha256 of an existing file."""
    file = existing_file(path)
    try:
        return file_digest(file)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def read_bytes(path: str | Path) -> bytes:
    """Return the content of a file, unpacked if its name ends with ``.gz``.

    Raises:
        DataError: Missing, unreadable, empty, or not gzip although it is named so.
    """
    file = existing_file(path)
    try:
        content = file.read_bytes()
        if file.suffix == ".gz" and content:
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{file} is not a complete gzip file ({error}); copy it again or drop the .gz"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    if not content.strip():
        raise DataError(f"{file} is empty; a header line and labelled rows are expected")
    return content


def read_text(path: str | Path) -> str:
    """Return the content of a UTF-8 text file, without a byte order mark.

    Raises:
        DataError: As ``read_bytes``, or NUL bytes, or not UTF-8; names the line and the cure.
    """
    content = read_bytes(path)
    if content.startswith(_UTF16_MARKS):
        raise DataError(f"{path} is UTF-16, not UTF-8; {_conversion(path, 'UTF-16')}")
    nul = content.find(b"\0")
    if nul >= 0:
        raise DataError(
            f"{path}, line {_line(content, nul)}: NUL byte at offset {nul}; "
            "remove it, or check that the file is really text"
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder strips the mark before it counts.
        start = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        raise DataError(
            f"{path} is not UTF-8: byte 0x{content[start]:02x} at offset {start} "
            f"(line {_line(content, start)}); {_conversion(path, _guess(content))}"
        ) from error


def _line(content: bytes, offset: int) -> int:
    return content.count(b"\n", 0, offset) + 1


def _conversion(path: str | Path, encoding: str) -> str:
    name = Path(path).name
    return f"convert it, for example: iconv -f {encoding} -t UTF-8 {name} > utf8-{name}"


def _guess(content: bytes) -> str:
    """Guess between the two legacy encodings that are common in practice."""
    try:
        beyond_ascii = [char for char in content.decode("gb18030") if ord(char) > 127]
    except UnicodeDecodeError:
        return "WINDOWS-1252"
    ideographs = sum(unicodedata.name(char, "").startswith("CJK") for char in beyond_ascii)
    return "GB18030" if ideographs * 2 > len(beyond_ascii) else "WINDOWS-1252"
