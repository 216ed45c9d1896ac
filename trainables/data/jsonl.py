"""JSON Lines files."""

from __future__ import annotations

import json
from typing import Any

from trainables.data import _columns, _files
from trainables.data._table import Table, make_table, scalar_text
from trainables.errors import DataError


class Jsonl:
    """JSON Lines: one object per line, UTF-8, also ``.gz``.

    Numbers keep the digits they are written with: a label ``1.0`` is not ``1``.

    Args:
        path: The file.
        text: The key of the text.
        label: The key of the label; None reads unlabelled rows.
        superclass: The key of the superclass of the row, if there is one.
        group: The key whose rows stay in one split, if there is one.
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
        # Not str.splitlines: JSON strings may hold U+2028 and others unescaped.
        lines = _files.read_text(self.path).split("\n")
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        rows = [(number, self._object(number, line)) for number, line in numbered]
        keys = list(dict.fromkeys(key for _, row in rows for key in row))
        found = _columns.locate(self.path, keys, self.text, self.label, self.superclass, self.group)
        columns = {
            role: [self._cell(number, row, keys[position]) for number, row in rows]
            for role, position in found.items()
        }
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

    def _object(self, number: int, line: str) -> dict[str, Any]:
        try:
            value = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{self.path}, line {number} is not JSON: {error}; each line holds one object"
            ) from error
        if not isinstance(value, dict):
            raise DataError(
                f"{self.path}, line {number} is not an object; write "
                f'{{"{self.text}": "...", "{self.label or "label"}": "..."}} on each line'
            )
        return value

    def _cell(self, number: int, row: dict[str, Any], key: str) -> str | None:
        value = row.get(key)
        if isinstance(value, dict | list):
            raise DataError(
                f"{self.path}, line {number}: {key!r} is a {type(value).__name__}, "
                "but a single value is needed"
            )
        return scalar_text(value)


COMPONENT = Jsonl
