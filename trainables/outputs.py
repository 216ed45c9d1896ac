"""Teacher outputs: what a teacher says about every example, computed once and cached.

Legend: N examples, C classes, D features, K teachers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.answers import Answers, Resolved, ask, ask_folds, ask_together, mean_entropy
from trainables.device import Precision, pick_device, resolve_precision
from trainables.encoded import Encoded
from trainables.errors import DataError, TrialFailed
from trainables.evaluation import open_encoded
from trainables.hierarchy import coarsened
from trainables.metrics import classification_metrics
from trainables.models._io import load_model
from trainables.store import Store, content_key

FILE = "outputs.safetensors"


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
        folds: Teachers that each left out one fold of these rows, in the order of the folds:
            a row's logits come from the one that has not seen it. Features and head still come
            from ``teacher``, because they are comparable within one model only.
        members: Students whose averaged probabilities are the outputs, in place of a teacher;
            ``teacher`` then names the ensemble.
        anchor: Share of its training after which the teacher gave these outputs.
    """

    teacher: str
    name: str
    split: str
    encoded: str
    features: bool = False
    precision: Precision = "auto"
    folds: Sequence[str] = ()
    members: Sequence[str] = ()
    anchor: float = 1.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OutputsSpec:
        """Read it back from JSON values."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**vars(self), "folds": list(self.folds), "members": list(self.members)}

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
                # Left out where not used, so that they rename no plain outputs.
                **({"folds": list(self.folds)} if self.folds else {}),
                **({"members": list(self.members)} if self.members else {}),
                **({"anchor": self.anchor} if self.anchor != 1.0 else {}),
            }
        )


def run(spec: OutputsSpec, store: Store) -> Iterator[dict[str, Any]]:
    """Compute and store the outputs; yields one report.

    Raises:
        TrialFailed: Cached and live logits disagree, or the teacher was to leave these outputs
            during its training and did not.
    """
    started = time.perf_counter()
    if spec.anchor != 1.0:
        raise TrialFailed(
            f"the outputs of teacher {spec.name!r} after {spec.anchor:g} of its training are gone; "
            f"delete teacher {spec.teacher[:12]} from the store and start the sweep again"
        )
    device = pick_device()
    precision = resolve_precision(spec.precision, device)
    encoded = open_encoded(store, spec.encoded)
    answers = _answers(spec, store, encoded, device, precision)
    groups = None if spec.members else _groups(store, spec.teacher)
    yield write_outputs(spec, store, encoded, answers, precision, groups, started)


def write_outputs(
    spec: OutputsSpec,
    store: Store,
    encoded: Encoded,
    answers: Answers,
    precision: str,
    groups: Sequence[int] | None,
    started: float,
) -> dict[str, Any]:
    """Store what a teacher said about the rows of a split and return the trial's one report.

    Args:
        spec: What it is.
        store: Where it goes.
        encoded: The rows.
        answers: What was said.
        precision: That was used.
        groups: Superclass of each class, for a teacher of superclasses.
        started: ``time.perf_counter()`` when the work began.
    """
    logits, labels = answers.logits, coarsened(encoded, groups).labels
    tensors = {"ids": encoded.ids, "logits": logits}
    if answers.features is not None and answers.head is not None:
        tensors["features"] = answers.features.half()
        tensors["head_weight"], tensors["head_bias"] = answers.head
    metrics: dict[str, float] = {"rows": float(len(logits)), "cache_drift": answers.drift}
    if bool((labels >= 0).all()):
        prefix = {"dev": "val_", "train": "train_"}.get(spec.split, f"{spec.split}_")
        metrics |= classification_metrics(logits, labels, prefix)
        # Near 0 on train means that the teacher repeats the labels and weightings see no
        # difference between teachers; outputs out of fold are there to prevent that.
        metrics[f"{prefix}entropy"] = float(mean_entropy(logits))
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
    return {"epoch": 1, "finished": True, "summary": {**metrics, "train_seconds": seconds}}


def _answers(
    spec: OutputsSpec, store: Store, encoded: Encoded, device: torch.device, precision: Resolved
) -> Answers:
    def model(kind: str, key: str) -> nn.Module:
        return load_model(store.read(kind, key).file("model")).to(device)

    if spec.members:
        members = (model("student", key) for key in spec.members)
        return ask_together(members, encoded, device=device, precision=precision)
    if not spec.folds:
        teacher = model("teacher", spec.teacher)
        return ask(teacher, encoded, spec.features, device=device, precision=precision)
    models = (model("teacher", key) for key in spec.folds)
    unseen = ask_folds(models, len(spec.folds), encoded, device=device, precision=precision)
    if not spec.features:
        return unseen
    whole = ask(model("teacher", spec.teacher), encoded, True, device=device, precision=precision)
    return replace(unseen, features=whole.features, head=whole.head)


def _groups(store: Store, teacher: str) -> Sequence[int] | None:
    """Return the superclass of each class if the teacher has learned superclasses."""
    spec: Mapping[str, Any] = store.read("teacher", teacher).meta.get("spec", {})
    return spec.get("groups")


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
