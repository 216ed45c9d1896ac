import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trainables import student, teacher
from trainables.checkpoint import Checkpoint
from trainables.evaluation import open_encoded
from trainables.outputs import FILE, OutputsSpec, load_outputs
from trainables.route import Route
from trainables.snapshots import anchor_step
from trainables.student import TeacherRef
from trainables.teacher import TeacherSpec

ANCHORS = (0.25, 0.5)
SPLITS = {"train": "train", "dev": "dev"}
MakeTeacher = Callable[..., TeacherSpec]


@pytest.fixture
def reference(world: Any, make_teacher: MakeTeacher) -> TeacherRef:
    """A teacher whose outputs exist after a quarter, a half and all of its training."""
    spec = make_teacher("tiny", anchors=ANCHORS, anchor_splits=SPLITS, epochs=4)
    *_, last = teacher.run(spec, world.store)
    anchors = []
    for anchor in (*ANCHORS, 1.0):
        outputs = {
            split: OutputsSpec(spec.key, "tiny", split, split, False, "fp32", anchor=anchor)
            for split in SPLITS
        }
        if anchor == 1.0:
            for final in outputs.values():
                list(student_outputs(final, world))
        anchors.append({split: value.key for split, value in outputs.items()})
    return TeacherRef("tiny", spec.key, last["summary"]["val_f1_macro"], anchors)


def student_outputs(spec: OutputsSpec, world: Any) -> Any:
    from trainables import outputs

    return outputs.run(spec, world.store)


def learner(world: Any, reference: TeacherRef, search: str, **changes: Any) -> Any:
    schedule = {"name": "rco", "anchors": [*ANCHORS, 1.0], "search": search, "last_share": 0.3}
    return world.student(teachers=[reference], schedule=schedule, epochs=6, **changes)


def test_steps_of_anchors() -> None:
    assert [anchor_step(a, 40) for a in (0.001, 0.1, 0.25, 0.5)] == [1, 4, 10, 20]


def test_the_teacher_gets_better_along_its_way(world: Any, reference: TeacherRef) -> None:
    losses = [
        world.store.read("outputs", anchor["train"]).meta["metrics"]["train_loss"]
        for anchor in reference.outputs
    ]
    # The teacher kept is that of its best epoch, which may be the one of the last anchor.
    assert losses[0] > losses[1] >= losses[2]


