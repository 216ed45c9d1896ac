"""Tab-separated files."""

from __future__ import annotations

from trainables.data import _delimited, _files
from trainables.data._table import Table


class Tsv:
    """Tab-separated file with a header line, UTF-8, also ``.gz``; quotes are optional.

    Two dialects are in use: raw lines, where a quote is a character like any other, and quoted
    cells as spreadsheets write them. If every line has as many tabs as the header, the file is
    raw, and only cells wholly in quotes lose them; otherwise the quoting rules of csv apply.

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
        content = _files.read_text(self.path)
        rows: _delimited.Rows | None = _raw_rows(content)
        if rows is None:
            rows = _delimited.quoted_rows(self.path, content, "\t")
        return _delimited.to_table(
            self.path, rows, self.text, self.label, self.superclass, self.group
        )

    def digest(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest(self.path)

    def part(self, name: str) -> str:
        """Another part is another file."""
        return name


def _raw_rows(content: str) -> list[tuple[int, list[str]]] | None:
    # Not str.splitlines: it also breaks at U+2028, form feeds and others that texts contain.
    lines = [line.removesuffix("\r") for line in content.split("\n")]
    rows = [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line]
    if any(len(row) != len(rows[0][1]) for _, row in rows):
        return None
    return [(number, [_unquote(cell) for cell in row]) for number, row in rows]


def _unquote(cell: str) -> str:
    if len(cell) >= 2 and cell[0] == cell[-1] == '"':
        inner = cell[1:-1]
        if '"' not in inner.replace('""', ""):
            return inner.replace('""', '"')
    return cell


COMPONENT = Tsv
