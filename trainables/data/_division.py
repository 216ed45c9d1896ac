"""From tables to splits: label map, duplicates, stratified dev, test and transfer rows.

A pure function of the spec and the tables. Every problem is found before any is reported.

Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainables.data import _rows
from trainables.data._groups import Groups, assign_groups
from trainables.data._labels import label_map, label_problems
from trainables.data._rows import Bools, Ints
from trainables.data._spec import REST, DataSpec
from trainables.data._table import Table
from trainables.errors import DataError

UNLABELLED = -100


@dataclass(frozen=True, eq=False)
class SplitTable:
    """The rows of one split.

    Attributes:
        ids: Example ids, all different, int64 ``[N]``.
        texts: N texts as the source wrote them.
        labels: Class ids, -100 where there is no label, int64 ``[N]``.
    """

    ids: Ints
    texts: list[str]
    labels: Ints


@dataclass
class _Part:
    """Rows on their way into a split; ``prints`` are hashes of the normalised texts."""

    texts: list[str]
    prints: Ints
    ids: Ints
    labels: Ints

    @classmethod
    def of(cls, table: Table, classes: Mapping[str, int]) -> _Part:
        prints = _rows.fingerprints(table.texts)
        labels = np.full(len(prints), UNLABELLED, np.int64)
        if table.labels is not None:
            labels[:] = [classes[label] for label in table.labels]
        return cls(table.texts, prints, _rows.example_ids(prints), labels)

    def where(self, chosen: Bools | Ints) -> _Part:
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        texts = [self.texts[row] for row in rows.tolist()]
        return _Part(texts, self.prints[rows], self.ids[rows], self.labels[rows])

    def without_labels(self) -> _Part:
        return _Part(self.texts, self.prints, self.ids, np.full_like(self.labels, UNLABELLED))

    def table(self) -> SplitTable:
        return SplitTable(self.ids, self.texts, self.labels)


@dataclass(frozen=True)
class Division:
    """The finished splits and what was found on the way.

    Attributes:
        splits: ``train``, ``dev``, ``transfer`` (maybe without rows) and, if asked for, ``test``.
        classes: Class names by id.
        groups: The superclass of each class, if the spec gives a hierarchy.
        duplicates: Repeated texts: ``within_train``, ``train_dev`` and so on, ``conflicting``.
        notes: What the user should know, one sentence each.
    """

    splits: dict[str, SplitTable]
    classes: tuple[str, ...]
    groups: Groups | None
    duplicates: dict[str, int]
    notes: tuple[str, ...]


def divide(spec: DataSpec, tables: Mapping[str, Table]) -> Division:
    """Divide the tables of a spec into splits.

    Args:
        spec: The spec; paths in it are already read.
        tables: ``train`` and those of ``dev``, ``test``, ``transfer`` that are parts of their own.

    Raises:
        DataError: The labels or sizes make no sense; the message lists all problems.
    """
    problems, notes = label_problems(tables)
    classes, groups = label_map(tables["train"]), None
    if spec.superclass is not None:
        groups, group_problems = assign_groups(spec.superclass, classes, tables["train"])
        problems += group_problems
    _raise(problems)
    notes = [*(note for table in tables.values() for note in table.notes), *notes]

    numbers = {name: number for number, name in enumerate(classes)}
    given = {role: _Part.of(table, numbers) for role, table in tables.items()}
    parts = _without_duplicates(given) if spec.dedupe else dict(given)
    carving = _Carving(spec, classes, parts)
    splits = carving.run()
    _raise(carving.problems)
    duplicates = _count_duplicates(given, splits)
    notes += carving.notes + _duplicate_notes(duplicates, spec.dedupe)
    # A file sorted by label must not give a reader of the first rows a single class.
    for role in ("train", "transfer"):
        splits[role] = splits[role].where(_rows.shuffled(splits[role].ids, spec.seed, role))
    tables_out = {role: part.table() for role, part in splits.items()}
    return Division(tables_out, classes, groups, duplicates, tuple(notes))


@dataclass
class _Carving:
    """Takes test, dev and labelled rows out of the training part, in this order."""

    spec: DataSpec
    classes: tuple[str, ...]
    parts: dict[str, _Part]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self) -> dict[str, _Part]:
        """Return the splits; meaningless when ``problems`` is not empty."""
        splits = dict(self.parts)
        total = len(splits["train"].ids)
        wanted = {"test": self.spec.test, "dev": self.spec.dev_part}
        counts = {role: _count(part, total) for role, part in wanted.items() if _carved(part)}
        self._check(splits["train"], counts)
        if self.problems:
            return splits
        for role, count in counts.items():
            splits[role], splits["train"] = self._take(splits["train"], count, role)
        rest = splits["train"].where(np.zeros(0, np.int64))
        if self.spec.labelled is not None:
            if self.spec.labelled > len(splits["train"].ids):
                self.problems.append(
                    f"data.labelled is {self.spec.labelled}, but only "
                    f"{len(splits['train'].ids)} training rows are left; lower it"
                )
                return splits
            splits["train"], rest = self._take(splits["train"], self.spec.labelled, "labelled")
        if self.spec.transfer == REST:
            splits["transfer"] = rest.without_labels()
        splits.setdefault("transfer", rest.where(np.zeros(0, np.int64)))
        self._check_coverage(splits)
        return splits

    def _take(self, part: _Part, count: int, purpose: str) -> tuple[_Part, _Part]:
        order = _rows.shuffled(part.ids, self.spec.seed, purpose)
        chosen = _rows.stratified(part.labels, order, count, len(self.classes))
        return part.where(chosen), part.where(~chosen)

    def _check(self, train: _Part, counts: Mapping[str, int]) -> None:
        total, n_classes = len(train.ids), len(self.classes)
        needed = 1 + len(counts)
        sizes = np.bincount(train.labels, minlength=n_classes)
        named = zip(self.classes, sizes.tolist(), strict=True)
        rare = [f"{name!r} ({size})" for name, size in named if size < needed]
        if rare:
            self.problems.append(
                f"{len(rare)} of {n_classes} classes have fewer than {needed} training rows: "
                f"{_some(rare)}; add rows for them, merge them, or check that "
                f"{self.spec.label!r} is the label column"
            )
        for role, count in counts.items():
            if count < n_classes:
                self.problems.append(
                    f"data.{role} = {getattr(self.spec, role)} gives {count} of {total} rows, "
                    f"too few for {n_classes} classes; ask for more"
                )
        if sum(counts.values()) + n_classes > total:
            self.problems.append(
                f"{' and '.join(counts)} together take {sum(counts.values())} of {total} rows "
                f"and leave too few to train {n_classes} classes; ask for fewer"
            )
        if self.spec.labelled is not None and self.spec.labelled < n_classes:
            self.problems.append(
                f"data.labelled = {self.spec.labelled} rows cannot cover {n_classes} classes; "
                "raise it"
            )

    def _check_coverage(self, splits: Mapping[str, _Part]) -> None:
        for role in ("train", "dev"):
            absent = self._absent(splits[role])
            if absent:
                self.problems.append(
                    f"{role} has no row of {len(absent)} classes: {_some(absent)}; "
                    "without them no metric over all classes means anything: add rows, "
                    "or leave data.dev out so that it is carved from train"
                )
        if "test" in splits and (absent := self._absent(splits["test"])):
            self.notes.append(f"test has no row of {len(absent)} classes: {_some(absent)}")

    def _absent(self, part: _Part) -> list[str]:
        sizes = np.bincount(part.labels, minlength=len(self.classes))
        return [repr(name) for name, size in zip(self.classes, sizes, strict=True) if not size]


def _carved(part: float | int | str | None) -> bool:
    return part is not None and not isinstance(part, str)


def _count(part: float | int | str | None, total: int) -> int:
    assert isinstance(part, int | float)
    return part if isinstance(part, int) else round(part * total)


def _without_duplicates(given: Mapping[str, _Part]) -> dict[str, _Part]:
    """Drop repeated texts from train and transfer, and those that dev or test also hold."""
    parts = dict(given)
    held_out = [given[role].prints for role in ("dev", "test") if role in given]
    seen = np.concatenate([np.zeros(0, np.int64), *held_out])
    for role in ("train", "transfer"):
        if role in parts:
            prints = parts[role].prints
            parts[role] = parts[role].where(~(_rows.repeated(prints) | np.isin(prints, seen)))
            seen = np.concatenate([seen, prints])
    return parts


def _count_duplicates(given: Mapping[str, _Part], splits: Mapping[str, _Part]) -> dict[str, int]:
    """Count repeated texts as the files have them; carved splits are counted as carved."""
    counts = {}
    roles = [role for role in ("train", "dev", "test", "transfer") if role in splits]
    for number, role in enumerate(roles):
        part = given.get(role, splits[role])
        counts[f"within_{role}"] = int(_rows.repeated(part.prints).sum())
        for other in roles[number + 1 :]:
            # A carved split came out of the train file, so the files cannot be compared.
            both = given if role in given and other in given else splits
            counts[f"{role}_{other}"] = int(np.isin(both[role].prints, both[other].prints).sum())
    labelled = [part for part in given.values() if (part.labels != UNLABELLED).all()]
    pairs = np.stack([np.concatenate([getattr(p, what) for p in labelled]) for what in _PAIR])
    pairs = np.unique(pairs, axis=1)
    counts["conflicting"] = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    return counts


_PAIR = ("prints", "labels")
_HELD_OUT = ("within_dev", "within_test", "dev_test")


def _removable(name: str) -> bool:
    return name not in _HELD_OUT and name != "conflicting"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())


def _duplicate_notes(duplicates: Mapping[str, int], removed: bool) -> list[str]:
    notes = []
    gone = {name: count for name, count in duplicates.items() if count and _removable(name)}
    kept = {name: count for name, count in duplicates.items() if count and name in _HELD_OUT}
    if gone:
        fate = "removed from train and transfer" if removed else "kept, as data.dedupe is off"
        notes.append(f"repeated texts, {fate}: {_listed(gone)}")
    if kept:
        notes.append(f"repeated texts, kept because dev and test stay as given: {_listed(kept)}")
    if duplicates["conflicting"]:
        notes.append(f"{duplicates['conflicting']} texts carry more than one label")
    return notes


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _raise(problems: list[str]) -> None:
    if problems:
        raise DataError("\n".join(problems))
