"""Answers for texts and files, with a student that needs no graph."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator import tables
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.exporting.folder import CONFIG, FACTS, GRAPHS, TOKENIZER, remember
from orchestrator.home import Home
from orchestrator.predict import (
    Request,
    answer,
    answer_file,
    exported_folder,
    open_student,
    predict_file,
    predict_texts,
)


class Lengths:
    """Labels a text by whether it is short or long; remembers the batches it was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [list(range(len(text) + 1)) for text in texts]

    def logits(self, rows: list[list[int]]) -> np.ndarray:
        self.batches.append([len(row) for row in rows])
        return np.array([[10 - len(row), len(row)] for row in rows], np.float32)

    def answer(self, logits: np.ndarray) -> list[tuple[str, float]]:
        return [(("short", "long")[row.argmax()], 0.5) for row in logits]


@pytest.fixture
def student() -> Any:
    return Lengths()


def write(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    frame = pd.DataFrame(rows)
    if ".jsonl" in path.name:
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, sep="\t" if ".tsv" in path.name else ",", index=False)
    return path


ROWS = [{"id": "007", "text": "kurz"}, {"id": "NA", "text": 'ein sehr langer, "Text"\nzwei'}]


def test_answers_come_in_the_order_of_the_texts(student: Any) -> None:
    texts = ["x" * (n * 7 % 19) for n in range(1000)]
    found = answer(student, texts)
    assert [one.text for one in found] == texts
    assert [one.label for one in found] == ["long" if len(t) >= 5 else "short" for t in texts]


def test_batches_hold_texts_of_similar_length(student: Any) -> None:
    answer(student, ["x" * (n % 100) for n in range(1000)])
    spans = sorted(max(batch) - min(batch) for batch in student.batches)
    assert len(spans) == 4 and spans[-1] <= 26


def test_progress_ends_at_the_whole(student: Any) -> None:
    heard: list[tuple[float, int]] = []
    answer(student, ["x"] * 600, lambda share, texts: heard.append((share, texts)))
    assert heard[-1] == (1.0, 600)
    assert heard == sorted(heard)


