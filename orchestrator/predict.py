"""Answers of an exported student: to a few texts, or to every row of a file.

Legend: N texts, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UsageError
from orchestrator.exporting.fetch import REGISTERED, fetch_model
from orchestrator.exporting.folder import (
    CONFIG,
    GRAPHS,
    TOKENIZER,
    damaged_files,
    holds_student,
    recall,
)
from orchestrator.exporting.latency import cores
from orchestrator.home import Home

if TYPE_CHECKING:
    from orchestrator.exporting.standalone import Student

LABEL_COLUMN, SHARE_COLUMN = "label", "probability"

_BATCH = 256

# Hears how much of the whole is done, from 0 to 1, and how many texts that is.
Progress = Callable[[float, int], None]


@dataclass(frozen=True)
class Answer:
    """What the student says about one text."""

    text: str
    label: str
    probability: float


@dataclass(frozen=True)
class Request:
    """Which student is asked.

    Attributes:
        home: Where sweeps are.
        model: An exported folder, ``models:/NAME@ALIAS``, or a sweep; None is the latest sweep.
        precision: ``int8`` or ``fp32``.
    """

    home: Home
    model: str | None
    precision: str = "int8"

    def open(self) -> Student:
        """Load the student."""
        return open_student(exported_folder(self.home, self.model), self.precision)


@dataclass(frozen=True)
class Done:
    """A file that was classified.

    Attributes:
        output: The file written.
        rows: Texts classified.
        seconds: From opening the input to closing the output.
    """

    output: Path
    rows: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        """Rows read, classified and written in a second."""
        return self.rows / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            **vars(self),
            "output": str(self.output),
            "rows_per_second": round(self.rows_per_second, 1),
        }

    def sentence(self) -> str:
        """Say what was done."""
        return f"wrote {self.output}: {self.rows} rows, {self.rows_per_second:,.0f} rows/s"


def predict_texts(request: Request, texts: Sequence[str] | None) -> list[Answer]:
    """Classify the texts of a command line.

    Raises:
        UsageError: There are none, or no student.
    """
    if not texts:
        raise UsageError(
            "give texts to classify, or a file with --input FILE.csv --output ANSWERS.csv"
        )
    return answer(request.open(), texts)


def predict_file(
    request: Request,
    source: Path | None,
    column: str,
    output: Path | None,
    texts: Sequence[str] | None,
    progress: Progress,
) -> Done:
    """Classify the rows of a file, as ``answer_file``.

    Raises:
        UsageError: The options do not go together, or a file or the student cannot be used.
    """
    if source is None or output is None:
        given, missing = ("--output", "--input") if source is None else ("--input", "--output")
        raise UsageError(f"{given} needs {missing}: a file is read and another one written")
    if texts:
        raise UsageError("give texts or --input, not both")
    student = request.open()
    started = time.perf_counter()
    rows = answer_file(student, source, column, output, progress)
    return Done(output, rows, time.perf_counter() - started)


def exported_folder(home: Home, model: str | None) -> Path:
    """Return the folder of an exported student.

    Args:
        home: Where sweeps are.
        model: The folder itself, a registered student (``models:/NAME@ALIAS`` or
            ``models:/NAME/VERSION``), or a sweep that has been exported; None is the latest sweep.

    Raises:
        UsageError: There is no such folder or sweep, or it has not been exported.
        OrchestratorError: The registry does not answer, or does not have it.
    """
    if model is not None and model.startswith(REGISTERED):
        return fetch_model(home, model)
    if model is not None:
        given = Path(model).expanduser()
        if holds_student(given):
            return given.absolute()
        if given.is_dir() or "/" in model:
            raise UsageError(
                f"{model} holds no exported student; write one with "
                "'orchestrator export SWEEP --output DIR'"
            )
    name = home.find_sweep(model)
    folder = recall(home, name)
    if folder is None or not holds_student(folder):
        what = "has not been exported" if folder is None else f"was exported to {folder}, now gone"
        raise UsageError(
            f"sweep {name!r} {what}; run 'orchestrator export {name} --output DIR' first"
        )
    return folder


def open_student(folder: Path, precision: str = "int8") -> Student:
    """Load an exported student; ``precision`` is ``int8`` or ``fp32``.

    Raises:
        UsageError: The folder is incomplete or damaged.
    """
    from orchestrator.exporting.standalone import Student

    graph = GRAPHS[precision]
    damaged = damaged_files(folder, [CONFIG, TOKENIZER, graph])
    if damaged:
        raise UsageError(
            f"cannot load the student in {folder}: {', '.join(damaged)} missing or damaged; "
            "export it again"
        )
    return Student(folder, graph, threads=1)


def answer(
    student: Student, texts: Sequence[str], progress: Progress | None = None
) -> list[Answer]:
    """Classify texts, in batches of similar length, several at once.

    One thread for each batch is faster than several for one, whose parts wait for each other.

    Args:
        student: An exported student.
        texts: N texts.
        progress: Called after each batch.
    """
    rows = student.encode(list(texts))
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    answers: list[Answer | None] = [None] * len(rows)
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]

    def work(places: list[int]) -> list[tuple[str, float]]:
        return student.answer(student.logits([rows[place] for place in places]))

    done = 0
    with ThreadPoolExecutor(max_workers=cores()) as pool:
        for places, found in zip(batches, pool.map(work, batches), strict=True):
            for place, (label, share) in zip(places, found, strict=True):
                answers[place] = Answer(texts[place], label, share)
            done += len(places)
            if progress is not None:
                progress(done / len(order), done)
    return [one for one in answers if one is not None]


def answer_file(
    student: Student,
    source: Path,
    column: str,
    target: Path,
    progress: Progress | None = None,
) -> int:
    """Classify every row of a file and write it again with two more columns.

    The file is read and written in chunks, so its size does not matter; the result appears
    under its name once it is complete.

    Args:
        student: An exported student.
        source: csv, tsv, jsonl (each also .gz) or parquet.
        column: The column of the texts.
        target: csv, tsv or jsonl (each also .gz).
        progress: Called after each chunk.

    Returns:
        How many rows there were.

    Raises:
        UsageError: The file cannot be read, has no such column, or the target cannot be written.
    """
    from orchestrator.tables import TableWriter, read_chunks

    rows = 0
    with TableWriter(target) as writer:
        for frame, share in read_chunks(source):
            if column not in frame.columns:
                raise UsageError(
                    f"{source} has no column {column!r} but {', '.join(map(str, frame.columns))}; "
                    "name one with --text-column"
                )
            answers = answer(student, frame[column].fillna("").astype(str).tolist())
            frame[_free(LABEL_COLUMN, frame.columns)] = [one.label for one in answers]
            frame[_free(SHARE_COLUMN, frame.columns)] = [one.probability for one in answers]
            writer.write(frame)
            rows += len(frame)
            if progress is not None:
                progress(share, rows)
    return rows


def _free(name: str, taken: Container[str]) -> str:
    """Return a column name that overwrites nothing: a labelled file keeps its own labels."""
    while name in taken:
        name = f"predicted_{name}"
    return name
