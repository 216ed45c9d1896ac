"""Ensembles of students: several small models answer together.

Made after the fact from predictions that are stored already, so any subset costs seconds. How
the members are combined is settled on dev only.

Legend: M members, N examples, C classes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables.answers import mean_log_probabilities
from trainables.errors import DataError
from trainables.losses._math import log_probabilities
from trainables.metrics import classification_metrics
from trainables.store import Artifact, Store, content_key

Combiner = Literal["soft_vote", "logit_mean", "dev_weighted", "stacking"]
COMBINERS: tuple[str, ...] = get_args(Combiner)


@dataclass(frozen=True)
class EnsembleSpec:
    """Which confirmed students answer together, and how.

    Attributes:
        members: Keys of ``confirm`` artifacts.
        combiner: ``soft_vote`` averages probabilities, ``logit_mean`` logits, ``dev_weighted``
            probabilities by accuracy on dev, ``stacking`` fits a logistic regression on dev.
    """

    members: Sequence[str]
    combiner: Combiner = "soft_vote"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EnsembleSpec:
        """Read it back from JSON values."""
        return cls(tuple(values["members"]), values["combiner"])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"members": list(self.members), "combiner": self.combiner}

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes; the order of the members does not matter."""
        return content_key(
            {"kind": "ensemble", "members": sorted(self.members), "combiner": self.combiner}
        )


def run(spec: EnsembleSpec, store: Store) -> Iterator[dict[str, Any]]:
    """Combine the members' predictions on dev and test and store them; yields one report.

    Raises:
        ArtifactMissing: A member is not in the store.
        DataError: The members did not answer the same rows.
    """
    started = time.perf_counter()
    confirmed = [store.read("confirm", key) for key in sorted(spec.members)]
    students = [store.read(a.meta.get("task", "student"), a.meta["student"]) for a in confirmed]
    dev = _stack([artifact.file("dev.safetensors") for artifact in students])
    combine = fit_combiner(spec.combiner, dev.logits, dev.targets)
    answers = {"dev": _answer(combine, dev)}
    metrics = {
        **classification_metrics(answers["dev"]["logits"], dev.targets, "val_"),
        "members": float(len(students)),
        **size_of(students, store),
        **diversity(dev.logits, dev.targets, "val_"),
    }
    if all(artifact.file("predictions.safetensors").is_file() for artifact in confirmed):
        test = _stack([artifact.file("predictions.safetensors") for artifact in confirmed])
        answers["predictions"] = _answer(combine, test)
        logits = answers["predictions"]["logits"]
        metrics |= classification_metrics(logits, test.targets, "test_")
        metrics |= diversity(test.logits, test.targets, "test_")
    metrics["wall_seconds"] = time.perf_counter() - started
    with store.write("ensemble", spec.key) as draft:
        for name, tensors in answers.items():
            save_file(tensors, draft.path / f"{name}.safetensors")
        draft.meta.update(spec=spec.to_dict(), metrics=metrics, history=[{"epoch": 1}])
    yield {"epoch": 1, "finished": True, "summary": metrics}


class SoftVote:
    """Mean of the members' probabilities, with given weights or equal ones.

    Args:
        weights: ``[M]``, summing to 1, or None.
    """

    def __init__(self, weights: Tensor | None = None) -> None:
        self.weights = weights

    def __call__(self, logits: Tensor) -> Tensor:
        """Return log-probabilities ``[N, C]`` of the members' logits ``[M, N, C]``."""
        if self.weights is None:
            return mean_log_probabilities(logits)
        weighted = log_probabilities(logits) + self.weights.log()[:, None, None]
        return torch.logsumexp(weighted, dim=0)


class LogitMean:
    """Mean of the members' logits."""

    def __call__(self, logits: Tensor) -> Tensor:
        """Return logits ``[N, C]`` of the members' logits ``[M, N, C]``."""
        return logits.mean(dim=0)


