"""From tables to splits: label map, duplicates, stratified dev, test and transfer rows.

A pure function of the spec and the tables. Every problem is found before any is reported.

Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainables.data import _blocks, _rows
from trainables.data._duplicates import count_duplicates, duplicate_notes, without_duplicates
from trainables.data._groups import Groups, assign_groups
from trainables.data._labels import label_map, label_problems
from trainables.data._part import Part, SplitTable
from trainables.data._spec import REST, DataSpec
from trainables.data._table import Table
from trainables.errors import DataError


@dataclass(frozen=True)
class Division:
    """The finished splits and what was found on the way.

    Attributes:
        splits: ``train``, ``dev``, ``transfer`` (maybe without rows) and, if asked for, ``test``.
        classes: Class names by id.
        groups: The superclass of each class, if the spec gives a hierarchy.
        duplicates: Repeated texts: ``within_train``, ``train_dev`` and so on, ``conflicting``.
        notes: What the user should know, one sentence each.
        blocks: Groups of ``data.group`` in each labelled split, or None.
    """

    splits: dict[str, SplitTable]
    classes: tuple[str, ...]
    groups: Groups | None
    duplicates: dict[str, int]
    notes: tuple[str, ...]
    blocks: dict[str, int] | None = None


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
    given = {role: Part.of(table, numbers) for role, table in tables.items()}
    parts = without_duplicates(given) if spec.dedupe else dict(given)
    carving = _Carving(spec, classes, parts)
    splits = carving.run()
    _raise(carving.problems)
    duplicates = count_duplicates(given, splits)
    notes += carving.notes + duplicate_notes(duplicates, spec.dedupe)
    # A file sorted by label must not give a reader of the first rows a single class.
    for role in ("train", "transfer"):
        splits[role] = splits[role].where(_rows.shuffled(splits[role].ids, spec.seed, role))
    tables_out = {role: part.table(role) for role, part in splits.items()}
    labelled = {role: part.blocks for role, part in splits.items() if role != "transfer"}
    blocks = {role: found for role, found in labelled.items() if found is not None}
    notes += [] if spec.group is None else _blocks.notes(spec.group, blocks)
    counts = _blocks.counts(blocks) if blocks else None
    return Division(tables_out, classes, groups, duplicates, tuple(notes), counts)


@dataclass
class _Carving:
    """Takes test, dev and labelled rows out of the training part, in this order."""

    spec: DataSpec
    classes: tuple[str, ...]
    parts: dict[str, Part]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _spare: dict[str, int] = field(default_factory=dict)

    def run(self) -> dict[str, Part]:
        """Return the splits; meaningless when ``problems`` is not empty."""
        splits = dict(self.parts)
        total = len(splits["train"].ids)
        wanted = {"test": self.spec.test, "dev": self.spec.dev_part}
        counts = {role: _count(part, total) for role, part in wanted.items() if _carved(part)}
        self._check(splits["train"], counts)
        if self.problems:
            return splits
        if splits["train"].blocks is not None:
            # What is carved later, and train itself, must find blocks too.
            self._spare = {role: len(counts) - place for place, role in enumerate(counts)}
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

    def _take(self, part: Part, count: int, purpose: str) -> tuple[Part, Part]:
        # Labelled rows and the rest are both trained on, so groups may lie on both sides.
        if part.blocks is not None and purpose in self._spare:
            chosen = _blocks.choose(
                part.labels,
                part.blocks,
                count,
                len(self.classes),
                spare=self._spare[purpose],
                seed=self.spec.seed,
                purpose=purpose,
            )
            return part.where(chosen), part.where(~chosen)
        order = _rows.shuffled(part.ids, self.spec.seed, purpose)
        chosen = _rows.stratified(part.labels, order, count, len(self.classes))
        return part.where(chosen), part.where(~chosen)

    def _check(self, train: Part, counts: Mapping[str, int]) -> None:
        total, n_classes = len(train.ids), len(self.classes)
        needed = 1 + len(counts)
        if train.blocks is not None and train.n_blocks < needed:
            self.problems.append(
                f"the column {self.spec.group!r} of data.group has {train.n_blocks} different "
                f"values, but {' and '.join(['train', *counts])} need {needed} at least; name "
                "another column, or leave data.group out"
            )
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

    def _check_coverage(self, splits: Mapping[str, Part]) -> None:
        for role in ("train", "dev"):
            absent = self._absent(splits[role])
            if absent:
                cure = "or leave data.dev out so that it is carved from train"
                if self._spare:
                    cure = "ask for a larger share, or leave data.group out"
                self.problems.append(
                    f"{role} has no row of {len(absent)} classes: {_some(absent)}; "
                    f"without them no metric over all classes means anything: add rows, {cure}"
                )
        if "test" in splits and (absent := self._absent(splits["test"])):
            self.notes.append(f"test has no row of {len(absent)} classes: {_some(absent)}")

    def _absent(self, part: Part) -> list[str]:
        sizes = np.bincount(part.labels, minlength=len(self.classes))
        return [repr(name) for name, size in zip(self.classes, sizes, strict=True) if not size]


def _carved(part: float | int | str | None) -> bool:
    return part is not None and not isinstance(part, str)


def _count(part: float | int | str | None, total: int) -> int:
    assert isinstance(part, int | float)
    return part if isinstance(part, int) else round(part * total)


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _raise(problems: list[str]) -> None:
    if problems:
        raise DataError("\n".join(problems))
