"""The sweep a user would write: Ray Tune, OptunaSearch, MLflowLoggerCallback, two live teachers.

Written fairly: the model, the loop, the optimizer, the precision and the batches are this
project's own, and the first point is the same; only the teachers are asked anew for every batch,
and Tune and MLflow are used the way their manuals show. Run by ``test_whole_sweeps.py`` as
``python naive_sweep.py CONFIG HOME EPOCHS TRIALS SLOTS FOLDER``; prints one JSON document.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch
from torch import Tensor, nn

from orchestrator.config import load_config
from orchestrator.home import Home
from orchestrator.materials import prepare_data, prepare_materials
from orchestrator.specs import StudentFactory, trained_teacher
from trainables import student
from trainables.batching import gather
from trainables.device import autocast, pick_device, resolve_precision
from trainables.encoded import Encoded
from trainables.evaluation import open_encoded
from trainables.models._io import load_model
from trainables.store import Store
from trainables.student import StudentSpec

DEFAULT = {"alpha": 4.0, "temperature": 2.0}


class LiveTeachers:
    """What cached outputs give, from teachers that are asked anew for every batch."""

    anchor = 0

    def __init__(self, models: Sequence[nn.Module], rows: Sequence[Encoded]) -> None:
        self._models, self._rows = models, rows
        self._device = pick_device()
        self._precision = resolve_precision("auto", self._device)

    @torch.no_grad()
    def logits(self, index: Tensor) -> Tensor:
        """Return ``[K, B, C]`` for rows ``[B]``."""
        answers = []
        for model, rows in zip(self._models, self._rows, strict=True):
            input_ids, mask = (part.to(self._device) for part in gather(rows, index))
            with autocast(self._precision, self._device):
                answers.append(model(input_ids, mask).logits)
        return torch.stack(answers)

    def features(self, index: Tensor, device: torch.device) -> None:
        """Return nothing: the loss compares logits."""
        del index, device


def describe(config_path: str, home: Home, epochs: int) -> tuple[StudentSpec, list[str]]:
    """Return the student of the config, and what each teacher's training rows are called."""
    config = load_config(config_path, [f"student.epochs={epochs}"])
    data = prepare_data(config, home.store, lambda _: None)
    materials = prepare_materials(config, data, home.store, lambda _: None)
    teachers = [trained_teacher(config, teacher, 0.5) for teacher in materials.teachers]
    rows = [teacher.materials.tokens.encoded["train"] for teacher in teachers]
    return StudentFactory(config, materials, teachers).spec({}), rows


def main() -> None:
    """Run the sweep and print what it took."""
    config_path, home_path, epochs, trials, slots, folder = sys.argv[1:]
    home = Home(Path(home_path))
    base, encoded = describe(config_path, home, int(epochs))
    root = str(home.store.root)

    def train(config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        store = Store(root)
        models = [
            load_model(store.read("teacher", teacher.key).file("model")).eval().to(pick_device())
            for teacher in base.teachers
        ]
        rows = [open_encoded(store, key) for key in encoded]
        student._open_guidance = lambda *_: LiveTeachers(models, rows)  # type: ignore[assignment]
        loss = {**base.loss, "temperature": config["temperature"]}
        spec = replace(base, alpha=config["alpha"], loss=loss)
        store.delete("student", spec.key)  # else the cached sweep's student would be kept
        for report in student.run(spec, store):
            metrics = {k: v for k, v in report.items() if isinstance(v, float | int)}
            tune.report({**metrics, **report.get("summary", {})})

    ray.init(num_cpus=int(slots), include_dashboard=False, log_to_driver=False)
    started = time.perf_counter()
    results = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={"alpha": tune.loguniform(1, 16), "temperature": tune.loguniform(1, 4)},
        tune_config=tune.TuneConfig(
            metric="val_f1_macro",
            mode="max",
            search_alg=OptunaSearch(points_to_evaluate=[DEFAULT]),
            num_samples=int(trials),
            max_concurrent_trials=int(slots),
        ),
        run_config=tune.RunConfig(
            storage_path=f"{folder}/tune",
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{folder}/naive.db", experiment_name="naive"
                )
            ],
        ),
    ).fit()
    wall = time.perf_counter() - started
    scores = [(result.metrics or {})["val_accuracy"] for result in results if not result.error]
    print(json.dumps({"wall": wall, "errors": results.num_errors, "accuracy": scores}))


if __name__ == "__main__":
    main()
