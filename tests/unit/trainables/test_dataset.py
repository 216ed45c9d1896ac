import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trainables import dataset
from trainables.data import csv as csv_source
from trainables.data._table import Table
from trainables.dataset import (
    UNLABELLED,
    DataSpec,
    PreparedData,
    load_prepared,
    load_split,
    load_test,
    prepare,
)
from trainables.errors import ArtifactMissing, ComponentError, DataError
from trainables.store import Store

Rows = Sequence[tuple[str, ...]]


def rows(per_class: int, classes: str = "abc", tag: str = "") -> list[tuple[str, str]]:
    # Sorted by label on purpose: a reader of the first rows must still see every class.
    return [(f"{tag}{label} number {n}", label) for label in classes for n in range(per_class)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(folder: Path, content: Rows, name: str = "train.csv", *more: str) -> str:
    with (folder / name).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label", *more), *content])
    return str(folder / name)


def texts(store: Store, data: PreparedData, split: str) -> set[str]:
    return set(load_split(store, data.key, split).texts)


def problems(spec: dict[str, Any], store: Store) -> str:
    with pytest.raises(DataError) as caught:
        prepare(DataSpec.from_dict(spec), store)
    assert not store.keys("data")
    assert not store.keys("testset")
    return str(caught.value)


def test_carves_stratified_splits(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, rows(40))
    data = prepare(DataSpec(path=path, dev=0.1, test=24), store)
    assert data.rows == {"train": 84, "dev": 12, "test": 24, "transfer": 0}
    assert data.classes == ("a", "b", "c")
    assert data.class_counts == {"train": [28] * 3, "dev": [4] * 3, "test": [8] * 3}
    assert data.majority == pytest.approx(1 / 3)
    train, dev = (load_split(store, data.key, split) for split in ("train", "dev"))
    test = load_test(store, data.test_key or "")
    everything = [*train.texts, *dev.texts, *test.texts]
    assert sorted(everything) == sorted(text for text, _ in rows(40))
    assert len({*train.ids.tolist(), *dev.ids.tolist(), *test.ids.tolist()}) == 120
    for table in (train, dev, test):
        assert [data.classes[label] for label in table.labels] == [t[0] for t in table.texts]
    assert set(train.labels[:20].tolist()) == {0, 1, 2}


def test_second_call_reads_checksums_only(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DataSpec(path=write(tmp_path, rows(20)), test=6)
    first = prepare(spec, store)

    def read(self: object) -> None:
        raise AssertionError("the source was read again")

    monkeypatch.setattr(csv_source.Csv, "read", read)
    assert prepare(spec, Store(store.root)) == first
    moved = write(tmp_path, rows(20), "copy.csv")
    longer = DataSpec(path=moved, test=6, max_length=7)
    assert prepare(longer, store) == first
    with pytest.raises(AssertionError):
        prepare(DataSpec(path=moved, test=6, seed=1), store)


def test_described_by_manifests_alone(tmp_path: Path, store: Store) -> None:
    data = prepare(DataSpec(path=write(tmp_path, rows(20)), test=6), store)
    assert PreparedData.from_dict(json.loads(json.dumps(data.to_dict()))) == data
    loaded = load_prepared(store, data.key)
    assert loaded == PreparedData.from_dict({**data.to_dict(), "test_key": None})


def test_the_data_key_does_not_lead_to_the_test_split(tmp_path: Path, store: Store) -> None:
    data = prepare(DataSpec(path=write(tmp_path, rows(20)), test=6), store)
    artifact = store.read("data", data.key)
    held_out = load_test(store, data.test_key or "")
    for file in artifact.path.iterdir():
        assert (data.test_key or "").encode() not in file.read_bytes()
    for split in dataset.SPLITS:
        assert not texts(store, data, split) & set(held_out.texts)
    with pytest.raises(DataError, match="but not 'test'"):
        load_split(store, data.key, "test")
    with pytest.raises(ArtifactMissing):
        load_test(store, data.key)


def test_damaged_artifact_is_made_again(tmp_path: Path, store: Store) -> None:
    spec = DataSpec(path=write(tmp_path, rows(20)))
    data = prepare(spec, store)
    store.read("data", data.key).file("train.parquet").write_bytes(b"torn")
    assert prepare(spec, Store(store.root)) == data
    assert len(load_split(Store(store.root), data.key, "train").texts) == 54


def test_labelled_and_the_rest_as_transfer(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, rows(40))
    spec = DataSpec(path=path, dev=12, labelled=30, transfer="rest")
    data = prepare(spec, store)
    assert data.rows == {"train": 30, "dev": 12, "transfer": 78}
    assert data.class_counts["train"] == [10] * 3
    transfer = load_split(store, data.key, "transfer")
    assert set(transfer.labels.tolist()) == {UNLABELLED}
    dropped = prepare(DataSpec(path=path, dev=12, labelled=30), store)
    assert dropped.rows == {"train": 30, "dev": 12, "transfer": 0}
    assert texts(store, dropped, "train") == texts(store, data, "train")


def test_ids_survive_a_new_split(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, rows(20))
    named = []
    for seed in (0, 1):
        data = prepare(DataSpec(path=path, seed=seed), store)
        tables = [load_split(store, data.key, split) for split in ("train", "dev")]
        named.append({t: i for x in tables for t, i in zip(x.texts, x.ids.tolist(), strict=True)})
    assert named[0] == named[1]


def test_duplicates_are_counted_and_removed(tmp_path: Path, store: Store) -> None:
    train = write(
        tmp_path,
        [*rows(10), ("a  number 0", "a"), ("b number 1", "c"), ("in dev", "a"), ("in test", "b")],
    )
    dev = write(tmp_path, [*rows(3, tag="dev "), ("in dev", "a"), ("In both", "a")], "dev.csv")
    test = write(tmp_path, [*rows(3, tag="test "), ("in test", "b"), ("In both", "a")], "test.csv")
    transfer = write(
        tmp_path,
        [("c number 2", ""), ("in test", ""), ("new", ""), ("new ", ""), ("newer", "")],
        "transfer.csv",
    )
    spec = {"path": train, "dev": dev, "test": test, "transfer": transfer}
    data = prepare(DataSpec.from_dict(spec), store)
    expected = {
        "within_train": 2,
        "train_dev": 1,
        "train_test": 1,
        "dev_test": 1,
        "within_transfer": 1,
        "train_transfer": 2,
        "test_transfer": 1,
        "conflicting": 1,
    }
    assert {name: count for name, count in data.duplicates.items() if count} == expected
    assert data.rows == {"train": 30, "dev": 11, "test": 11, "transfer": 2}
    assert texts(store, data, "transfer") == {"new", "newer"}
    assert any("removed from train and transfer" in note for note in data.notes)
    assert any("1 texts carry more than one label" in note for note in data.notes)

    kept = prepare(DataSpec.from_dict({**spec, "dedupe": False}), store)
    assert kept.rows == {"train": 34, "dev": 11, "test": 11, "transfer": 5}
    assert kept.duplicates == data.duplicates
    ids = load_split(store, kept.key, "train").ids
    assert len(set(ids.tolist())) == 34


def test_parts_of_other_file_types(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, rows(5))
    dev = tmp_path / "dev.jsonl"
    dev.write_text("\n".join(json.dumps({"text": f"x {c}", "label": c}) for c in "abc"))
    transfer = tmp_path / "more.tsv"
    transfer.write_text("text\nunlabelled\n")
    data = prepare(DataSpec(path=path, dev=str(dev), transfer=str(transfer)), store)
    assert data.rows == {"train": 15, "dev": 3, "transfer": 1}


def test_integer_like_labels_stay_strings(tmp_path: Path, store: Store) -> None:
    content = [(f"{label} {n}", label) for label in ("10", "9", "null", "01") for n in range(5)]
    data = prepare(DataSpec(path=write(tmp_path, content), dev=4), store)
    assert data.classes == ("01", "10", "9", "null")


def test_superclass_column_and_mapping(tmp_path: Path, store: Store) -> None:
    content = [(text, label, "late" if label == "c" else "early") for text, label in rows(6)]
    path = write(tmp_path, content, "train.csv", "group")
    column = prepare(DataSpec(path=path, superclass="group", dev=3), store)
    assert (column.groups, column.group_names) == ((0, 0, 1), ("early", "late"))
    mapping = {"a": "early", "b": "early", "c": "late"}
    mapped = prepare(DataSpec(path=path, superclass=mapping, dev=3), store)
    assert mapped.groups == column.groups
    assert load_prepared(store, column.key).group_names == ("early", "late")
    labels = json.loads(store.read("data", mapped.key).file("labels.json").read_bytes())
    assert labels["groups"] == [0, 0, 1]


def test_superclass_problems(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, rows(6))
    message = problems({"path": path, "superclass": {"a": "x", "b": "y", "cc": "x"}}, store)
    assert "lacks 1 classes, the first is 'c', did you mean 'cc'?" in message
    assert "'cc', which is not a class of train" in message
    assert "into one superclass" in problems(
        {"path": path, "superclass": dict.fromkeys("abc", "x")}, store
    )
    mixed = [(text, label, text[-1]) for text, label in rows(6)]
    path = write(tmp_path, mixed, "mixed.csv", "group")
    assert "class 'a' has rows of several" in problems({"path": path, "superclass": "group"}, store)


def test_label_problems_are_listed_together(tmp_path: Path, store: Store) -> None:
    train = write(tmp_path, rows(5, "a"))
    dev = write(tmp_path, [("x", "A"), ("y", "a")], "dev.csv")
    test = write(tmp_path, [("z", "q"), ("w", "q")], "test.csv")
    message = problems({"path": train, "dev": dev, "test": test}, store).splitlines()
    assert len(message) == 3
    assert "single class, 'a'" in message[0]
    assert "dev has 1 rows of class 'A', which train lacks" in message[1]
    assert "test has 2 rows of class 'q'" in message[2]


def test_reading_problems_are_listed_together(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, rows(5))
    missing = {"path": path, "dev": str(tmp_path / "no.csv"), "test": str(tmp_path / "nor.csv")}
    assert len(problems(missing, store).splitlines()) == 2
    empty = tmp_path / "empty.csv"
    empty.touch()
    assert "is empty" in problems({"path": path, "dev": str(empty)}, store)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dev": 2}, "data.dev = 2 gives 2 of 30 rows, too few for 3 classes"),
        ({"dev": 0.01}, "data.dev = 0.01 gives 0 of 30 rows"),
        ({"dev": 29}, "dev together take 29 of 30 rows"),
        ({"dev": 15, "test": 15}, "test and dev together take 30 of 30"),
        ({"labelled": 28}, "only 27 training rows are left"),
        ({"labelled": 2}, "cannot cover 3 classes"),
    ],
)
def test_impossible_sizes(
    tmp_path: Path, store: Store, change: dict[str, Any], message: str
) -> None:
    assert message in problems({"path": write(tmp_path, rows(10)), **change}, store)


