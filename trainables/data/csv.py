"""Comma-separated files."""

from __future__ import annotations

from trainables.data import _delimited, _files
from trainables.data._table import Table


class Csv:
    """Comma-separated file with a header line, UTF-8, also ``.gz``; RFC 4180 quoting.

    Cells are never interpreted: a label ``01``, ``null`` or ``nan`` stays what it is.

    Args:
        path: The file.
        text: The column with the text.
        label: The column with the label; None reads unlabelled rows.
        superclass: The column with the superclass of the row, if there is one.
        group: The column whose rows stay in one split, if there is one.
    """

    def __init__(
        self,
        *,
        path: str,
        text: str = "text",
        label: str | None = "label",
        superclass: str | None = None,
        group: str | None = None,
    ) -> None:
        self.path, self.text, self.label = path, text, label
        self.superclass, self.group = superclass, group

    def read(self) -> Table:
        """Read all rows; see ``DataSource.read``."""
        rows = _delimited.quoted_rows(self.path, _files.read_text(self.path), ",")
        return _delimited.to_table(
            self.path, rows, self.text, self.label, self.superclass, self.group
        )

    def digest(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest(self.path)

    def part(self, name: str) -> str:
        """Another part is another file."""
        return name


COMPONENT = Csv
