"""``orchestrator export``: one student of a sweep as a folder that runs without this project.

The folder is complete or it is not there: everything is written and checked beside it first.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.exporting import standalone
from orchestrator.exporting.card import write_card
from orchestrator.exporting.check import compare, require_equal, scores, torch_logits
from orchestrator.exporting.choice import Choice, choose
from orchestrator.exporting.facts import Facts
from orchestrator.exporting.folder import (
    CARD,
    CONFIG,
    FACTS,
    GRAPHS,
    SCRIPT,
    holds_student,
    remember,
)
from orchestrator.exporting.graph import write_graph, write_int8
from orchestrator.exporting.latency import machine
from orchestrator.exporting.measure import Teacher, latencies, open_teacher
from orchestrator.exporting.registry import CANDIDATE, CHAMPION, Registered, Registry, register
from orchestrator.exporting.seen import write_seen
from orchestrator.exporting.source import Source
from orchestrator.exporting.standalone import Student
from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.records import SweepRecord
from orchestrator.report.build import build_report
from orchestrator.report.document import Report
from orchestrator.report.naming import describe_method
from orchestrator.report.parts import Verdict
from orchestrator.tracking.address import resolve_uri
from trainables.store import Store
from trainables.tokenization import NUMBERING_FILE

Tell = Callable[[str], None]

LATENCY_SECONDS = 5.0  # for each batch size


@dataclass(frozen=True)
class Exported:
    """What an export left behind.

    Attributes:
        folder: The exported student.
        facts: What was measured of it.
        registered: Its version in the model registry, or None.
        problem: Why it could not be registered; the folder is complete all the same.
    """

    folder: Path
    facts: Facts
    registered: Registered | None = None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "folder": str(self.folder),
            **self.facts.to_json(),
            "registered": vars(self.registered) if self.registered else None,
            "problem": self.problem,
        }


def export_student(
    home: Home,
    name: str,
    output: Path,
    *,
    trial: str | None = None,
    registered: bool = True,
    seconds: float = LATENCY_SECONDS,
    tell: Tell,
) -> Exported:
    """Export one student of a sweep, check it, measure it and register it.

    Args:
        home: Where the sweep was run.
        name: The sweep.
        output: The folder to write; an earlier export there is replaced.
        trial: Key of a trial or its beginning; None takes the confirmed student best on dev.
        registered: Also put it into the MLflow model registry.
        seconds: How long to measure latency for each batch size.
        tell: Hears what is being done.

    Raises:
        UsageError: There is no such student, or something else is in ``output``.
        OrchestratorError: The exported graph does not compute what the student does.
    """
    record = load_record(home, name)
    exported = export_record(record, home.store, output, trial=trial, seconds=seconds, tell=tell)
    remember(home, name, exported.folder)
    return _register(exported, record, home, tell) if registered else exported


def export_record(
    record: SweepRecord,
    store: Store,
    output: Path,
    *,
    trial: str | None = None,
    seconds: float = LATENCY_SECONDS,
    tell: Tell,
) -> Exported:
    """Export one student as ``export_student`` does, from records and store alone.

    Raises:
        UsageError: There is no such student, or something else is in ``output``.
        OrchestratorError: The exported graph does not compute what the student does.
    """
    report = build_report(record, store)
    choice = choose(record, report, store, trial)
    source = Source.open(store, choice.student, choice.kind)
    teacher = open_teacher(report, source, store)
    if teacher is None:
        tell("no teacher is left in the store to compare sizes and times with")
    with _replacing(output) as draft:
        tell(f"exporting trial {choice.trial.key[:12]} ({describe_method(choice.trial)})")
        _write_files(draft, choice, source, record.name)
        taught_by = tuple(teacher.key for teacher in source.spec.teachers)
        write_seen(draft, store, source.data.key, taught_by)
        facts = _measure(draft, choice, source, report, teacher, seconds, tell)
        _write_text(draft / CARD, write_card(facts, report))
        _write_json(draft / FACTS, facts.to_json())
    return Exported(output.absolute(), facts)


def _write_files(draft: Path, choice: Choice, source: Source, sweep: str) -> None:
    """Write everything that answers need."""
    for file in ("architecture.json", "model.safetensors"):
        shutil.copyfile(source.artifact.file("model") / file, draft / file)
    shutil.copyfile(source.tokenizer.file(NUMBERING_FILE), draft / NUMBERING_FILE)
    source.write_tokenizer(draft)
    shutil.copyfile(Path(standalone.__file__), draft / SCRIPT)
    labels = list(source.data.classes)
    _write_json(
        draft / CONFIG,
        {
            "labels": labels,
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
            "max_length": source.max_length,
            **source.special_ids(),
            "sweep": sweep,
            "trial": choice.trial.key,
            "model": source.spec.model,
            "graphs": GRAPHS,
        },
    )
    facts = {"sweep": sweep, "trial": choice.trial.key, "labels": json.dumps(labels)}
    write_graph(source.model(), draft / GRAPHS["fp32"], source.numbering, facts)
    write_int8(draft / GRAPHS["fp32"], draft / GRAPHS["int8"])


def _measure(
    draft: Path,
    choice: Choice,
    source: Source,
    report: Report,
    teacher: Teacher | None,
    seconds: float,
    tell: Tell,
) -> Facts:
    """Check both graphs against the trained student and time all of them.

    Raises:
        OrchestratorError: The float32 graph does not compute what the student does.
    """
    graphs = {name: Student(draft, file, threads=1) for name, file in GRAPHS.items()}
    tell(f"comparing both graphs with the trained student on {len(source.dev)} dev texts")
    expected = torch_logits(source)
    equality = {name: compare(source, graph, expected) for name, graph in graphs.items()}
    require_equal(equality["fp32"], expected)
    tell("measuring latency")
    trial, spec = choice.trial, source.spec
    return Facts(
        sweep=report.sweep,
        trial=trial.key,
        student=choice.student,
        seed=spec.seed,
        method=describe_method(trial),
        confirmed=choice.confirmed,
        verdict=report.verdict.value if choice.confirmed else None,
        data_digest=source.data.digest,
        labels=source.data.classes,
        max_length=source.max_length,
        parameters=int(source.artifact.meta["metrics"]["parameters"]),
        trained=scores(source, expected),
        equality=equality,
        bytes={path.name: path.stat().st_size for path in sorted(draft.iterdir())},
        teacher=teacher.facts if teacher else None,
        latency=latencies(source, graphs, teacher, seconds),
        machine=machine(),
        versions={name: version(name) for name in ("torch", "onnx", "onnxruntime", "tokenizers")},
    )


def _register(exported: Exported, record: SweepRecord, home: Home, tell: Tell) -> Exported:
    """Register an exported student; a registry that is down does not undo the export."""
    facts = exported.facts
    tracking = record.config.get("tracking") or {}
    registry = Registry(
        resolve_uri(home.path, tracking.get("uri")),
        home.path,
        tracking.get("experiment") or record.name,
    )
    alias = CHAMPION if facts.verdict == Verdict.BEATS else CANDIDATE
    tags = {
        "trial_key": facts.trial,
        "student_key": facts.student,
        "data_digest": facts.data_digest,
        "verdict": facts.verdict or "none",
    }
    tell(f"registering {record.name} as {alias}")
    try:
        found = register(registry, exported.folder, record.name, alias=alias, tags=tags)
    except OrchestratorError as error:
        return replace(exported, problem=str(error))
    return replace(exported, registered=found)


@contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yield a folder to fill; it takes the place of ``output`` once it is complete.

    Raises:
        UsageError: ``output`` holds something that this project has not written.
    """
    foreign = output.exists() and not holds_student(output)
    if foreign and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(
            f"{output} holds something else than an exported student; name another --output"
        )
    target = output.absolute()
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.mkdir(parents=True)
        yield draft
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    except OSError as error:
        raise OrchestratorError(
            f"cannot write {output}: {error.strerror}; free space or name another --output"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
