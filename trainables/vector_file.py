"""Word vectors in text files: word2vec, GloVe and fastText ``.vec``, also gzipped.

One token and its numbers a line, separated by spaces; word2vec and fastText put a line with the
number of tokens and of dimensions first.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from trainables.errors import DataError


def read_vectors(path: Path, wanted: Collection[str]) -> tuple[dict[str, np.ndarray], int]:
    """Read the vectors of the wanted tokens; other lines are skipped without parsing them.

    Args:
        path: The file; ``.gz`` is unpacked on the way.
        wanted: Tokens to keep.

    Returns:
        The vectors by token, float32 [d], and d.

    Raises:
        DataError: The file cannot be read, or a line does not hold d finite numbers.
    """
    found: dict[str, np.ndarray] = {}
    width = 0
    with _lines(path) as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.rstrip().split(" ")
            if number == 1:
                width = _width(fields, path)
                if len(fields) == 2:
                    continue
            # Tokens may hold spaces themselves (GloVe 840B): count the numbers from the right.
            token = " ".join(fields[:-width])
            if token in wanted and token not in found:
                found[token] = _vector(fields[-width:], path, number)
            elif len(fields) <= width and line.strip():
                raise _broken(path, number, width)
    if not width:
        raise DataError(f"{path} is empty; it must hold one token and its vector a line")
    return found, width


def _width(fields: list[str], path: Path) -> int:
    try:
        width = int(fields[1]) if len(fields) == 2 else len(fields) - 1
    except ValueError:
        width = 0
    if width < 1:
        raise DataError(
            f"{path}:1 is neither 'count dimensions' nor a token with its vector; "
            "it must be a word2vec, GloVe or fastText file in text form"
        )
    return width


def _vector(fields: list[str], path: Path, number: int) -> np.ndarray:
    try:
        values = np.array(fields, dtype=np.float32)
    except ValueError as error:
        raise _broken(path, number, len(fields)) from error
    if not np.isfinite(values).all():
        raise _broken(path, number, len(fields))
    return values


def _broken(path: Path, number: int, width: int) -> DataError:
    return DataError(
        f"{path}:{number} does not hold a token and {width} finite numbers; "
        "download the file again or remove the line"
    )


@contextmanager
def _lines(path: Path) -> Iterator[IO[str]]:
    """Open the file as text and turn what can be wrong with it into one sentence."""
    opener: Callable[..., IO[str]] = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", newline="\n") as stream:
            yield stream
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the vectors in {path}: {error}; "
            "give a complete UTF-8 text file, plain or .gz"
        ) from error