@pytest.mark.parametrize("source", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.parquet"])
@pytest.mark.parametrize("target", ["b.csv", "b.jsonl", "b.tsv.gz"])
def test_files_keep_their_rows_and_columns(
    student: Any, tmp_path: Path, source: str, target: str
) -> None:
    count = answer_file(student, write(tmp_path / source, ROWS), "text", tmp_path / target)
    assert count == 2
    if "jsonl" in target:
        lines = (tmp_path / target).read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
    else:
        sep = "\t" if "tsv" in target else ","
        frame = pd.read_csv(tmp_path / target, sep=sep, dtype=str, keep_default_na=False)
        found = frame.to_dict("records")  # type: ignore[assignment]
    assert [{"id": row["id"], "text": row["text"]} for row in found] == ROWS
    assert [row["label"] for row in found] == ["short", "long"]
    assert float(found[0]["probability"]) == 0.5


def test_many_chunks_make_one_file(
    student: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK", 3)
    rows = [{"text": "x" * n} for n in range(1, 11)]
    heard: list[tuple[float, int]] = []
    for target in ("b.csv", "b.csv.gz", "b.jsonl"):
        answer_file(
            student,
            write(tmp_path / "a.csv", rows),
            "text",
            tmp_path / target,
            lambda share, texts: heard.append((share, texts)),
        )
    assert [texts for _, texts in heard[:4]] == [3, 6, 9, 10]
    assert heard[3][0] == 1.0
    for target in ("b.csv", "b.csv.gz"):
        assert pd.read_csv(tmp_path / target)["text"].tolist() == [row["text"] for row in rows]
    with gzip.open(tmp_path / "b.csv.gz", "rt") as stream:
        assert stream.readline() == "text,label,probability\n"
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 10


def test_labels_that_are_there_are_kept(student: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "a.csv", [{"text": "x", "label": "gold"}])
    answer_file(student, source, "text", tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text().splitlines()[0] == (
        "text,label,predicted_label,probability"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "title\nx\n", "has no column 'text' but title; name one with --text-column"),
        ("a.csv", "", "cannot read .*a.csv as csv"),
        ("a.csv", b"text\n\xff\xfe\n", "must be UTF-8"),
        ("a.jsonl", "{broken", "cannot read"),
        ("a.parquet", "text", "cannot read"),
        ("a.csv.gz", "text", "cannot read"),
        ("a.xlsx", "", "must be one of csv, tsv, jsonl, parquet"),
    ],
)
def test_files_that_cannot_be_read_are_explained(
    student: Any, tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message):
        answer_file(student, path, "text", tmp_path / "out.csv")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_missing_input_and_a_missing_folder_are_explained(student: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        answer_file(student, tmp_path / "a.csv", "text", tmp_path / "b.csv")
    source = write(tmp_path / "a.csv", ROWS)
    with pytest.raises(UsageError, match=r"folder of .* does not exist"):
        answer_file(student, source, "text", tmp_path / "no" / "b.csv")
    with pytest.raises(UsageError, match="must be one of csv, tsv, jsonl"):
        answer_file(student, source, "text", tmp_path / "b.parquet")


def test_options_must_go_together(tmp_path: Path) -> None:
    request = Request(Home(tmp_path), None)
    some = tmp_path / "some.csv"
    silent = lambda *_: None  # noqa: E731
    with pytest.raises(UsageError, match="--input needs --output"):
        predict_file(request, some, "text", None, None, silent)
    with pytest.raises(UsageError, match="--output needs --input"):
        predict_file(request, None, "text", some, None, silent)
    with pytest.raises(UsageError, match="not both"):
        predict_file(request, some, "text", some, ["x"], silent)
    with pytest.raises(UsageError, match="give texts"):
        predict_texts(request, [])


def make_export(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in (CONFIG, FACTS):
        (folder / name).write_text("{}")
    return folder


def test_a_student_is_found_by_folder_and_by_sweep(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    folder = make_export(tmp_path / "out")
    assert exported_folder(home, str(folder)) == folder
    with pytest.raises(UsageError, match="holds no exported student"):
        exported_folder(home, str(tmp_path))
    with pytest.raises(UsageError, match="no sweep has been started"):
        exported_folder(home, "news")
    home.write_state("news", {})
    with pytest.raises(UsageError, match="has not been exported; run 'orchestrator export news"):
        exported_folder(home, "news")
    remember(home, "news", folder)
    assert exported_folder(home, "news") == exported_folder(home, None) == folder
    (folder / CONFIG).unlink()
    with pytest.raises(UsageError, match="now gone"):
        exported_folder(home, "news")


def test_a_registered_student_is_asked_where_its_sweep_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, asked = Home(tmp_path / "home"), list[tuple[str, str]]()

    def fetch(registry: Any, model: str, folder: Path) -> Path:
        asked.append((registry.uri, model))
        return folder / "news-1"

    monkeypatch.setattr("orchestrator.exporting.registry.fetch", fetch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model = "models:/news@champion"
    found = exported_folder(home, model)
    assert found == home.path / "registered" / "news-1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    exported_folder(home, "models:/news/3")
    home.write_state("news", {"config": {"tracking": {"uri": "http://here:5000"}}})
    exported_folder(home, model)
    assert asked == [
        (f"sqlite:///{home.path / 'mlflow.db'}", model),
        ("http://elsewhere:5000", "models:/news/3"),
        ("http://here:5000", model),
    ]


def test_a_registry_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home(tmp_path / "home")
    with pytest.raises(OrchestratorError, match=r"mlflow.db does not exist.*'orchestrator export'"):
        exported_folder(home, "models:/news@champion")
    assert not home.path.exists()
    for name in ("models:/news", "models:/news@", "models:/a/b", "models:/"):
        with pytest.raises(UsageError, match="write models:/NAME@ALIAS or models:/NAME/VERSION"):
            exported_folder(home, name)


def test_a_damaged_export_is_explained(tmp_path: Path) -> None:
    folder = make_export(tmp_path / "out")
    sizes = {CONFIG: 2, TOKENIZER: 10, GRAPHS["int8"]: 10}
    (folder / FACTS).write_text(json.dumps({"bytes": sizes}))
    (folder / TOKENIZER).write_text("half")
    with pytest.raises(UsageError, match=r"tokenizer.json, model.int8.onnx missing or damaged"):
        open_student(folder)
