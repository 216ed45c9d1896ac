import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

pytest.importorskip("ray")

from trainables import tune
from trainables.errors import ArtifactCorrupt, DataError, NonFiniteLoss, StoreError
from trainables.tune import Trial


def config(world: Any, **changes: Any) -> dict[str, Any]:
    spec = world.student(**changes).to_dict()
    return {"task": "student", "spec": spec, "store": str(world.store.root)}


@pytest.fixture
def trial() -> Iterator[Trial]:
    """The adapter as Ray makes it, but without Ray's process around it."""
    threads = torch.get_num_threads()
    adapter = Trial.__new__(Trial)
    yield adapter
    adapter.cleanup()
    torch.set_num_threads(threads)


def reports(trial: Trial) -> list[dict[str, Any]]:
    found = []
    while not found or not found[-1]["done"]:
        found.append(trial.step())
    return found


def failing(error: BaseException, after: int = 0) -> Any:
    def run_task(*_: object) -> Iterator[dict[str, Any]]:
        for epoch in range(1, after + 1):
            yield {"epoch": epoch}
        raise error

    return run_task


def test_one_report_per_epoch(world: Any, trial: Trial) -> None:
    trial.setup(config(world))
    first, last = reports(trial)
    assert (first["epoch"], first["done"], last["epoch"], last["done"]) == (1, False, 2, True)
    assert last["summary"]["val_f1_macro"] == pytest.approx(
        max(first["val_f1_macro"], last["val_f1_macro"])
    )
    assert first["worker"]["pid"] == os.getpid()
    assert first["worker"]["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_process_is_used_again(world: Any, trial: Trial) -> None:
    trial.setup(config(world, seed=1))
    trial.step()
    assert trial.reset_config(config(world, seed=2)) is True
    used_again = reports(trial)
    assert [report["epoch"] for report in used_again] == [1, 2]
    fresh = Trial.__new__(Trial)
    world.store.delete("student", world.student(seed=2).key)
    fresh.setup(config(world, seed=2))
    assert reports(fresh)[-1]["val_loss"] == used_again[-1]["val_loss"]


def test_a_stopped_trial_continues_where_it_was(world: Any, trial: Trial) -> None:
    trial.setup(config(world))
    trial.step()
    trial.cleanup()
    trial.setup(config(world))
    assert [report["epoch"] for report in reports(trial)] == [2]


@pytest.mark.parametrize(
    ("error", "reason", "expected"),
    [
        (NonFiniteLoss("the loss is nan"), "NonFiniteLoss", True),
        (DataError("no such column"), "DataError", False),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom", False),
        (StoreError("disk full"), "store", False),
        (ArtifactCorrupt("outputs abc is damaged"), "store", False),
        (KeyError("a bug"), "KeyError", False),
    ],
)
def test_an_error_that_would_come_again_is_a_result(
    world: Any,
    trial: Trial,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
    expected: bool,
) -> None:
    monkeypatch.setattr(tune, "run_task", failing(error, after=1))
    trial.setup(config(world))
    trial.step()
    report = trial.step()
    assert report["status"] == "failed"
    assert (report["reason"], report["expected"]) == (reason, expected)
    assert report["done"] is True
    assert report["epoch"] == 1
    name = "" if reason == "store" else f"{type(error).__name__}: "
    assert report["error"] == f"{name}{error}"
    assert "run_task" in report["traceback"]


@pytest.mark.parametrize("error", [OSError(5, "input/output error"), ConnectionResetError()])
def test_an_error_that_may_pass_escapes_to_tune(
    world: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    monkeypatch.setattr(tune, "run_task", failing(error))
    trial.setup(config(world))
    with pytest.raises(type(error)):
        trial.step()


def test_a_failed_process_runs_the_next_trial(
    world: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tune, "run_task", failing(KeyError("a bug")))
        trial.setup(config(world))
        assert trial.step()["status"] == "failed"
    trial.reset_config(config(world))
    assert reports(trial)[-1]["finished"] is True


def test_ray_decides_how_many_threads_there_are(
    world: Any, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    trial.setup(config(world))
    assert torch.get_num_threads() == 2
    monkeypatch.delenv("OMP_NUM_THREADS")
    trial.reset_config(config(world))
    assert torch.get_num_threads() == 1
