"""Rows of delimited text to a table, shared by csv and tsv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from trainables.data import _columns
from trainables.data._table import Table, make_table
from trainables.errors import DataError

Rows = Iterable[tuple[int, Sequence[str]]]


def quoted_rows(where: str, content: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells, with the quoting rules of RFC 4180.

    Raises:
        DataError: Broken quoting, or a cell so long that a quote must be missing.
    """
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{where}, line {reader.line_num}: {error}; put texts with quotes, commas or "
                'line breaks in quotes and write a quote inside as "", or use jsonl'
            ) from error
        if row:
            yield reader.line_num, row


def to_table(
    where: str,
    rows: Rows,
    text: str,
    label: str | None,
    superclass: str | None,
    group: str | None,
) -> Table:
    """Make a table of rows of which the first is the header.

    Raises:
        DataError: No header, unknown columns, or a row with too few or too many cells.
    """
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        raise DataError(f"{where} is empty; a header line and labelled rows are expected")
    header = first[1]
    found = _columns.locate(where, header, text, label, superclass, group)
    columns: dict[str, list[str | None]] = {role: [] for role in found}
    for line, row in iterator:
        if len(row) != len(header):
            raise DataError(
                f"{where}, line {line}: {len(row)} cells where the header has {len(header)}; "
                "quote texts that hold the separator"
            )
        for role, position in found.items():
            columns[role].append(row[position])
    return make_table(
        where,
        columns["text"],
        columns.get("label"),
        columns.get("superclass"),
        blocks=columns.get("group"),
    )
