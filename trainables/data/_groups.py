"""The hierarchy of classes: which superclass each class belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from trainables.data._table import Table, did_you_mean


@dataclass(frozen=True)
class Groups:
    """A partition of the classes into superclasses.

    Attributes:
        names: Superclass names by id, sorted.
        of_class: Superclass id of each class id.
    """

    names: tuple[str, ...]
    of_class: tuple[int, ...]


def assign_groups(
    superclass: str | Mapping[str, str], classes: tuple[str, ...], train: Table
) -> tuple[Groups | None, list[str]]:
    """Return the hierarchy, or None and the problems with it.

    Args:
        superclass: The name of the column that was read into ``train``, or a mapping from class
            to superclass.
        classes: Class names by id.
        train: The training rows.
    """
    if isinstance(superclass, str):
        mapping, problems = _from_column(train)
    else:
        mapping, problems = {str(key): str(value) for key, value in superclass.items()}, []
        missing = [name for name in classes if name not in mapping]
        if missing:
            problems.append(
                f"data.superclass lacks {len(missing)} classes, the first is {missing[0]!r}"
                f"{did_you_mean(missing[0], mapping)}; name a superclass for each class"
            )
        problems += [
            f"data.superclass names {name!r}, which is not a class of train"
            f"{did_you_mean(name, classes)}"
            for name in mapping
            if name not in classes
        ]
    names = tuple(sorted({mapping[name] for name in classes if name in mapping}))
    if not problems and len(names) < 2:
        problems.append("data.superclass puts all classes into one superclass; two are needed")
    if problems:
        return None, problems
    return Groups(names, tuple(names.index(mapping[name]) for name in classes)), []


def _from_column(train: Table) -> tuple[dict[str, str], list[str]]:
    seen: dict[str, set[str]] = defaultdict(set)
    for label, group in zip(train.labels or (), train.groups or (), strict=True):
        seen[label].add(group)
    problems = [
        f"class {label!r} has rows of several superclasses ({', '.join(sorted(groups))}); "
        "each class belongs to one"
        for label, groups in sorted(seen.items())
        if len(groups) > 1
    ]
    return {label: min(groups) for label, groups in seen.items()}, problems
