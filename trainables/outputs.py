"""Teacher outputs: what a teacher says about every example, computed once and cached.

Legend: N examples, C classes, D features, K teachers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.device import Precision, autocast, pick_device, resolve_precision
from trainables.encoded import Encoded
from trainables.errors import DataError, TrialFailed
from trainables.evaluation import Predictor, open_encoded
from trainables.metrics import classification_metrics
from trainables.models._io import load_model
from trainables.store import Store, content_key

FILE = "outputs.safetensors"
CHECKED_ROWS = 64
# Half precision moves a logit by about 2^-8 of its size; more than this is another model.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}


@dataclass(frozen=True)
class OutputsSpec:
    """Which teacher answers which split.

    Attributes:
        teacher: Key of the teacher artifact.
        name: The teacher's name in the config; not part of the key.
        split: ``train``, ``dev``, ``transfer`` or ``test``; not part of the key.
        encoded: Key of the split's tokens under the teacher's tokenizer.
        features: Whether pooled features are stored too, as float16.
        precision: Of the forward pass; logits are stored as float32 either way.
    """

    teacher: str
    name: str
    split: str
    encoded: str
    features: bool = False
    precision: Precision = "auto"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OutputsSpec:
        """Read it back from JSON values."""
        return cls(**values)

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes."""
        return content_key(
            {
                "kind": "outputs",
                "teacher": self.teacher,
                "encoded": self.encoded,
                "features": self.features,
                "precision": self.precision,
            }
        )


def run(spec: OutputsSpec, store: Store) -> Iterator[dict[str, Any]]:
    """Compute and store the outputs; yields one report.

    A sample of rows is computed a second time in fp32, one by one without padding, and must
    agree with what was stored.

    Raises:
        TrialFailed: Cached and live logits disagree.
    """
    started = time.perf_counter()
    device = pick_device()
    precision = resolve_precision(spec.precision, device)
    teacher = store.read("teacher", spec.teacher)
    model: nn.Module = load_model(teacher.file("model")).to(device).eval()
    encoded = open_encoded(store, spec.encoded)
    predictor = Predictor(encoded, device=device)
    with autocast(precision, device):
        logits, features = predictor(model, features=spec.features)
    drift = _check(model, encoded, logits, device, precision)
    tensors = {"ids": encoded.ids, "logits": logits}
    if features is not None:
        tensors["features"] = features.half()
        weight, bias = model.head()  # type: ignore[operator]
        tensors["head_weight"], tensors["head_bias"] = weight.detach().cpu(), bias.detach().cpu()
    metrics: dict[str, float] = {"rows": float(len(logits)), "cache_drift": drift}
    if bool((encoded.labels >= 0).all()):
        prefix = {"dev": "val_", "train": "train_"}.get(spec.split, f"{spec.split}_")
        metrics |= classification_metrics(logits, encoded.labels, prefix)
    seconds = time.perf_counter() - started
    with store.write("outputs", spec.key) as draft:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, draft.path / FILE
        )
        draft.meta.update(
            teacher=spec.teacher,
            name=spec.name,
            split=spec.split,
            precision=precision,
            metrics=metrics,
            seconds=seconds,
        )
    yield {"epoch": 1, "finished": True, "summary": {**metrics, "train_seconds": seconds}}


def _check(
    model: nn.Module,
    encoded: Encoded,
    logits: Tensor,
    device: torch.device,
    precision: str,
) -> float:
    """Return the largest relative difference on evenly spaced rows, computed one by one."""
    rows = range(0, len(logits), max(1, len(logits) // CHECKED_ROWS))
    predictor = Predictor(encoded.subset(rows), device=device, batch_size=1)
    live, _ = predictor(model)
    scale = live.abs().amax().clamp(min=1.0)
    drift = float((live - logits[list(rows)]).abs().amax() / scale)
    if not drift <= TOLERANCE[precision]:
        raise TrialFailed(
            f"cached and live logits differ by {drift:.3g} of their size "
            f"(allowed {TOLERANCE[precision]:g} in {precision}); set its precision to fp32"
        )
    return drift


@dataclass(frozen=True)
class TeacherOutputs:
    """Cached outputs of one teacher on one split.

    Attributes:
        ids: Example ids ``[N]``, int64.
        logits: ``[N, C]``, float32.
        features: ``[N, D]``, float16, memory-mapped, or None.
        head: The teacher's last layer, weight ``[C, D]`` and bias ``[C]``, or None.
    """

    ids: Tensor
    logits: Tensor
    features: Tensor | None
    head: tuple[Tensor, Tensor] | None


@lru_cache(maxsize=64)
def _load(path: Path, stamp: int) -> TeacherOutputs:
    with safe_open(path, framework="pt") as file:
        names = set(file.keys())
        return TeacherOutputs(
            ids=file.get_tensor("ids"),
            logits=file.get_tensor("logits"),
            features=file.get_tensor("features") if "features" in names else None,
            head=(file.get_tensor("head_weight"), file.get_tensor("head_bias"))
            if "head_weight" in names
            else None,
        )


def load_outputs(store: Store, key: str) -> TeacherOutputs:
    """Open cached outputs; an actor keeps them for its next trial."""
    path = store.read("outputs", key).file(FILE)
    return _load(path, path.stat().st_mtime_ns)


def positions(wanted: Tensor, available: Tensor, what: str) -> Tensor:
    """Return where each wanted id stands among the available ones, ``[N]`` int64.

    Rows are matched by example id and never by position: a shuffled or filtered split must not
    silently get another row's logits.

    Raises:
        DataError: An id is missing.
    """
    if torch.equal(wanted, available):
        return torch.arange(len(wanted))
    ordered, order = available.sort(stable=True)
    found = torch.searchsorted(ordered, wanted).clamp_(max=len(available) - 1)
    missing = int((ordered[found] != wanted).sum())
    if missing:
        raise DataError(
            f"{missing} of {len(wanted)} examples have no cached outputs from {what}; "
            "delete that outputs artifact (orchestrator gc) and start the sweep again"
        )
    return order[found]
