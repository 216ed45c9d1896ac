"""What is known about an exported student: the record that the model card is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.exporting.check import Equality
from orchestrator.exporting.folder import GRAPHS
from orchestrator.exporting.latency import Timing


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher that sizes and times are compared with."""

    name: str
    parameters: int
    model_bytes: int


@dataclass(frozen=True)
class Facts:
    """What was exported and what was measured of it.

    Attributes:
        sweep: Name of the sweep.
        trial: Key of the trial.
        student: Key of its artifact.
        seed: The seed it was trained with.
        method: How it was taught, in a few words.
        confirmed: It belongs to the configuration that the verdict is about.
        verdict: Of the sweep, or None if this student is not the one it speaks about.
        data_digest: Of the data it learned from.
        labels: In the order of the logits.
        max_length: Tokens it reads of each text.
        parameters: Of the student.
        trained: Dev scores of the trained student in float32.
        equality: By graph, against the trained student on dev.
        bytes: Size of each file of the folder.
        teacher: The teacher it is compared with, or None if that is gone.
        latency: Batch size -> model -> timing.
        machine: Where that was measured.
        versions: Of the libraries it was made with.
    """

    sweep: str
    trial: str
    student: str
    seed: int
    method: str
    confirmed: bool
    verdict: str | None
    data_digest: str
    labels: tuple[str, ...]
    max_length: int
    parameters: int
    trained: Mapping[str, float]
    equality: Mapping[str, Equality]
    bytes: Mapping[str, int]
    teacher: TeacherFacts | None
    latency: Mapping[str, Mapping[str, Timing]]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]

    def weights(self) -> dict[str, int]:
        """Return the bytes of each form that was timed."""
        weights = {name: self.bytes[file] for name, file in GRAPHS.items()}
        weights["torch"] = self.bytes["model.safetensors"]
        if self.teacher is not None:
            weights["teacher"] = self.teacher.model_bytes
        return weights

    def ratios(self) -> dict[str, Any]:
        """Return how many times smaller and faster the int8 student is than the teacher."""
        if self.teacher is None:
            return {}
        faster = {
            size: {
                "p50": times["teacher"].p50_ms / times["int8"].p50_ms,
                "p95": times["teacher"].p95_ms / times["int8"].p95_ms,
            }
            for size, times in self.latency.items()
        }
        return {
            "smaller": self.teacher.model_bytes / self.bytes[GRAPHS["int8"]],
            "faster": faster,
        }

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, the ratios included."""
        return {**asdict(self), "ratios": self.ratios()}