def test_anchors_change_the_key_and_not_the_weights(world: Any, make_teacher: MakeTeacher) -> None:
    plain = make_teacher("tiny")
    routed = replace(plain, anchors=(0.5,), anchor_splits=SPLITS)
    assert plain.key != routed.key
    assert TeacherSpec.from_dict(routed.to_dict()).key == routed.key
    for spec in (plain, routed):
        list(teacher.run(spec, world.store))
    files = [world.store.read("teacher", s.key).file("dev.safetensors") for s in (plain, routed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_anchors_survive_a_crash(world: Any, make_teacher: MakeTeacher) -> None:
    spec = make_teacher("tiny", anchors=(0.2, 0.8), anchor_splits=SPLITS)
    keys = [
        OutputsSpec(spec.key, "tiny", "train", "train", False, "fp32", anchor=a).key
        for a in spec.anchors
    ]
    checkpoint = Checkpoint(world.store.root, spec.key)
    next(teacher.run(spec, world.store, checkpoint))
    assert [world.store.exists("outputs", key) for key in keys] == [True, False]
    list(teacher.run(spec, world.store, checkpoint))
    assert all(world.store.exists("outputs", key) for key in keys)


def test_divergence_falls_towards_the_anchor_that_was_learned(
    world: Any, reference: TeacherRef
) -> None:
    dev = open_encoded(world.store, "dev")
    route = Route(world.store, [("tiny", reference.outputs)], dev.ids)
    last = load_outputs(world.store, reference.outputs[-1]["dev"])
    near = route.divergences(last.logits)
    assert near[2] == pytest.approx(0, abs=1e-6)
    assert near[0] > near[2]
    uniform = route.divergences(torch.zeros_like(last.logits))
    assert uniform[0] < uniform[2]  # an early teacher is nearer to knowing nothing


@pytest.mark.parametrize("search", ["equal", "greedy"])
def test_a_student_follows_the_route_and_continues_after_a_crash(
    world: Any, reference: TeacherRef, search: str
) -> None:
    spec = learner(world, reference, search)
    whole = list(student.run(spec, world.store))
    again = replace(spec)
    world.store.delete("student", spec.key)
    checkpoint = Checkpoint(world.store.root, spec.key)
    started = student.run(again, world.store, checkpoint)
    for _ in range(4):
        next(started)
    started.close()
    rest = list(student.run(again, world.store, checkpoint))
    assert [report["epoch"] for report in rest] == [5, 6]
    assert rest[-1]["train_kd"] == whole[-1]["train_kd"]
    assert rest[-1]["val_loss"] == whole[-1]["val_loss"]


def test_the_active_anchor_is_the_schedules(
    world: Any, reference: TeacherRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(self: Any, index: Any) -> Any:
        seen.append(self.anchor)
        return original(self, index)

    original = student.Guidance.logits
    monkeypatch.setattr(student.Guidance, "logits", watched)
    list(student.run(learner(world, reference, "equal"), world.store))
    steps = len(seen) // 6
    assert [seen[epoch * steps] for epoch in range(6)] == [0, 0, 1, 1, 2, 2]


def test_divergences_by_value(world: Any) -> None:
    """Mean over teachers and rows of KL(teacher || student), by hand for two classes."""
    even, sure = [0.0, 0.0], [math.log(3), 0.0]  # 1/2, 1/2 and 3/4, 1/4
    rows = {"early": [even, even], "late": [sure, even]}
    ids = torch.tensor([5, 6])
    keys = {}
    for name, logits in rows.items():
        # Stored the other way round: rows are matched by id.
        tensors = {"ids": ids.flip(0), "logits": torch.tensor(logits).flip(0)}
        with world.store.write("outputs", name) as draft:
            save_file(tensors, draft.path / FILE)
        keys[name] = {"dev": name}
    teachers = [("a", [keys["early"], keys["late"]]), ("b", [keys["early"], keys["early"]])]
    student_logits = torch.tensor([sure, even])
    even_to_sure = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    found = Route(world.store, teachers, ids).divergences(student_logits)
    # Early: both teachers are even on row 0. Late: one of the two says what the student says.
    assert found == pytest.approx([even_to_sure / 2, even_to_sure / 4], abs=1e-6)


@pytest.mark.parametrize(
    ("measured", "anchors"),
    [
        ([1.0, 1.2, 1.4], [0, 0, 2, 2, 2, 2]),  # the last is within 1.5 times the first
        ([1.0, 1.2, 1.6], [0, 0, 1, 1, 2, 2]),
        ([1.0, 9.0, 9.0], [0, 0, 1, 1, 2, 2]),  # nothing is near: on to the next
    ],
)
def test_the_greedy_route_follows_what_is_measured_on_dev(
    world: Any,
    reference: TeacherRef,
    monkeypatch: pytest.MonkeyPatch,
    measured: list[float],
    anchors: list[int],
) -> None:
    used: list[int] = []
    asked: list[torch.Tensor] = []

    def watched(self: Any, index: Any) -> Any:
        used.append(self.anchor)
        return original(self, index)

    def measure(self: Route, logits: torch.Tensor) -> list[float]:
        asked.append(logits)
        return measured

    original = student.Guidance.logits
    monkeypatch.setattr(student.Guidance, "logits", watched)
    monkeypatch.setattr(Route, "divergences", measure)
    list(student.run(learner(world, reference, "greedy"), world.store))
    steps = len(used) // 6
    assert [used[epoch * steps] for epoch in range(6)] == anchors
    assert len(asked) == 1  # after two of six epochs; the last anchor needs no search
    assert len(asked[0]) == len(open_encoded(world.store, "dev").ids)


def test_one_anchor_is_plain_distillation(world: Any, reference: TeacherRef) -> None:
    final = replace(reference, outputs=[reference.outputs[-1]])
    plain = world.student(teachers=[final])
    routed = world.student(teachers=[final], schedule={"name": "rco", "anchors": [1.0]})
    results = [list(student.run(spec, world.store))[-1] for spec in (plain, routed)]
    assert results[0]["val_loss"] == results[1]["val_loss"]
    assert results[0]["train_loss"] == results[1]["train_loss"]
