"""The table every data source returns, and the checks all sources share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainables.errors import DataError


@dataclass(frozen=True)
class Table:
    """Texts with their labels as a source wrote them.

    Attributes:
        texts: One text per row, none of them blank.
        labels: One label per row, always strings; None when no label column was asked for.
        groups: The superclass of each row, when a superclass column was asked for.
        classes: The order of the classes, when the source declares one.
        blocks: What keeps rows together, when a group column was asked for.
        notes: What was dropped or repaired while reading, one sentence each.
    """

    texts: list[str]
    labels: list[str] | None = None
    groups: list[str] | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    blocks: list[str] | None = None


class DataSource(Protocol):
    """What a component of kind ``data`` offers; ``path`` says where, the rest which columns."""

    def read(self) -> Table:
        """Read all rows.

        Raises:
            DataError: The source is missing, malformed or has no such column.
        """
        ...

    def digest(self) -> str:
        """Identify the content without parsing it: a checksum or a pinned revision."""
        ...

    def part(self, name: str) -> str:
        """Return the ``path`` under which another part (dev, test) of this source is found."""
        ...


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the closest known name, or nothing."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def scalar_text(value: Any) -> str | None:
    """Write a cell as a string; None if it is missing or not a single value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    return None


def make_table(
    where: str,
    texts: Sequence[str | None],
    labels: Sequence[str | None] | None = None,
    groups: Sequence[str | None] | None = None,
    classes: tuple[str, ...] | None = None,
    blocks: Sequence[str | None] | None = None,
) -> Table:
    """Check the rows of one source and drop those without text.

    Args:
        where: The name of the source in messages.
        texts: One text per row; None or blank rows are dropped and counted in a note.
        labels: One label per row, or None for unlabelled data.
        groups: One superclass per row, or None.
        classes: The declared order of the classes, if any.
        blocks: The group of each row that must stay in one split, or None.

    Raises:
        DataError: No rows, no text at all, NUL characters, or rows without a label.
    """
    if not texts:
        raise DataError(f"{where} has a header but no rows; add rows or point to another file")
    keep = [row for row, text in enumerate(texts) if text is not None and text.strip()]
    if not keep:
        raise DataError(
            f"all {len(texts)} texts of {where} are empty; name the column that holds the text"
        )
    kept = [texts[row] or "" for row in keep]
    _refuse_nul(where, kept, keep)
    clean = [_without_surrogates(text) for text in kept]
    notes = []
    if len(keep) < len(texts):
        notes.append(f"{where}: {len(texts) - len(keep)} rows with an empty text were dropped")
    repaired = sum(before != after for before, after in zip(kept, clean, strict=True))
    if repaired:
        notes.append(f"{where}: {repaired} texts held half a surrogate pair, now U+FFFD")
    return Table(
        texts=clean,
        labels=_complete(where, "label", labels, keep),
        groups=_complete(where, "superclass", groups, keep),
        classes=classes,
        notes=tuple(notes),
        blocks=_complete(where, "group", blocks, keep),
    )


def _complete(
    where: str, what: str, values: Sequence[str | None] | None, keep: list[int]
) -> list[str] | None:
    if values is None:
        return None
    missing = [row for row in keep if not (values[row] or "").strip()]
    if missing:
        raise DataError(
            f"{len(missing)} rows of {where} have no {what} (the first is data row "
            f"{missing[0] + 1}); fill them in, or move unlabelled rows to the transfer file"
        )
    return [_without_surrogates(values[row] or "") for row in keep]


def _refuse_nul(where: str, texts: list[str], rows: list[int]) -> None:
    for row, text in zip(rows, texts, strict=True):
        if "\0" in text:
            raise DataError(
                f"{where}, data row {row + 1}: the text holds a NUL character; "
                "remove it, or check that the file is really text"
            )


def _without_surrogates(text: str) -> str:
    # JSON can escape half a surrogate pair; UTF-8, Parquet and the tokenizers cannot hold it.
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text
