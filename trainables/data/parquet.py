"""Parquet files."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from trainables.data import _columns, _files
from trainables.data._table import Table, make_table, scalar_text
from trainables.errors import DataError


class Parquet:
    """Parquet file, also ``.gz``; labels may be strings, integers, booleans or categories.

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
        content = _files.read_bytes(self.path)
        try:
            file = pq.ParquetFile(io.BytesIO(content))
            header = file.schema_arrow.names
            found = _columns.locate(
                self.path, header, self.text, self.label, self.superclass, self.group
            )
            wanted = [header[position] for position in found.values()]
            table = file.read(columns=list(dict.fromkeys(wanted)))
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self.path} is not a readable Parquet file: {error}; write it again"
            ) from error
        columns = {role: self._cells(table, name) for role, name in zip(found, wanted, strict=True)}
        return make_table(
            self.path,
            columns["text"],
            columns.get("label"),
            columns.get("superclass"),
            blocks=columns.get("group"),
        )

    def digest(self) -> str:
        """Return the sha256 of the file."""
        return _files.digest(self.path)

    def part(self, name: str) -> str:
        """Another part is another file."""
        return name

    def _cells(self, table: pa.Table, name: str) -> list[str | None]:
        try:
            values = table[name].to_pylist()
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DataError(
                f"column {name!r} of {self.path} cannot be decoded: {error}; write it as UTF-8"
            ) from error
        if any(isinstance(value, dict | list | bytes) for value in values):
            raise DataError(
                f"column {name!r} of {self.path} has type {table[name].type}; "
                "write it as strings or numbers"
            )
        return [scalar_text(value) for value in values]


COMPONENT = Parquet
