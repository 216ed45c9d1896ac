"""The texts behind an export, and what is said where it would be judged by them."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from orchestrator.config import parse_config
from orchestrator.export import export_record
from orchestrator.exporting.seen import SEEN, seen_sentence, write_seen
from orchestrator.materials import prepare_data, prepare_materials
from trainables.data._rows import fingerprints
from trainables.dataset import load_split
from trainables.store import CACHE_VARIABLE, Store
from trainables.testing import tiny_texts


@pytest.fixture(scope="module")
def folder(train: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = train("word")
    target = tmp_path_factory.mktemp("seen") / "old"
    made = export_record(trained.record, trained.store, target, seconds=0, tell=lambda _: None)
    return made.folder


def known_texts(train: Callable[[str], Any]) -> list[str]:
    trained = train("word")
    (data,) = trained.store.keys("data")
    return [t for part in ("train", "dev") for t in load_split(trained.store, data, part).texts]


def write(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])
    return path


def prepare(
    folder: Path, tmp_path: Path, dev: Sequence[str], test: Sequence[str], address: str = ""
) -> Any:
    """Prepare a sweep of new training texts that ``folder`` is to teach; also what it told."""
    names = ["label0", "label1", "label2"]
    texts, labels = tiny_texts(60, seed=5)
    fresh = [
        (f"new{n} {text}", label) for n, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    parts = {
        name: write(tmp_path / f"{name}.csv", [(t, names[n % 3]) for n, t in enumerate(part)])
        for name, part in (("dev", dev), ("test", test))
    }
    config = parse_config(
        {
            "name": "next",
            "data": {
                "path": str(write(tmp_path / "train.csv", fresh)),
                **{name: str(path) for name, path in parts.items()},
            },
            "teachers": [{"name": "old", "exported": str(folder)}],
        }
    )
    store, told = Store(address or tmp_path / "store"), list[str]()
    data = prepare_data(config, store, told.append)
    materials = prepare_materials(config, data, store, told.append)
    key = materials.teachers[0].spec.key
    return store, key, data.rows, [line for line in told if line.startswith("warning")]


def test_the_fingerprints_are_those_of_train_and_dev(
    folder: Path, train: Callable[[str], Any]
) -> None:
    found = load_file(folder / SEEN)["fingerprints"]
    assert sorted(set(fingerprints(known_texts(train)).tolist())) == found.tolist()


def test_texts_it_knows_are_counted_and_told(
    folder: Path, train: Callable[[str], Any], tmp_path: Path
) -> None:
    known = [text for text in known_texts(train) if text.strip()]
    dev = [f"  {known[0]} ", known[1], *(f"other {n}" for n in range(10))]
    test = [*known[2:5], *(f"another {n}" for n in range(12))]
    store, key, rows, told = prepare(folder, tmp_path, dev, test)
    metrics = store.meta("teacher", key)["metrics"]
    assert (metrics["seen_dev"], metrics["seen_test"]) == (2, 3)
    assert told == [f"warning: {seen_sentence('old', metrics, rows)}"]
    assert "old has learned from 2 of 12 dev texts and 3 of 15 test texts" in told[0]


def test_new_texts_are_not_worth_a_word(folder: Path, tmp_path: Path) -> None:
    dev, test = ([f"{part} text {n}" for n in range(12)] for part in ("dev", "test"))
    store, key, _, told = prepare(folder, tmp_path, dev, test)
    assert store.meta("teacher", key)["metrics"]["seen_dev"] == 0
    assert told == []


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_what_a_teacher_has_seen_is_handed_on(
    folder: Path,
    train: Callable[[str], Any],
    tmp_path: Path,
    where: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dev, test = ([f"{part} text {n}" for n in range(12)] for part in ("dev", "test"))
    address = request.getfixturevalue("s3") if where == "s3" else ""
    store, key, _, _ = prepare(folder, tmp_path, dev, test, address)
    if address:  # exported from a node that has no copies yet
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another node"))
        store = Store(address)
    (data,) = store.keys("data")
    write_seen(tmp_path, store, data, (key, "not-a-teacher"))
    found = set(load_file(tmp_path / SEEN)["fingerprints"].tolist())
    assert set(fingerprints([*known_texts(train), *dev]).tolist()) <= found
    assert found.isdisjoint(fingerprints(test).tolist())


def test_an_export_that_does_not_say_is_doubted(folder: Path, tmp_path: Path) -> None:
    before = (folder / SEEN).read_bytes()
    (folder / SEEN).unlink()
    try:
        dev, test = ([f"{part} text {n}" for n in range(12)] for part in ("dev", "test"))
        *_, told = prepare(folder, tmp_path, dev, test)
    finally:
        (folder / SEEN).write_bytes(before)
    assert len(told) == 1 and "not known whether teacher old" in told[0]
