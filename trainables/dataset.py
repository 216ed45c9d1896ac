"""From a data spec to two artifacts: what training may see, and the test split.

``data`` holds train, dev and transfer rows and the label map; ``testset`` holds the test rows.
Trials are given the key of the first only, and nothing in it leads to the second: the test split
is read by confirm, once.

Legend: N rows, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from trainables.data._division import Division, divide
from trainables.data._part import UNLABELLED, SplitTable
from trainables.data._sources import open_sources
from trainables.data._spec import DataSpec
from trainables.data._table import DataSource
from trainables.errors import ArtifactMissing, DataError
from trainables.store import Store, atomic_write, content_key

__all__ = [
    "UNLABELLED",
    "DataSpec",
    "PreparedData",
    "SplitTable",
    "load_prepared",
    "load_split",
    "load_test",
    "prepare",
]

SPLITS = ("train", "dev", "transfer")
LAYOUT = 1

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class PreparedData:
    """What is known about a prepared data set without reading its rows.

    Attributes:
        key: Key of the ``data`` artifact.
        test_key: Key of the ``testset`` artifact; None without a test split, and always None when
            loaded by the data key.
        classes: Class names by id.
        rows: Rows of each split.
        class_counts: Labelled rows by class id, for train, dev and test.
        duplicates: Repeated texts, within and across the parts.
        majority: Dev accuracy of always answering the biggest class of dev.
        notes: What the user should know, one sentence each.
        groups: Superclass id of each class id, or None.
        group_names: Superclass names by id, or None.
        digest: Identifies the source files whatever the spec says about splits.
        blocks: Groups of ``data.group`` in each labelled split, or None without such a column.
    """

    key: str
    test_key: str | None
    classes: tuple[str, ...]
    rows: dict[str, int]
    class_counts: dict[str, list[int]]
    duplicates: dict[str, int]
    majority: float
    notes: tuple[str, ...]
    groups: tuple[int, ...] | None
    group_names: tuple[str, ...] | None
    digest: str
    blocks: dict[str, int] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; ``from_dict`` takes them back."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PreparedData:
        """Return what ``to_dict`` was called on."""
        known: dict[str, Any] = {
            # Data prepared before a field existed has its default.
            field.name: values[field.name] if field.default is MISSING else values.get(field.name)
            for field in fields(cls)
        }
        for name in ("classes", "notes", "groups", "group_names"):
            if known[name] is not None:
                known[name] = tuple(known[name])
        return cls(**known)


def prepare(spec: DataSpec, store: Store, *, progress: Progress | None = None) -> PreparedData:
    """Read, check and divide the data of a spec, unless the store holds the result.

    Only checksums of the sources are taken when it does.

    Args:
        spec: What to read and how to divide it.
        store: Where the artifacts go.
        progress: Called with a short message before each slow step.

    Raises:
        DataError: The data cannot be used; the message lists all problems, one on each line.
        ComponentError: The source is unknown or does not take a field of the spec.
    """
    tell = progress or _silent
    sources = open_sources(spec, store)
    digests = _for_each(sources, lambda source: source.digest())
    digest = content_key({"sources": digests})
    identity = content_key(_recipe(spec, digests))
    key = content_key({"data": identity})
    test_key = content_key({"testset": identity}) if spec.test is not None else None
    try:
        if test_key is not None:
            store.read("testset", test_key)
        return _describe(store.read("data", key).meta, key, test_key)
    except ArtifactMissing:
        pass
    tell(f"reading {', '.join(sources)}")
    tables = _for_each(sources, lambda source: source.read())
    tell(f"dividing {len(tables['train'].texts)} training rows")
    division = divide(spec, tables)
    if test_key is not None:
        _write_test(store, test_key, division)
    _write_data(store, key, division, digest)
    return _describe(store.read("data", key).meta, key, test_key)


def load_prepared(store: Store, key: str) -> PreparedData:
    """Return what is known about a ``data`` artifact; never tells where the test split is.

    Raises:
        ArtifactMissing: The store does not hold it.
    """
    return _describe(store.read("data", key).meta, key, None)


def load_split(store: Store, key: str, split: str) -> SplitTable:
    """Return train, dev or transfer rows of a ``data`` artifact; transfer may have none.

    Raises:
        DataError: There is no such split here; the test split never is.
        ArtifactMissing: The store does not hold the data.
    """
    if split not in SPLITS:
        raise DataError(f"data has the splits {', '.join(SPLITS)}, but not {split!r}")
    return _read_table(store.read("data", key).file(f"{split}.parquet"))


def load_test(store: Store, test_key: str) -> SplitTable:
    """Return the test rows of a ``testset`` artifact.

    Raises:
        ArtifactMissing: The store does not hold it.
    """
    return _read_table(store.read("testset", test_key).file("test.parquet"))


def _recipe(spec: DataSpec, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return everything that changes the splits; paths do not, contents do."""
    fields_that_matter = spec.to_dict()
    for name in ("source", "path", "max_length", "sha256", "revision"):
        del fields_that_matter[name]
    if spec.group is None:
        del fields_that_matter["group"]  # so that a field added later renames no old data
    for name in digests.keys() & {"dev", "test", "transfer"}:
        fields_that_matter[name] = "part"
    fields_that_matter["dev"] = fields_that_matter["dev"] or spec.dev_part
    return {"layout": LAYOUT, "sources": dict(digests), "spec": fields_that_matter}


