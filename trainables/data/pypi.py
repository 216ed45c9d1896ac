"""Data that packages on PyPI carry."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from trainables import catalog
from trainables.data._table import DataSource, Table
from trainables.data._vader import read_vader
from trainables.errors import DataError
from trainables.pypi import fetch, parse
from trainables.store import Store

_READERS = {"vadersentiment": read_vader}


class Pypi:
    """File inside a package on PyPI, or a package whose layout is known; checked by sha256.

    ``pypi:vaderSentiment==3.3.2`` is 23.7k snippets in four genres, rated from negative to
    positive (MIT licence); the label is genre/polarity.
    ``pypi:NAME==VERSION#folder/file.csv`` reads a file of any package.

    Args:
        path: ``NAME==VERSION``, with ``#file`` unless the package is a known one.
        store: Where the unpacked package is kept.
        sha256: Expected checksum of the archive; needed unless the project pins it.
        text: The column with the text; known packages have no columns.
        label: The column with the label; None reads unlabelled rows.
        superclass: The column with the superclass of the row, if there is one.
        group: The column whose rows stay in one split, if there is one.

    Source: of the snippets, Hutto and Gilbert 2014, ICWSM.
    """

    def __init__(
        self,
        *,
        path: str,
        store: Store,
        sha256: str | None = None,
        text: str = "text",
        label: str | None = "label",
        superclass: str | None = None,
        group: str | None = None,
    ) -> None:
        self.path, self._store, self._sha256 = path, store, sha256
        package, _, self._member = path.partition("#")
        self._package = parse(package, sha256)
        self._columns = {"text": text, "label": label}
        self._columns |= {"superclass": superclass, "group": group}
        if not self._member and group is not None:
            raise ValueError(f"{package} has no columns, so no column {group!r} to group rows by")
        if not self._member and self._package.normalised not in _READERS:
            raise ValueError(
                f"the layout of {package} is not known; name the file: {path}#folder/file.csv"
            )

    def read(self) -> Table:
        """Read all rows; see ``DataSource.read``."""
        folder = fetch(self._package, self._store)
        if not self._member:
            return _READERS[self._package.normalised](folder, self.path)
        return self._source(folder).read()

    def digest(self) -> str:
        """Return the pinned checksum of the archive and the file in it; downloads nothing."""
        return f"{self._package.sha256}#{self._member}"

    def part(self, name: str) -> str:
        """Another part is another file of the same package."""
        if not self._member:
            raise DataError(
                f"{self.path} has no part {name!r}; give a share or a number of rows to carve"
            )
        return f"{self._package.requirement}#{name}"

    def _source(self, folder: Path) -> DataSource:
        file = (folder / self._member).resolve()
        if not file.is_relative_to(folder.resolve()) or not file.is_file():
            raise DataError(f"{self._package.requirement} has no file {self._member!r}")
        component = PurePath(self._member.removesuffix(".gz")).suffix.removeprefix(".")
        params: dict[str, Any] = {"path": str(file), **self._columns}
        source: DataSource = catalog.build("data", component, **params)
        return source


COMPONENT = Pypi
