"""Unpacking archives that strangers made."""

from __future__ import annotations

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from trainables.errors import DataError

MOST_BYTES = 8 * 2**30
MOST_FILES = 100_000

_BLOCK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    NotImplementedError,  # a compression method of zip that Python does not have
    FileExistsError,  # two members of one name, or a file and a folder
    NotADirectoryError,
    IsADirectoryError,
)


def unpack(archive: Path, target: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Write the regular files of a zip, wheel or tar archive below ``target``.

    Args:
        archive: The archive.
        target: A folder that does not exist yet.
        most_bytes: Refuse to write more than this.

    Raises:
        DataError: Unreadable, too big, or with members that would end up outside ``target`` or
            are links or devices.
    """
    target.mkdir(parents=True)
    left = most_bytes
    try:
        for count, (name, stream) in enumerate(_members(archive)):
            if count >= MOST_FILES:
                raise DataError(f"{archive.name} holds more than {MOST_FILES} files; refused")
            with stream:
                left = _copy(stream, _inside(archive, target, name), left)
            if left < 0:
                raise DataError(f"{archive.name} unpacks to more than {most_bytes} bytes; refused")
    except _BROKEN as error:
        raise DataError(
            f"{archive.name} is not a readable archive: {error}; delete it and download it again"
        ) from error


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(archive):
        yield from _zip_members(archive)
    else:
        yield from _tar_members(archive)


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if entry.is_dir():
                continue
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
                raise _refusal(archive, entry.filename)
            yield entry.filename, opened.open(entry)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive) as opened:
        for entry in opened:
            if entry.isdir():
                continue
            stream = opened.extractfile(entry) if entry.isreg() else None
            if stream is None:
                raise _refusal(archive, entry.name)
            yield entry.name, stream


def _inside(archive: Path, target: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
        raise _refusal(archive, name)
    return target.joinpath(*path.parts)


def _refusal(archive: Path, name: str) -> DataError:
    return DataError(
        f"{archive.name} holds {name!r}, which is a link, a device, encrypted or outside its own "
        "folder; refused"
    )


def _copy(stream: IO[bytes], path: Path, left: int) -> int:
    """Copy at most ``left`` bytes; return what is left, negative if that was not enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while block := stream.read(_BLOCK):
            left -= len(block)
            if left < 0:
                break
            file.write(block)
    return left
