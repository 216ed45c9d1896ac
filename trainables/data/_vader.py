"""The rated snippets that the vaderSentiment sdist carries."""

from __future__ import annotations

import tarfile
from pathlib import Path

from trainables.data._table import Table, make_table
from trainables.errors import DataError

_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"
_GENRES = {
    "tweets": "tweets",
    "movieReviewSnippets": "movies",
    "amazonReviewSnippets": "products",
    "nytEditorialSnippets": "editorials",
}


def read_vader(folder: Path, where: str) -> Table:
    """Read the four genres; the label is genre/polarity, a mean rating of exactly 0 has none.

    Args:
        folder: The unpacked sdist.
        where: The name of the source in messages.

    Raises:
        DataError: The package does not hold the files.
    """
    archives = list(folder.glob(f"*/{_ARCHIVE}"))
    if len(archives) != 1:
        raise DataError(f"{where} does not hold {_ARCHIVE}; use version 3.3.2")
    texts: list[str | None] = []
    labels: list[str | None] = []
    try:
        with tarfile.open(archives[0]) as archive:
            for stem, genre in _GENRES.items():
                member = archive.extractfile(f"hutto_ICWSM_2014/{stem}_GroundTruth.txt")
                assert member is not None, "the name is that of a regular file"
                for line in member.read().decode("utf-8").split("\r\n"):
                    rating, text = _rating_and_text(line)
                    if rating != 0.0:
                        texts.append(text)
                        labels.append(f"{genre}/{'positive' if rating > 0 else 'negative'}")
    except (KeyError, ValueError, tarfile.TarError, OSError) as error:
        raise DataError(f"{where} is not laid out as version 3.3.2 is: {error}") from error
    return make_table(where, texts, labels)


def _rating_and_text(line: str) -> tuple[float, str]:
    if not line:
        return 0.0, ""
    _, rating, text = line.split("\t", 2)
    return float(rating), text
