"""A trained student with its teacher, confirmed once, without Ray, ledger or search."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.config import parse_config
from orchestrator.materials import prepare_data, prepare_materials
from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from trainables.confirm import ConfirmSpec
from trainables.joint import JointSpec
from trainables.store import Store
from trainables.student import StudentSpec
from trainables.tasks import run_task
from trainables.testing import tiny_encoder, tiny_texts


@dataclass(frozen=True)
class Trained:
    """A sweep of one teacher and one student, which has been confirmed with one seed.

    ``together`` is the confirm trial of the same student with a teacher that learns beside it.
    """

    record: SweepRecord
    store: Store
    teacher: str
    student: str
    confirm: str
    together: str


def _train(folder: Path, tokenizer: str) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    texts, labels = tiny_texts(90)
    # A row without any token, and one that is longer than max_length.
    texts[-1], texts[-2] = "   ", "word1 " * 30
    rows = "".join(f"{text},{label}\n" for text, label in zip(texts, labels, strict=True))
    (folder / "train.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    config = parse_config(
        {
            "name": "news",
            "data": {
                "path": str(folder / "train.csv"),
                "dev": 40,
                "max_length": 12,
            },
            "teachers": [
                {
                    "name": "big",
                    "model": {"name": "bert", "checkpoint": str(tiny_encoder(folder / "encoder"))},
                    "epochs": 1,
                }
            ],
            "student": {
                "model": {"name": "textcnn", "filters": 8, "embedding_dim": 8},
                "tokenizer": {"kind": tokenizer},
                "epochs": 2,
                "lr": 0.01,
            },
        }
    )
    store = Store(folder / "store")
    data = prepare_data(config, store, lambda _: None)
    materials = prepare_materials(config, data, store, lambda _: None)
    (teacher,) = materials.teachers
    *_, taught = run_task("teacher", teacher.spec.to_dict(), store)
    spec = StudentSpec(
        model=config.student.model,
        n_classes=len(data.classes),
        vocab_size=materials.student.vocab_size,
        train=materials.student.encoded["train"],
        dev=materials.student.encoded["dev"],
        epochs=2,
    )
    confirm = ConfirmSpec(spec, None)
    *_, last = run_task("confirm", confirm.to_dict(), store)
    joint = ConfirmSpec(JointSpec("isolated", teacher.spec, spec), None)
    *_, grown = run_task("confirm", joint.to_dict(), store)
    metrics = last["summary"]
    trials = (
        _trial(Stage.TEACHERS, teacher.spec.key, "big", taught["summary"]),
        _trial(Stage.STUDENTS, spec.key, "default", metrics),
        _trial(Stage.CONFIRM, confirm.key, "candidate", metrics, group=spec.key),
        _trial(Stage.CONFIRM, joint.key, "together", grown["summary"], group="together"),
    )
    facts = {"classes": list(data.classes), "rows": data.rows, "digest": data.digest}
    record = SweepRecord("news", config.to_dict(), trials, facts)
    return Trained(record, store, teacher.spec.key, spec.key, confirm.key, joint.key)


def _trial(
    stage: Stage, key: str, role: str, metrics: dict[str, float], group: str = ""
) -> TrialRecord:
    return TrialRecord(stage, key, TrialState.COMPLETE, role, metrics=metrics, group=group)


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return a trained sweep whose student has the tokenizer of that kind; made once for each."""
    made: dict[str, Trained] = {}

    def make(tokenizer: str) -> Trained:
        if tokenizer not in made:
            made[tokenizer] = _train(tmp_path_factory.mktemp(tokenizer), tokenizer)
        return made[tokenizer]

    return make
