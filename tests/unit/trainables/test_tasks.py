from collections.abc import Callable
from typing import Any

import pytest

from trainables import outputs, student
from trainables.checkpoint import Checkpoint
from trainables.confirm import ConfirmSpec
from trainables.lease import Lease
from trainables.process import Process
from trainables.store import Store
from trainables.tasks import TASKS, run_task
from trainables.teacher import TeacherSpec


def test_every_task_runs_from_json_and_then_answers_from_the_store(
    world: Any, make_teacher: Callable[..., TeacherSpec]
) -> None:
    pupil = world.student(epochs=1).to_dict()
    values = {
        "teacher": make_teacher("small", epochs=1).to_dict(),
        "outputs": outputs.OutputsSpec(world.teachers[0].key, "a", "dev", "dev").to_dict(),
        "student": pupil,
        "joint": {
            "scheme": "isolated",
            "teacher": make_teacher("small").to_dict(),
            "student": {**pupil, "teachers": []},
        },
        "confirm": {"student": pupil, "test": "test"},
        "ensemble": {
            "members": [ConfirmSpec(world.student(epochs=1), "test").key],
            "combiner": "soft_vote",
        },
    }
    assert set(values) <= set(TASKS)  # the others have their own tests
    for task, spec in values.items():
        *_, trained = run_task(task, spec, world.store)
        (cached,) = run_task(task, spec, Store(world.store.root))
        assert "cached" not in trained
        assert cached["cached"] is True
        assert cached["finished"] is trained["finished"] is True
        assert cached["epoch"] == trained["epoch"]
        assert cached["summary"].items() <= trained["summary"].items()


@pytest.mark.parametrize("file", ["dev.safetensors", "model/model.safetensors", "manifest.json"])
def test_a_damaged_artifact_is_made_again(world: Any, file: str) -> None:
    spec = world.student(epochs=1)
    *_, first = run_task("student", spec.to_dict(), world.store)
    path = world.store.path("student", spec.key) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    *_, again = run_task("student", spec.to_dict(), Store(world.store.root))
    assert "cached" not in again
    assert again["val_loss"] == first["val_loss"]


def test_a_trial_continues_from_its_own_checkpoint(world: Any) -> None:
    spec = world.student(epochs=3)
    trial = run_task("student", spec.to_dict(), world.store)
    assert next(trial)["epoch"] == 1
    trial.close()
    rest = list(run_task("student", spec.to_dict(), world.store))
    assert [report["epoch"] for report in rest] == [2, 3]
    # Its driver may have died before it heard of the first.
    assert [entry["epoch"] for entry in rest[0]["history"]] == [1]
    assert "history" not in rest[1]
    assert Checkpoint(world.store.root, spec.key).load() is None


def test_a_checkpoint_left_behind_is_cleared(world: Any) -> None:
    spec = world.student(epochs=1)
    list(student.run(spec, world.store))
    checkpoint = Checkpoint(world.store.root, spec.key)
    checkpoint.save({"epoch": 1})
    list(run_task("student", spec.to_dict(), world.store))
    assert checkpoint.load() is None


def test_an_artifact_that_another_process_makes_is_waited_for(world: Any) -> None:
    spec = world.student(epochs=2)
    task = ("student", spec.to_dict(), world.store)
    other = Lease(world.store.root, "student", spec.key)
    assert other.take() is None
    waited = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            list(student.run(spec, world.store))
            other.close()

    *waiting, cached = run_task(*task, pause=pause)
    assert [(r["epoch"], r["status"], r["finished"]) for r in waiting] == [
        (0, "waiting", False)
    ] * 2
    assert waiting[0]["holder"] == str(Process.current())
    assert cached["cached"] is True
    assert [entry["epoch"] for entry in cached["history"]] == [1]


def test_who_gives_up_without_an_artifact_is_followed(world: Any) -> None:
    spec = world.student(epochs=1)
    other = Lease(world.store.root, "student", spec.key)
    other.take()
    reports = list(
        run_task("student", spec.to_dict(), world.store, pause=lambda seconds: other.close())
    )
    assert [report.get("status") for report in reports] == ["waiting", None]
    assert "cached" not in reports[-1]


def test_the_lease_ends_with_the_artifact_and_with_the_trial(world: Any) -> None:
    leases = world.store.root / "leases"
    trial = run_task("student", world.student(epochs=2).to_dict(), world.store)
    next(trial)
    assert len(list(leases.iterdir())) == 1
    assert next(trial)["finished"] is True
    assert list(leases.iterdir()) == []  # although nobody has taken the generator to its end
    stopped = run_task("student", world.student(epochs=2, seed=5).to_dict(), world.store)
    next(stopped)
    stopped.close()
    assert list(leases.iterdir()) == []
