"""An exported student teaches another sweep: its labels find their places, nothing is trained."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.config import parse_config
from orchestrator.errors import ConfigError
from orchestrator.export import export_record
from orchestrator.exporting.folder import GRAPHS
from orchestrator.exporting.standalone import Student
from orchestrator.materials import Materials, prepare_data, prepare_materials
from orchestrator.schema import SweepConfig
from orchestrator.specs import StudentFactory
from orchestrator.teaching import outputs_proposals, teacher_proposals, trained_teacher
from trainables.dataset import load_split
from trainables.errors import DataError
from trainables.store import Store
from trainables.tasks import run_task
from trainables.testing import tiny_texts

RENAMED = {"label0": "zebra", "label1": "label1", "label2": "ant"}


@pytest.fixture(scope="session")
def folder(train: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export whose labels, sorted by name, will not be in the order of its logits."""
    trained = train("word")
    made = export_record(
        trained.record,
        trained.store,
        tmp_path_factory.mktemp("teaching") / "old",
        seconds=0,
        tell=lambda _: None,
    )
    config = made.folder / "config.json"
    text = config.read_text(encoding="utf-8")
    for old, new in RENAMED.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    config.write_text(text, encoding="utf-8")
    facts = made.folder / "export.json"
    size = f'"config.json": {made.facts.bytes["config.json"]}'
    found = facts.read_text(encoding="utf-8")
    facts.write_text(found.replace(size, f'"config.json": {config.stat().st_size}'))
    return made.folder


