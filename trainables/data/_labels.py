"""The label map, and whether all parts of the data agree on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

from trainables.data._table import Table, did_you_mean

_LABELLED = ("train", "dev", "test")


def label_map(train: Table) -> tuple[str, ...]:
    """Return the classes by id: in the declared order, otherwise sorted by name."""
    present = set(train.labels or ())
    if train.classes is not None:
        return tuple(name for name in train.classes if name in present)
    return tuple(sorted(present))


def label_problems(tables: Mapping[str, Table]) -> tuple[list[str], list[str]]:
    """Return what makes the labels unusable, and what is merely worth a note."""
    train = tables["train"]
    classes = set(train.labels or ())
    problems = []
    if len(classes) < 2:
        problems.append(
            f"train has a single class, {next(iter(classes), 'none')!r}; "
            "a classifier needs two, check the label column"
        )
    for role in _LABELLED[1:]:
        unknown = (
            Counter(label for label in (tables[role].labels or ()) if label not in classes)
            if role in tables
            else Counter()
        )
        problems += [
            f"{role} has {count} rows of class {name!r}, which train lacks"
            f"{did_you_mean(name, classes)}; add training rows or remove them"
            for name, count in sorted(unknown.items())[:8]
        ]
        if len(unknown) > 8:
            problems.append(f"{role} has {len(unknown) - 8} more classes that train lacks")
    notes = _lookalikes(classes)
    undeclared = set(train.classes or ()) - classes
    if undeclared:
        listed = ", ".join(repr(name) for name in sorted(undeclared)[:8])
        notes.append(f"declared classes without a training row were left out: {listed}")
    return problems, notes


def _lookalikes(classes: set[str]) -> list[str]:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(classes):
        alike[" ".join(name.split()).casefold()].append(repr(name))
    return [
        f"classes {' and '.join(names)} differ only in case or spaces"
        for names in alike.values()
        if len(names) > 1
    ]