class Stacking:
    """Logistic regression on the members' log-probabilities, fitted on dev.

    Args:
        logits: Of dev, ``[M, N, C]``.
        targets: Of dev, ``[N]``.
    """

    def __init__(self, logits: Tensor, targets: Tensor) -> None:
        from sklearn.linear_model import LogisticRegression

        self._classes = logits.shape[2]
        self._model = LogisticRegression(max_iter=1000)
        self._model.fit(self._table(logits), targets.numpy())

    def __call__(self, logits: Tensor) -> Tensor:
        """Return log-probabilities ``[N, C]`` of the members' logits ``[M, N, C]``."""
        known = torch.from_numpy(self._model.predict_log_proba(self._table(logits))).float()
        # A class that dev does not hold cannot be predicted; finite, so that losses stay so.
        result = torch.full((logits.shape[1], self._classes), -1e4)
        result[:, torch.from_numpy(self._model.classes_)] = known.clamp(min=-1e4)
        return result

    @staticmethod
    def _table(logits: Tensor) -> Any:
        return log_probabilities(logits).clamp(min=-20).permute(1, 0, 2).flatten(1).numpy()


def fit_combiner(name: str, logits: Tensor, targets: Tensor) -> SoftVote | LogitMean | Stacking:
    """Return a combiner, fitted where it has something to fit.

    Args:
        name: One of ``COMBINERS``.
        logits: Of the members on dev, ``[M, N, C]``.
        targets: Of dev, ``[N]``.

    Raises:
        ValueError: There is no such combiner.
    """
    if name == "soft_vote":
        return SoftVote()
    if name == "logit_mean":
        return LogitMean()
    if name == "dev_weighted":
        accuracy = (logits.argmax(2) == targets).double().mean(1)  # [M]
        # A member that is never right must not make the weights 0 / 0.
        accuracy = accuracy.clamp(min=1e-6)
        return SoftVote((accuracy / accuracy.sum()).float())
    if name == "stacking":
        return Stacking(logits, targets)
    raise ValueError(f"combiner must be one of {', '.join(COMBINERS)}, but got {name!r}")


def diversity(logits: Tensor, targets: Tensor, prefix: str) -> dict[str, float]:
    """Return how differently the members ``[M, N, C]`` answer, and how good they are alone.

    ``disagreement`` is the mean share of rows on which two members differ; ``oracle_accuracy``
    the share on which at least one is right, which no combiner can exceed by voting.
    """
    predictions = logits.argmax(2)  # [M, N]
    right = predictions == targets
    pairs = [
        float((predictions[a] != predictions[b]).double().mean())
        for a, b in itertools.combinations(range(len(predictions)), 2)
    ]
    return {
        f"{prefix}disagreement": sum(pairs) / len(pairs) if pairs else 0.0,
        f"{prefix}member_accuracy": float(right.double().mean()),
        f"{prefix}oracle_accuracy": float(right.any(dim=0).double().mean()),
    }


def size_of(students: Sequence[Artifact], store: Store) -> dict[str, float]:
    """Return ``parameters`` and ``model_bytes`` of all, a shared frozen embedding counted once.

    Trained embeddings that began as the same one are different ones at the end.
    """
    names = ("parameters", "model_bytes")
    total = {n: sum(float(s.meta["metrics"][n]) for s in students) for n in names}
    frozen = [
        spec["embedding"]
        for student in students
        if (spec := _network(student))["freeze_embedding"] and spec["embedding"]
    ]
    for key in set(frozen):
        table = store.read("embedding", key).meta
        again = (frozen.count(key) - 1) * int(table["vocab_size"]) * int(table["dim"])
        total["parameters"] -= again
        total["model_bytes"] -= 4 * again  # float32
    return total


@dataclass(frozen=True)
class _Stacked:
    """Predictions of all members on one split: ids ``[N]``, logits ``[M, N, C]``, targets."""

    ids: Tensor
    logits: Tensor
    targets: Tensor


def _network(student: Artifact) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = student.meta["spec"]
    return spec["student"] if "scheme" in spec else spec


def _stack(files: Sequence[Any]) -> _Stacked:
    parts = []
    for file in files:
        tensors = load_file(file)
        order = tensors["ids"].argsort()
        parts.append({name: tensor[order] for name, tensor in tensors.items()})
    if any(not torch.equal(part["ids"], parts[0]["ids"]) for part in parts):
        raise DataError(
            "the members of an ensemble were judged on different rows; start the sweep again "
            "so that all are confirmed on the same data"
        )
    logits = torch.stack([part["logits"].float() for part in parts])
    return _Stacked(parts[0]["ids"], logits, parts[0]["targets"])


def _answer(combine: SoftVote | LogitMean | Stacking, split: _Stacked) -> dict[str, Tensor]:
    logits = combine(split.logits).float().contiguous()
    return {"ids": split.ids, "logits": logits, "targets": split.targets}
