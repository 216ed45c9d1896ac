"""A made-up sweep with a real store, small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from trainables.store import Store, content_key

Array = NDArray[Any]

CLASSES = ("sport", "money", "world")
N_TEST = 600


def logits_of(predictions: Array, confidence: float = 4.0) -> Array:
    """Return logits ``[N, 3]`` whose argmax is ``predictions``."""
    return (confidence * np.eye(len(CLASSES))[predictions]).astype(np.float32)


def noisy(targets: Array, accuracy: float, seed: int) -> Array:
    """Return predictions of which exactly the share ``accuracy`` is right, errors spread."""
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(targets))[: round((1 - accuracy) * len(targets))]
    predictions = targets.copy()
    predictions[wrong] = (targets[wrong] + 1 + rng.integers(2, size=len(wrong))) % len(CLASSES)
    return predictions


class SweepBuilder:
    """Collects trials and writes the predictions they would have left in the store."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.trials: list[TrialRecord] = []
        self.targets = np.arange(N_TEST) % len(CLASSES)
        self.ids = np.arange(N_TEST, dtype=np.int64) * 7 + 11

    def save(self, kind: str, key: str, name: str, predictions: Array, labelled: bool) -> None:
        tensors: dict[str, Array] = {"ids": self.ids, "logits": logits_of(predictions)}
        if labelled:
            tensors["targets"] = self.targets
        with self.store.write(kind, key) as draft:
            save_file(tensors, draft.path / name)

    def teacher(
        self, name: str, dev: float, test: float | None = None, seconds: float = 100.0
    ) -> None:
        metrics = {
            "val_accuracy": dev,
            "val_f1_macro": dev,
            "parameters": 1e8,
            "model_bytes": 4e8,
            "train_seconds": 100.0,
        }
        self.add(Stage.TEACHERS, name, {}, metrics, seconds=seconds)
        splits = {"train": {}, "dev": {"val_f1_macro": dev}}
        if test is not None:
            splits["test"] = {"test_f1_macro": test, "test_accuracy": test}
        for split, scores in splits.items():
            share = test if split == "test" and test is not None else dev
            key = self.add(
                Stage.OUTPUTS, name, {}, scores, seconds=10.0, spec={"split": split}, tag=split
            )
            predictions = noisy(self.targets, share, seed=len(self.trials))
            self.save("outputs", key, "outputs.safetensors", predictions, labelled=False)

    def student(
        self,
        role: str,
        dev: float,
        *,
        params: dict[str, Any] | None = None,
        state: TrialState = TrialState.COMPLETE,
        predictions: bool = False,
        parameters: float = 2e6,
        epochs: int = 2,
    ) -> str:
        metrics = {"val_f1_macro": dev, "val_accuracy": dev, "parameters": parameters}
        metrics["model_bytes"] = 4 * parameters
        history = tuple({"epoch": float(i), "val_f1_macro": dev} for i in range(1, epochs + 1))
        key = self.add(Stage.STUDENTS, role, params or {}, metrics, history=history, state=state)
        if predictions:
            wanted = noisy(self.targets, dev, seed=len(self.trials))
            self.save("student", key, "dev.safetensors", wanted, labelled=True)
        return key

    def confirm(
        self,
        role: str,
        group: str,
        dev: float,
        tests: Sequence[Array],
        *,
        params: dict[str, Any] | None = None,
        save: bool = True,
    ) -> None:
        for seed, predictions in enumerate(tests):
            share = float((predictions == self.targets).mean())
            metrics = {"val_f1_macro": dev, "test_f1_macro": share, "test_accuracy": share}
            key = self.add(
                Stage.CONFIRM,
                role,
                {**(params or {}), "seed": seed},
                metrics,
                group=group,
                seed=seed,
                tag=group,
            )
            if save:
                self.save("confirm", key, "predictions.safetensors", predictions, labelled=True)

    def add(
        self,
        stage: Stage,
        role: str,
        params: dict[str, Any],
        metrics: dict[str, float],
        *,
        tag: str = "",
        **rest: Any,
    ) -> str:
        key = content_key([stage, role, params, tag, rest.get("seed", 0), len(self.trials)])
        rest.setdefault("state", TrialState.COMPLETE)
        rest.setdefault("seconds", 5.0)
        self.trials.append(
            TrialRecord(stage=stage, key=key, role=role, params=params, metrics=metrics, **rest)
        )
        return key

    def record(self, **data: Any) -> SweepRecord:
        facts = {"classes": list(CLASSES), "rows": {"dev": N_TEST}, "majority": 1 / 3, **data}
        return SweepRecord("news", {}, tuple(self.trials), facts)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepBuilder:
    return SweepBuilder(tmp_path / "store")


@pytest.fixture
def finished(sweep: SweepBuilder) -> SweepBuilder:
    """A whole sweep: two teachers, three controls, four students, confirm over three seeds."""
    kd = {"loss": "kd", "loss.temperature": 4.0, "weighting": "average", "teachers": ["bert"]}
    mse = {"loss": "mse_logits", "weighting": "entropy", "teachers": ["bert", "weak"]}
    sweep.teacher("bert", 0.95, 0.94)
    sweep.teacher("weak", 0.80, 0.79, seconds=0.0)
    sweep.student("control:plain", 0.80, predictions=True)
    sweep.student("control:best_teacher", 0.85, params={**kd, "loss.temperature": 1.0})
    sweep.student("control:average", 0.84, params={**mse, "weighting": "average"})
    sweep.student("default", 0.86, params={**kd, "loss.temperature": 2.0}, parameters=1e6)
    chosen = sweep.student("search", 0.90, params=kd, predictions=True)
    sweep.student("search", 0.88, params=mse)
    sweep.student("search", 0.70, params={**kd, "alpha": 3.0}, state=TrialState.PRUNED, epochs=1)
    targets = sweep.targets
    for role, group, dev, test, params in (
        ("candidate", "g-mse", 0.87, 0.93, mse),
        ("candidate", chosen, 0.89, 0.90, kd),
        ("control:plain", "g-plain", 0.80, 0.80, {}),
        ("control:best_teacher", "g-best", 0.85, 0.86, kd),
        ("control:average", "g-average", 0.84, 0.88, mse),
    ):
        seeds = [noisy(targets, test, seed=hash_seed(group, i)) for i in range(3)]
        sweep.confirm(role, group, dev, seeds, params=params)
    return sweep


def hash_seed(group: str, seed: int) -> int:
    """Return a seed that differs between groups and stays the same between runs."""
    return int(content_key([group, seed])[:8], 16)


@pytest.fixture
def make_targets() -> Callable[[int], Array]:
    return lambda n: np.arange(n) % len(CLASSES)
