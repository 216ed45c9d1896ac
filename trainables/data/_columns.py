"""Finding the wanted columns in a header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from trainables.data._table import did_you_mean
from trainables.errors import DataError


def locate(
    where: str,
    header: Sequence[str],
    text: str,
    label: str | None,
    superclass: str | None,
    group: str | None,
) -> dict[str, int]:
    """Return the position of each wanted column by its role: text, label, superclass, group.

    Args:
        where: The name of the source in messages.
        header: The column names in their order.
        text: The column with the text.
        label: The column with the label, or None.
        superclass: The column with the superclass, or None.
        group: The column whose rows stay in one split, or None.

    Raises:
        DataError: Duplicate column names, or wanted columns that are not there; lists all.
    """
    names = [name.strip() for name in header]
    problems = [
        f"{where} has {count} columns named {name!r}; rename all but one"
        for name, count in Counter(names).items()
        if count > 1 and name
    ]
    found = {}
    wanted = {"text": text, "label": label, "superclass": superclass, "group": group}
    for role, name in wanted.items():
        if name is None:
            continue
        if name in names:
            found[role] = names.index(name)
        else:
            problems.append(
                f"{where} has no {role} column {name!r}{did_you_mean(name, names)}; "
                f"it has: {', '.join(names)}{_separator_hint(names)}"
            )
    if problems:
        raise DataError("\n".join(problems))
    return found


def _separator_hint(names: list[str]) -> str:
    if len(names) == 1:
        for character, cure in ((";", "save it with commas"), ("\t", "use source: tsv")):
            if character in names[0]:
                return f" (it looks separated by {character!r}: {cure})"
    return ""
