"""What each cached method costs: its epochs against plain cross-entropy on the same batches.

The student has the seed paper's size and sees 1,280 headlines of drawn characters; three teachers
of other sizes have left logits and pooled features. Epochs of methods and of plain students take
turns, and a ratio is that of the medians. Only the training counts, not the evaluation, and only
the processor time of this process: what else runs on the machine must not decide.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trainables import catalog, loop, outputs, student
from trainables.store import Store
from trainables.student import StudentSpec, TeacherRef

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(3000),
    pytest.mark.usefixtures("one_thread"),
]

ROWS, CLASSES, SUPERCLASSES, BATCH = 1280, 10, 4, 128
GROUPS = [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
WIDTHS = (768, 384, 768)  # of the teachers' features; the student's are 768
ROUNDS = 5

# The most that a method may cost, as a multiple of plain cross-entropy.
BOUNDS = {"losses": 1.2, "weightings": 1.2, "hints": 1.4}
DEARER = {"gradient": 1.3, "reinforced": 1.8}

PARAMS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("losses", "superclass"): {"groups": GROUPS},
    # Nothing but warm-up would be measured in a single epoch.
    ("weightings", "reinforced"): {"warmup": 0.0},
    ("weightings", "fixed"): {"weights": [0.5, 0.3, 0.2]},
}

Record = Callable[..., None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, StudentSpec]]:
    """Encoded rows, and what three teachers of classes and one of superclasses say of them."""
    store = Store(tmp_path_factory.mktemp("store"))
    generator = torch.Generator().manual_seed(0)
    for split, rows, first in (("train", ROWS, 0), ("dev", 128, 100_000)):
        lengths = torch.randint(8, 25, (rows,), generator=generator)
        odds = 1 / (torch.arange(4700) + 10.0)
        tokens = torch.multinomial(odds, int(lengths.sum()), True, generator=generator) + 2
        tensors = {
            "tokens": tokens.int(),
            "offsets": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
            "ids": torch.arange(rows) + first,
            "labels": torch.randint(0, CLASSES, (rows,), generator=generator),
        }
        with store.write("encoded", split) as draft:
            save_file(tensors, draft.path / "encoded.safetensors", metadata={"pad_id": "0"})
    teachers = [_answers(store, n, CLASSES, width, generator) for n, width in enumerate(WIDTHS)]
    _answers(store, 9, SUPERCLASSES, WIDTHS[0], generator)
    yield (
        store,
        StudentSpec(
            model={
                "name": "textcnn",
                "filters": 256,
                "kernels": [2, 3, 4],
                "embedding_dim": 300,
            },
            n_classes=CLASSES,
            vocab_size=4762,
            train="train",
            dev="dev",
            teachers=teachers,
            epochs=1,
            batch_size=BATCH,
        ),
    )


def _answers(
    store: Store, number: int, classes: int, width: int, generator: torch.Generator
) -> TeacherRef:
    tensors = {
        "ids": torch.arange(ROWS),
        "logits": 3 * torch.randn(ROWS, classes, generator=generator),
        "features": torch.rand(ROWS, width, generator=generator).half(),
        "head_weight": torch.randn(classes, width, generator=generator) / width**0.5,
        "head_bias": torch.zeros(classes),
    }
    with store.write("outputs", f"outputs{number}") as draft:
        save_file(tensors, draft.path / outputs.FILE)
    return TeacherRef(
        f"t{number}", f"t{number}", 0.8 - number / 10, [{"train": f"outputs{number}"}]
    )


def taught(spec: StudentSpec, kind: str, name: str) -> StudentSpec:
    """Return the student of a method: one component changed, the rest as simple as it gets."""
    part = {"name": name, **PARAMS.get((kind, name), {})}
    if kind == "weightings":
        return replace(spec, weighting=part)
    if kind == "hints":
        return replace(spec, hint=part, beta=1.0)
    if name == "superclass":
        # Three answers of one size over the superclasses: what they say does not matter here.
        coarse = [replace(t, outputs=[{"train": "outputs9"}]) for t in spec.teachers]
        return replace(spec, loss=part, teachers=coarse)
    return replace(spec, loss=part)


@pytest.fixture(autouse=True)
def nothing_but_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loop measure the time that it computes, and neither ask dev nor store anything."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=time.process_time))
    monkeypatch.setattr(student, "report_and_store", lambda fit, *_, **__: iter(fit))
    monkeypatch.setattr(student._Training, "evaluate", lambda _: {"val_f1_macro": 0.0})


def epochs_of(spec: StudentSpec, store: Store, count: int = ROUNDS) -> Iterator[float]:
    """Train; yield the seconds of each epoch. The first is a warm-up, left out."""
    reports: Iterator[Any] = student.run(replace(spec, epochs=count + 1), store)
    next(reports)
    return (float(report.metrics["train_seconds"]) for report in reports)


def ratios(store: Store, spec: StudentSpec, kind: str) -> dict[str, float]:
    """Return median seconds of an epoch of each method over those of plain cross-entropy."""
    methods = {name: epochs_of(taught(spec, kind, name), store) for name in catalog.names(kind)}
    plain = epochs_of(replace(spec, teachers=()), store, len(methods) * ROUNDS)
    times: dict[str, list[float]] = {name: [] for name in methods}
    without: list[float] = []
    for _ in range(ROUNDS):
        for name, epochs in methods.items():
            times[name].append(next(epochs))
            without.append(next(plain))
    usual = statistics.median(without)
    return {name: statistics.median(seconds) / usual for name, seconds in times.items()}


@pytest.mark.parametrize("kind", BOUNDS)
def test_an_epoch_of_each_method_against_plain(
    kind: str, world: tuple[Store, StudentSpec], record_figures: Record
) -> None:
    found = ratios(*world, kind)
    targets = {name: DEARER.get(name, BOUNDS[kind]) for name in found}
    over = [name for name, ratio in found.items() if ratio > targets[name]]
    record_figures(
        f"{kind}_against_plain",
        **found,
        teachers=len(WIDTHS),
        target=", ".join(
            [f"<= {BOUNDS[kind]}", *(f"{n} <= {DEARER[n]}" for n in found if n in DEARER)]
        ),
        over=over,
    )
    # Twice the bound cannot be noise: then a method has begun to loop over something.
    assert all(ratio < 2 * targets[name] for name, ratio in found.items()), found
