"""The exported folder: complete, equal to the trained student, and free of this project."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.export import export_record
from orchestrator.exporting.check import answers
from orchestrator.exporting.folder import FACTS, GRAPHS, holds_student
from orchestrator.exporting.source import Source
from orchestrator.exporting.standalone import Student
from orchestrator.records import TrialState
from trainables.encoded import flatten
from trainables.models._io import load_model
from trainables.tokenization import TextTokenizer

ODD = ["", "   ", "word1", "class0a zzz 字", "[PAD] [UNK] [CLS]", "word1 " * 50, "Word1 WORD2"]
KINDS = ["char", "word", "wordpiece", "teacher"]


def export(trained: Any, output: Path, **options: Any) -> Any:
    return export_record(
        trained.record, trained.store, output, seconds=0, tell=lambda _: None, **options
    )


@pytest.fixture(scope="session")
def exported(
    train: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def make(kind: str) -> Any:
        if kind not in made:
            made[kind] = export(train(kind), tmp_path_factory.mktemp("out") / kind)
        return made[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_both_graphs_answer_like_the_trained_student(
    train: Callable[[str], Any], exported: Callable[[str], Any], kind: str
) -> None:
    facts = exported(kind).facts
    assert facts.equality["fp32"].max_logit_difference < 1e-5
    assert facts.equality["fp32"].label_agreement == 1
    assert facts.equality["int8"].label_agreement >= 0.9
    assert facts.equality["fp32"].rows == 40
    trained = train(kind)
    stored = trained.store.read("student", trained.student).meta["metrics"]
    assert facts.equality["fp32"].f1_macro == pytest.approx(stored["val_f1_macro"])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_split_as_in_training(
    train: Callable[[str], Any], exported: Callable[[str], Any], kind: str
) -> None:
    trained, folder = train(kind), exported(kind).folder
    source = Source.open(trained.store, trained.student)
    student = Student(folder, GRAPHS["fp32"])
    tokens, offsets = flatten(ODD, TextTokenizer.open(source.tokenizer.path), source.max_length)
    expected = np.split(tokens, offsets[1:-1])
    numbering = source.numbering
    assert (numbering is None) == (kind != "teacher")
    for row, wanted in zip(student.encode(ODD), expected, strict=True):
        found = np.array(row) if numbering is None else numbering[row]
        assert found.tolist() == wanted.tolist()


def test_one_text_alone_answers_as_in_a_batch(exported: Callable[[str], Any]) -> None:
    student = Student(exported("word").folder, GRAPHS["fp32"])
    together = answers(student, ODD)
    alone = np.concatenate([answers(student, [text]) for text in ODD])
    np.testing.assert_allclose(alone, together, atol=1e-6)


def test_the_folder_holds_what_the_card_lists(exported: Callable[[str], Any]) -> None:
    folder = exported("teacher").folder
    card = (folder / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in folder.iterdir()} - {"README.md"}
    assert {"model.safetensors", "tokenizer.json", "config.json", "predict.py"} <= files
    for name in files:
        assert f"| `{name}` |" in card
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["labels"] == ["label0", "label1", "label2"]
    assert config["id2label"]["1"] == "label1"
    assert config["label2id"]["label1"] == 1


def test_the_card_says_what_and_how_well(exported: Callable[[str], Any]) -> None:
    result = exported("word")
    card = (result.folder / "README.md").read_text(encoding="utf-8")
    for part in (result.facts.data_digest, "| big |", "40 dev", "INCONCLUSIVE", "## Limits"):
        assert part in card
    assert "first 12 tokens" in card
    assert "None" not in card and "nan" not in card


def test_facts_are_one_json_document(exported: Callable[[str], Any]) -> None:
    result = exported("word")
    stored = json.loads((result.folder / FACTS).read_text(encoding="utf-8"))
    assert stored["confirmed"] is True
    assert stored["latency"]["32"].keys() == {"int8", "fp32", "torch", "teacher"}
    assert stored["ratios"]["smaller"] > 1
    assert json.dumps(result.to_json())


def test_the_weights_open_in_torch(exported: Callable[[str], Any]) -> None:
    folder = exported("teacher").folder
    model = load_model(folder)
    tokenizer = TextTokenizer.open(folder)
    assert model.vocab_size == len(tokenizer.vocabulary)


def test_a_searched_student_makes_no_claim(train: Callable[[str], Any], tmp_path: Path) -> None:
    trained = train("word")
    result = export(trained, tmp_path / "out", trial=trained.student[:8])
    assert (result.facts.confirmed, result.facts.verdict) == (False, None)
    assert "nothing is claimed" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_student_trained_with_its_teacher_is_exported(
    train: Callable[[str], Any], tmp_path: Path
) -> None:
    trained = train("word")
    result = export(trained, tmp_path / "out", trial=trained.together)
    facts = result.facts
    stored = trained.store.read("joint", facts.student).meta["metrics"]
    assert facts.equality["fp32"].max_logit_difference < 1e-5
    assert facts.equality["fp32"].f1_macro == pytest.approx(stored["val_f1_macro"])
    assert (facts.teacher.name, facts.verdict) == ("big", None)


def test_without_teachers_nothing_is_compared(train: Callable[[str], Any], tmp_path: Path) -> None:
    trained = train("word")
    record = replace(trained.record, trials=trained.record.trials[1:])
    heard: list[str] = []
    result = export_record(record, trained.store, tmp_path / "out", seconds=0, tell=heard.append)
    assert result.facts.teacher is None and result.facts.ratios() == {}
    assert any("no teacher" in line for line in heard)
    assert "teacher, torch" not in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_an_earlier_export_is_replaced_and_nothing_else(
    train: Callable[[str], Any], tmp_path: Path
) -> None:
    trained, folder = train("word"), tmp_path / "out"
    folder.mkdir()  # an empty folder will do
    export(trained, folder)
    (folder / "stale").touch()
    export(trained, folder)
    assert holds_student(folder) and not (folder / "stale").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").touch()
    with pytest.raises(UsageError, match="something else"):
        export(trained, other)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_unknown_trials_are_refused(train: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no complete student 'zzz'"):
        export(train("word"), tmp_path / "out", trial="zzz")
    with pytest.raises(UsageError, match="give more of the key"):
        export(train("word"), tmp_path / "out", trial="")
    assert not (tmp_path / "out").exists()


def test_a_sweep_without_students_has_nothing_to_export(
    train: Callable[[str], Any], tmp_path: Path
) -> None:
    trained = train("word")
    trials = tuple(replace(t, state=TrialState.RUNNING) for t in trained.record.trials)
    with pytest.raises(UsageError, match="no complete student yet"):
        export_record(
            replace(trained.record, trials=trials),
            trained.store,
            tmp_path / "out",
            tell=lambda _: None,
        )


def test_a_lost_artifact_is_named(train: Callable[[str], Any], tmp_path: Path) -> None:
    trained = train("word")
    root = tmp_path / "store"
    shutil.copytree(trained.store.root, root)
    shutil.rmtree(root / "tokenizer")
    with pytest.raises(OrchestratorError, match="start the sweep again"):
        export_record(
            trained.record, type(trained.store)(root), tmp_path / "out", tell=lambda _: None
        )
    assert not (tmp_path / "out").exists()
