"""A small config and the materials it stands for, without text or training."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import parse_config
from orchestrator.materials import Materials, TeacherMaterials, Tokens
from orchestrator.schema import SweepConfig
from orchestrator.specs import StudentFactory, TrainedTeacher
from trainables.dataset import PreparedData
from trainables.teacher import TeacherSpec


def _config(**changes: Any) -> SweepConfig:
    return parse_config(
        {
            "name": "news",
            "data": {"path": "train.csv"},
            "teachers": [
                {"name": name, "model": {"name": "linear"}, "epochs": 2} for name in ("big", "weak")
            ],
            "student": {"model": {"name": "textcnn", "filters": 8}, "epochs": 3},
            "search": {
                "trials": 4,
                "space": {"alpha": {"log_uniform": [0.1, 10.0]}, "n_teachers": {"int": [1, 2]}},
            },
            **changes,
        }
    )


@pytest.fixture
def make_config() -> Any:
    """Return a config with top-level sections replaced: ``make_config(seed=1)``."""
    return _config


@pytest.fixture
def config() -> SweepConfig:
    return _config()


@pytest.fixture
def make_materials() -> Any:
    """Return the materials of a config with 3 classes, 60 training rows and transfer rows."""

    def make(config: SweepConfig, transfer: int = 40, classes: int = 3) -> Materials:
        rows = {"train": 60, "dev": 30, "transfer": transfer}
        data = PreparedData(
            key="d" * 64,
            test_key="e" * 64,
            classes=tuple(f"class{number}" for number in range(classes)),
            rows=rows,
            class_counts={"train": (20,) * classes},
            duplicates={},
            majority=0.4,
            notes=(),
            groups=None,
            group_names=None,
            digest="f" * 64,
        )
        encoded = {split: f"encoded-{split}" for split, count in rows.items() if count}
        tokens = Tokens("t" * 64, 500, 16, "", False, encoded)
        teachers = tuple(
            TeacherMaterials(
                teacher,
                TeacherSpec(
                    name=teacher.name,
                    model={**teacher.model, "vocab_size": 500},
                    n_classes=classes,
                    train="encoded-train",
                    dev="encoded-dev",
                    epochs=teacher.epochs,
                    seed=number,
                ),
                tokens,
            )
            for number, teacher in enumerate(config.teachers)
        )
        return Materials(data, teachers, tokens, None, {"val_accuracy": 0.5})

    return make


@pytest.fixture
def make_factory(make_materials: Any) -> Any:
    """Return a factory whose first teacher is the better one."""

    def make(config: SweepConfig, **options: Any) -> StudentFactory:
        materials = make_materials(config, **options)
        trained = [
            TrainedTeacher(
                teacher,
                0.9 - number / 10,
                {s: f"{teacher.config.name}-{s}" for s in ("train", "dev", "transfer")},
            )
            for number, teacher in enumerate(materials.teachers)
        ]
        return StudentFactory(config, materials, trained)

    return make


@pytest.fixture
def factory(config: SweepConfig, make_factory: Any) -> StudentFactory:
    made: StudentFactory = make_factory(config)
    return made


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """A csv with columns text and label: 3 balanced classes, 90 rows."""
    words = ("goal match", "rain wind", "bread salt")
    lines = [
        f"{words[row % 3]} number{row} word{row % 7},{('sport', 'weather', 'food')[row % 3]}"
        for row in range(90)
    ]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["text,label", *lines]) + "\n")
    return path