def test_rare_and_absent_classes(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, [*rows(10), ("one", "rare")])
    assert "1 of 4 classes have fewer than 2 training rows: 'rare' (1)" in problems(
        {"path": path}, store
    )
    dev = write(tmp_path, [("d1", "a"), ("d2", "b")], "dev.csv")
    assert "dev has no row of 2 classes: 'c', 'rare'" in problems({"path": path, "dev": dev}, store)
    data = prepare(DataSpec(path=write(tmp_path, rows(10), "t.csv"), test=dev), store)
    assert "test has no row of 1 classes: 'c'" in data.notes


def test_lookalike_classes_are_noted(tmp_path: Path, store: Store) -> None:
    content = [*rows(5, "ab"), *(("x", "A"), ("y", "A"), ("z", "A"))]
    data = prepare(DataSpec(path=write(tmp_path, content), dev=4), store)
    assert "classes 'A' and 'a' differ only in case or spaces" in data.notes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dev": 1.5}, "data.dev must be a share between 0 and 1"),
        ({"test": True}, "data.test must be"),
        ({"dev": 0}, "data.dev must be"),
        ({"transfer": "rest"}, "data.labelled is not given"),
        ({"labelled": 0}, "data.labelled must be"),
        ({"seed": "1"}, "data.seed must be"),
        ({"label": None}, "data.label must be a name"),
        ({"lable": "x"}, "no field 'lable', did you mean 'label'?"),
    ],
)
def test_impossible_specs(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        DataSpec.from_dict({"path": "x.csv", **values})
    assert message in str(caught.value)


def test_spec_round_trip() -> None:
    spec = DataSpec(path="x.csv", dev=None, superclass={"a": "b"})
    assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.dev_part == 0.1


def test_sources_that_do_not_fit(store: Store) -> None:
    with pytest.raises(ComponentError, match="unknown data source 'cvs', did you mean 'csv'"):
        prepare(DataSpec(source="cvs", path="x"), store)
    with pytest.raises(ComponentError, match="needs the parameter 'path'"):
        prepare(DataSpec(), store)
    with pytest.raises(ComponentError, match="no parameter 'revision'"):
        prepare(DataSpec(path="x", revision="main"), store)


class Declared:
    """A source of a user's own that declares the order of its classes."""

    def __init__(self, *, path: str) -> None:
        self.path = path

    def read(self) -> Table:
        content = rows(int(self.path))
        classes = ("c", "never", "a", "b")
        return Table([text for text, _ in content], [label for _, label in content], None, classes)

    def digest(self) -> str:
        return self.path

    def part(self, name: str) -> str:
        return name


def test_a_users_own_source_and_its_order_of_classes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("their_data")
    module.Declared = Declared  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "their_data", module)
    data = prepare(DataSpec(source="their_data:Declared", path="10", dev=3, test="4"), store)
    assert data.classes == ("c", "a", "b")
    assert data.rows["test"] == 12
    assert "declared classes without a training row were left out: 'never'" in data.notes
