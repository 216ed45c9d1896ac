"""Speed of an exported student against its trained form and its best teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.exporting.facts import TeacherFacts
from orchestrator.exporting.latency import Run, Timing, measure
from orchestrator.exporting.source import Source
from orchestrator.exporting.standalone import Student
from orchestrator.records import TrialState
from orchestrator.report.document import Report
from trainables.batching import gather
from trainables.encoded import Encoded
from trainables.errors import ArtifactMissing
from trainables.evaluation import open_encoded
from trainables.models._io import load_model
from trainables.outputs import positions
from trainables.store import Store

BATCHES = (1, 32)
PREPARED = 24  # different batches of each size


@dataclass(frozen=True)
class Teacher:
    """A teacher to compare with.

    Attributes:
        facts: Its name and size.
        model: On the CPU, in evaluation mode.
        dev: The dev split as it sees it.
    """

    facts: TeacherFacts
    model: nn.Module
    dev: Encoded


def open_teacher(report: Report, source: Source, store: Store) -> Teacher | None:
    """Open the best teacher of the student, or of the sweep for one without; None if it is gone."""
    own = {teacher.key for teacher in source.spec.teachers}
    for row in report.teachers:  # the best on dev first
        if row.state is not TrialState.COMPLETE or (own and row.key not in own):
            continue
        try:
            artifact = store.read("teacher", row.key)
            dev = open_encoded(store, artifact.meta["spec"]["dev"])
        except ArtifactMissing:
            continue
        sizes = artifact.meta["metrics"]
        return Teacher(
            facts=TeacherFacts(row.name, int(sizes["parameters"]), int(sizes["model_bytes"])),
            model=load_model(artifact.file("model")),
            dev=dev,
        )
    return None


def latencies(
    source: Source, graphs: Mapping[str, Student], teacher: Teacher | None, seconds: float
) -> dict[str, dict[str, Timing]]:
    """Time every form of the student and the teacher on the same dev texts.

    Args:
        source: The trained student.
        graphs: Exported students by name, each with one thread.
        teacher: Timed too if there is one.
        seconds: About how long to measure for each batch size.

    Returns:
        Batch size (as text, for JSON) -> name of the model -> timing; the trained student is
        called ``torch``, the teacher ``teacher``. Tokenisation is not part of it.
    """
    generator = torch.Generator().manual_seed(0)
    model = source.model()
    timings = {}
    for size in BATCHES:
        draws = [
            torch.randint(len(source.dev), (size,), generator=generator) for _ in range(PREPARED)
        ]
        runs: dict[str, Sequence[Run]] = {
            name: [partial(student.logits, student.encode(_texts(source, d))) for d in draws]
            for name, student in graphs.items()
        }
        runs["torch"] = _torch_runs(model, source.dev, draws)
        if teacher is not None:
            order = positions(source.dev.ids, teacher.dev.ids, f"teacher {teacher.facts.name}")
            runs["teacher"] = _torch_runs(teacher.model, teacher.dev, [order[d] for d in draws])
        with _one_thread():
            timings[str(size)] = measure(runs, seconds)
    return timings


@contextmanager
def _one_thread() -> Iterator[None]:
    """Give torch one thread: two pools of threads would wait for each other's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _texts(source: Source, draw: Tensor) -> list[str]:
    return [source.texts.texts[place] for place in draw.tolist()]


def _torch_runs(model: nn.Module, dev: Encoded, draws: Sequence[Tensor]) -> list[Run]:
    return [partial(_forward, model, *gather(dev, draw)) for draw in draws]


@torch.inference_mode()
def _forward(model: nn.Module, input_ids: Tensor, mask: Tensor) -> Any:
    return model(input_ids, mask).logits
