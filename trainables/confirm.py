"""Confirmation: train a student again with another seed and read the test split, once.

Only ``ConfirmSpec`` can name a test split; the specs that the search works with have no field
for it, so that no search can decide on test data.

Legend: N test rows, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from trainables.checkpoint import Checkpoint
from trainables.device import autocast, pick_device, resolve_precision
from trainables.errors import ArtifactMissing
from trainables.evaluation import Predictor, open_encoded
from trainables.joint import JointSpec
from trainables.joint import run as train_jointly
from trainables.metrics import classification_metrics
from trainables.models._io import load_model
from trainables.store import Store, content_key
from trainables.student import StudentSpec
from trainables.student import run as train_student


@dataclass(frozen=True)
class ConfirmSpec:
    """A student and the test split it is judged on.

    Attributes:
        student: The student, with the seed to confirm it with, alone or with its teacher.
        test: Key of the encoded test split, or None where the data has none.
    """

    student: StudentSpec | JointSpec
    test: str | None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConfirmSpec:
        """Read it back from JSON values."""
        trained = values["student"]
        kind = JointSpec if "scheme" in trained else StudentSpec
        return cls(kind.from_dict(trained), values["test"])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"student": self.student.to_dict(), "test": self.test}

    @property
    def task(self) -> str:
        """The task that trains the student, and the kind of its artifact."""
        return "joint" if isinstance(self.student, JointSpec) else "student"

    @property
    def network(self) -> StudentSpec:
        """The student without the teacher it may grow up with."""
        return self.student.student if isinstance(self.student, JointSpec) else self.student

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes."""
        return content_key({"kind": "confirm", "student": self.student.key, "test": self.test})


def run(
    spec: ConfirmSpec, store: Store, checkpoint: Checkpoint | None = None
) -> Iterator[dict[str, Any]]:
    """Train the student unless it exists, then predict the test split and store that.

    Yields:
        The student's epochs; the last also holds the test metrics in ``summary``.
    """
    started = time.perf_counter()
    try:
        artifact = store.read(spec.task, spec.student.key)
    except ArtifactMissing:
        for report in _train(spec, store, checkpoint):
            if not report["finished"]:
                yield report
        artifact = store.read(spec.task, spec.student.key)
    device = pick_device()
    predictions: dict[str, Tensor] = {}
    metrics = dict(artifact.meta["metrics"])
    if spec.test is not None:
        model = load_model(artifact.file("model")).to(device)
        predictor = Predictor(open_encoded(store, spec.test), device=device)
        with autocast(resolve_precision(spec.network.precision, device), device):
            logits, _ = predictor(model)
        predictions = {"ids": predictor.ids, "logits": logits, "targets": predictor.targets}
        metrics |= classification_metrics(logits, predictor.targets, "test_")
    summary = {**metrics, "wall_seconds": time.perf_counter() - started}
    with store.write("confirm", spec.key) as draft:
        if predictions:
            save_file(predictions, draft.path / "predictions.safetensors")
        draft.meta.update(
            student=spec.student.key,
            task=spec.task,
            metrics=summary,
            history=artifact.meta["history"],
        )
    *earlier, last = artifact.meta["history"]
    yield {**last, "finished": True, "history": earlier, "summary": summary}


def _train(
    spec: ConfirmSpec, store: Store, checkpoint: Checkpoint | None
) -> Iterator[dict[str, Any]]:
    if isinstance(spec.student, JointSpec):
        return train_jointly(spec.student, store, checkpoint)
    return train_student(spec.student, store, checkpoint)