def make_config(tmp_path: Path, labels: dict[str, str] = RENAMED, **teacher: Any) -> SweepConfig:
    texts, names = tiny_texts(60, seed=5)
    with (tmp_path / "train.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        writer.writerows((t, labels[name]) for t, name in zip(texts, names, strict=True))
    return parse_config(
        {
            "name": "next",
            "data": {"path": str(tmp_path / "train.csv"), "dev": 20},
            "teachers": [{"name": "old", **teacher}],
        }
    )


def prepare(config: SweepConfig, store: Store) -> Materials:
    data = prepare_data(config, store, lambda _: None)
    return prepare_materials(config, data, store, lambda _: None)


def test_its_answers_are_cached_in_the_order_of_the_new_classes(
    folder: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, exported=str(folder))
    store = Store(tmp_path / "store")
    materials = prepare(config, store)
    assert materials.data.classes == ("ant", "label1", "zebra")
    (teacher,) = materials.teachers
    (proposal,) = teacher_proposals(teacher)
    (report,) = run_task("teacher", proposal.spec, store)
    assert report["cached"] and report["summary"]["train_seconds"] == 0
    assert report["summary"]["val_f1_macro"] <= 1
    student = Student(folder, GRAPHS["fp32"])
    for outputs in outputs_proposals(config, teacher):
        list(run_task("outputs", outputs.spec, store))
        logits = load_file(store.read("outputs", outputs.key).file("outputs.safetensors"))["logits"]
        texts = load_split(store, materials.data.key, outputs.spec["split"]).texts
        asked = student.answer(student.logits(student.encode(texts)))
        found = [materials.data.classes[number] for number in logits.argmax(1).tolist()]
        assert found == [label for label, _ in asked]


def test_a_second_start_finds_it(folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, exported=str(folder))
    store = Store(tmp_path / "store")
    first = prepare(config, store).teachers[0].spec.key
    before = store.path("teacher", first).stat().st_mtime_ns
    assert prepare(config, store).teachers[0].spec.key == first
    assert store.path("teacher", first).stat().st_mtime_ns == before


def test_its_config_can_be_read_back(tmp_path: Path) -> None:
    config = make_config(tmp_path, exported="old-student")
    assert SweepConfig.model_validate(config.to_dict()) == config


def test_a_teacher_of_fewer_classes_stands_behind_them(folder: Path, tmp_path: Path) -> None:
    # The data has a fourth class, first in the order, which came after the export.
    config = make_config(tmp_path, exported=str(folder))
    path = tmp_path / "train.csv"
    path.write_text(path.read_text() + "".join(f"extra{n} word{n},aardvark\n" for n in range(20)))
    store, told = Store(tmp_path / "store"), list[str]()
    data = prepare_data(config, store, lambda _: None)
    (teacher,) = prepare_materials(config, data, store, told.append).teachers
    assert data.classes == ("aardvark", "ant", "label1", "zebra")
    assert "teacher old does not know aardvark, and never says so" in told
    (proposal,) = teacher_proposals(teacher)
    list(run_task("teacher", proposal.spec, store))
    student = Student(folder, GRAPHS["fp32"])
    for outputs in outputs_proposals(config, teacher):
        list(run_task("outputs", outputs.spec, store))
        logits = load_file(store.read("outputs", outputs.key).file("outputs.safetensors"))["logits"]
        texts = load_split(store, data.key, outputs.spec["split"]).texts
        asked = student.logits(student.encode(texts))
        where = [student.config["labels"].index(name) for name in data.classes[1:]]
        known = torch.tensor(asked[:, where])
        torch.testing.assert_close(logits[:, 1:], known, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(logits[:, 0], known.mean(1) - 10, rtol=1e-3, atol=1e-3)


def test_a_teacher_of_fewer_classes_teaches_end_to_end(folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, exported=str(folder))
    path = tmp_path / "train.csv"
    path.write_text(path.read_text() + "".join(f"extra{n} word{n},aardvark\n" for n in range(20)))
    store = Store(tmp_path / "store")
    materials = prepare(config, store)
    for outputs in outputs_proposals(config, materials.teachers[0]):
        list(run_task("outputs", outputs.spec, store))
    trained = trained_teacher(config, materials.teachers[0], 0.5)
    spec = StudentFactory(config, materials, [trained]).spec({"epochs": 1})
    *_, report = run_task("student", spec.to_dict(), store)
    assert report["finished"]
    assert report["train_kd"] > 0
    logits = load_file(store.read("student", spec.key).file("dev.safetensors"))["logits"]
    assert logits.shape[1] == 4


def test_other_labels_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, {**RENAMED, "label2": "bee"}, exported=str(folder))
    with pytest.raises(DataError, match=r"does not know bee.*it knows ant besides"):
        prepare(config, Store(tmp_path / "store"))


def test_a_folder_that_is_no_export_is_refused(folder: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, exported=str(tmp_path))
    with pytest.raises(DataError, match="holds no exported student"):
        prepare(config, Store(tmp_path / "store"))


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({}, "teachers[0].model: is missing"),
        ({"exported": "x", "model": "linear"}, "has both model and exported"),
        ({"exported": "x", "registered": "models:/a/1"}, "has both exported and registered"),
        ({"exported": "x", "epochs": 9}, "teachers[0].epochs: means nothing"),
        ({"exported": "x", "folds": 3}, "teachers[0].folds: means nothing"),
        ({"registered": "news@champion"}, "teachers[0].registered"),
    ],
)
def test_configs_that_make_no_sense_are_refused(
    teacher: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(tmp_path, **teacher)
    assert message in str(caught.value)


@pytest.mark.parametrize("source", [{"exported": "x"}, {"registered": "models:/a@champion"}])
def test_methods_that_train_the_teacher_are_refused(source: dict[str, Any]) -> None:
    base = {"name": "n", "data": {"path": "x.csv"}, "teachers": [{"name": "old", **source}]}
    arms = [{"name": "joint", "scheme": "isolated", "point": {"teachers": ["old"]}}]
    with pytest.raises(ConfigError, match="cannot be trained with it"):
        parse_config({**base, "arms": arms})
    with pytest.raises(ConfigError, match="no states on its way"):
        parse_config({**base, "student": {"schedule": {"name": "rco"}}})
