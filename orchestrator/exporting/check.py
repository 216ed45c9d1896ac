"""Does the exported student say what the trained one says? Asked of every text of the dev split.

Legend: N texts, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from orchestrator.errors import OrchestratorError
from orchestrator.exporting.source import Source
from orchestrator.exporting.standalone import Student
from trainables.batching import sequential_batches
from trainables.device import autocast
from trainables.evaluation import Predictor
from trainables.metrics import classification_metrics

BATCH = 128
# Sums of float32 in another order; a real difference in tokens or weights is far larger.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Equality:
    """An exported graph against the trained model, both fed with the texts of the dev split.

    Attributes:
        max_logit_difference: Largest absolute difference of any logit.
        label_agreement: Share of texts with the same label.
        accuracy: Of the graph's labels.
        f1_macro: Of the graph's labels.
        rows: Texts compared.
    """

    max_logit_difference: float
    label_agreement: float
    accuracy: float
    f1_macro: float
    rows: int


def torch_logits(source: Source) -> npt.NDArray[np.float32]:
    """Return the trained model's logits of the dev split [N, C], in float32 on the CPU."""
    device = torch.device("cpu")
    with autocast("fp32", device):
        logits, _ = Predictor(source.dev, device=device)(source.model().to(device))
    return np.asarray(logits.numpy(), np.float32)


def answers(student: Student, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return the exported student's logits [N, C], in batches of texts of similar length."""
    rows = student.encode(list(texts))
    lengths = np.array([len(row) for row in rows], np.int64)
    logits = np.empty((len(rows), len(student.config["labels"])), np.float32)
    for index in sequential_batches(lengths, BATCH):
        logits[index.numpy()] = student.logits([rows[place] for place in index.tolist()])
    return logits


def compare(source: Source, student: Student, expected: npt.NDArray[np.float32]) -> Equality:
    """Compare an exported student with ``expected`` logits [N, C] of the trained one."""
    found = answers(student, source.texts.texts)
    reached = scores(source, found)
    return Equality(
        max_logit_difference=float(np.abs(found - expected).max()),
        label_agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        accuracy=reached["accuracy"],
        f1_macro=reached["f1_macro"],
        rows=len(found),
    )


def scores(source: Source, logits: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return the dev metrics of logits [N, C], without a prefix."""
    return classification_metrics(torch.from_numpy(logits), torch.from_numpy(source.texts.labels))


def require_equal(equality: Equality, expected: npt.NDArray[np.float32]) -> None:
    """Refuse a float32 graph that does not compute what the trained model does.

    Raises:
        OrchestratorError: Some logit differs by more than rounding.
    """
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not equality.max_logit_difference <= allowed:
        raise OrchestratorError(
            f"the ONNX graph differs from the trained student by up to "
            f"{equality.max_logit_difference:.3g} in a logit (allowed {allowed:.3g}), so nothing "
            "was written; does its model depend on how much padding there is, or branch on sizes?"
        )
