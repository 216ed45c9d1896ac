"""``orchestrator export``: one student of a sweep as a folder that runs without this project.

The folder is complete or it is not there: everything is written and checked beside it first.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.exporting import standalone
from orchestrator.exporting.card import write_card
from orchestrator.exporting.check import Equality, compare, require_equal, torch_logits
from orchestrator.exporting.choice import Choice, choose
from orchestrator.exporting.facts import Facts, TeacherFacts
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
from orchestrator.exporting.latency import Timing, machine
from orchestrator.exporting.measure import latencies, open_teacher
from orchestrator.exporting.registry import CANDIDATE, CHAMPION, Registered, Registry, register
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
from trainables.metrics import classification_metrics
from trainables.store import Store

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
    report = build_report(record, home.store)
    choice = choose(record, report, home.store, trial)
    source = Source.open(home.store, choice.student)
    with _replacing(output) as draft:
        facts = _write(draft, choice, source, report, home.store, seconds, tell)
    remember(home, name, output.absolute())
    exported = Exported(output.absolute(), facts)
    return _registered(exported, record, home, tell) if registered else exported


def _write(
    draft: Path,
    choice: Choice,
    source: Source,
    report: Report,
    store: Store,
    seconds: float,
    tell: Tell,
) -> Facts:
    """Fill the folder and return what is known about the student."""
    _write_files(draft, choice, source, report.sweep)
    graphs = {name: Student(draft, file) for name, file in GRAPHS.items()}
    tell(f"comparing both graphs with the trained student on {len(source.dev)} dev texts")
    expected = torch_logits(source)
    equality = {name: compare(source, graph, expected) for name, graph in graphs.items()}
    require_equal(equality["fp32"], expected)
    teacher = open_teacher(report, source, store)
    if teacher is None:
        tell("no teacher is left in the store to compare sizes and times with")
    tell("measuring latency")
    timings = latencies(source, graphs, teacher, seconds)
    trained = _scores(source, expected)
    facts = _facts(draft, choice, source, report, trained, equality, timings)
    if teacher is not None:
        facts = _with_teacher(
            facts, TeacherFacts(teacher.name, teacher.parameters, teacher.model_bytes)
        )
    _write_text(draft / CARD, write_card(facts, report))
    _write_json(draft / FACTS, facts.to_json())
    return facts