def _for_each(sources: Mapping[str, DataSource], action: Callable[[DataSource], T]) -> dict[str, T]:
    """Apply ``action`` to every source and report the problems of all together."""
    results, problems = {}, []
    for role, source in sources.items():
        try:
            results[role] = action(source)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(dict.fromkeys(problems)))
    return results


def _write_data(store: Store, key: str, division: Division, digest: str) -> None:
    counts = _class_counts(division)
    groups = division.groups
    with store.write("data", key) as draft:
        for split in SPLITS:
            _write_table(draft.path / f"{split}.parquet", division.splits[split])
        labels = {
            "classes": list(division.classes),
            "groups": None if groups is None else list(groups.of_class),
            "group_names": None if groups is None else list(groups.names),
        }
        text = json.dumps(labels, ensure_ascii=False, indent=1)
        atomic_write(draft.path / "labels.json", text.encode("utf-8"), durable=False)
        draft.meta |= {
            **labels,
            "rows": {split: len(table.texts) for split, table in division.splits.items()},
            "class_counts": counts,
            "duplicates": division.duplicates,
            "majority": max(counts["dev"]) / sum(counts["dev"]),
            "notes": list(division.notes),
            "digest": digest,
            **({} if division.blocks is None else {"blocks": division.blocks}),
        }


def _write_test(store: Store, test_key: str, division: Division) -> None:
    with store.write("testset", test_key) as draft:
        _write_table(draft.path / "test.parquet", division.splits["test"])
        draft.meta |= {
            "rows": len(division.splits["test"].texts),
            "classes": list(division.classes),
        }


def _class_counts(division: Division) -> dict[str, list[int]]:
    return {
        split: np.bincount(table.labels, minlength=len(division.classes)).tolist()
        for split, table in division.splits.items()
        if split != "transfer"
    }


def _describe(meta: Mapping[str, Any], key: str, test_key: str | None) -> PreparedData:
    return PreparedData.from_dict({**meta, "key": key, "test_key": test_key})


def _write_table(path: Path, table: SplitTable) -> None:
    columns = {
        "id": pa.array(table.ids, pa.int64()),
        "text": pa.array(table.texts, pa.large_string()),
        "label": pa.array(table.labels, pa.int64()),
    }
    if table.blocks is not None:
        columns["block"] = pa.array(table.blocks, pa.int64())
    pq.write_table(pa.table(columns), path, compression="zstd")


def _read_table(path: Path) -> SplitTable:
    table = pq.read_table(path)
    return SplitTable(
        ids=np.array(table["id"].to_numpy()),
        texts=table["text"].to_pylist(),
        labels=np.array(table["label"].to_numpy()),
        blocks=np.array(table["block"].to_numpy()) if "block" in table.column_names else None,
    )


def _silent(message: str) -> None:
    """Report nothing."""
