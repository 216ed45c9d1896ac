"""Trials that fail: deterministic errors, infinite losses, memory that runs out."""

import json
from collections import Counter
from typing import Any

import pytest

from orchestrator.records import TrialState
from orchestrator.tracking.events import TrialReported, TrialStarted

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(900)]


def grid(key: str, *options: Any) -> dict[str, Any]:
    return {
        "search.space": {key: {"grid": list(options)}},
        "search.trials": len(options),
        "budget": {"failed_trials": None},
    }


@pytest.mark.brief
@pytest.mark.usefixtures("shared_ray")
def test_errors_that_would_come_again(bench: Any, figure: Any) -> None:
    plan = grid("loss", "kd", "stand_ins:Bug", "stand_ins:Diverging")
    bench.sweep(bench.config(**plan))
    by_loss = {r.params["loss"]: r for r in bench.results()}
    assert {name.rpartition(":")[2]: r.state for name, r in by_loss.items()} == {
        "kd": TrialState.COMPLETE,
        "Bug": TrialState.FAILED,
        "Diverging": TrialState.FAILED,
    }
    bug, infinite = by_loss["stand_ins:Bug"], by_loss["stand_ins:Diverging"]
    assert "a bug of the stand-in" in bug.error
    assert "Traceback" in bug.error
    assert "is not finite in epoch 1 (train_loss nan, train_ce " in infinite.error
    assert not infinite.metrics.get("val_f1_macro")
    starts = Counter(event.key for event in bench.events(TrialStarted))
    assert starts[bug.key] == starts[infinite.key] == 1
    failures = json.loads(bench.call("status", "--json").stdout)["failures"]
    assert {entry["key"]: entry["error"] for entry in failures} == {
        bug.key: bug.error,
        infinite.key: infinite.error,
    }
    # The same command with a budget of one failure stops before anything is trained.
    text = bench.sweep(bench.config(**{**plan, "budget": {"failed_trials": 1}}), code=4)
    assert "1 x KeyError: 'a bug of the stand-in'" in text
    assert "1 x NonFiniteLoss: the training loss is not finite" in text
    assert bench.starts() == sum(starts.values())
    figure(failed=2, retried=0, complete=1, exit_code_over_budget=4)


@pytest.mark.usefixtures("shared_ray")
def test_a_failed_trial_budget_stops_the_sweep(bench: Any, figure: Any) -> None:
    changes = {"student.loss": "stand_ins:Bug", "search.trials": 12}
    text = bench.sweep(bench.config(budget={"failed_trials": 2}, **changes), code=4)
    failed = [r for r in bench.results() if r.state is TrialState.FAILED]
    figure(wanted=12, failed_before_the_stop=len(failed))
    assert 3 <= len(failed) <= 5  # two were under way when the third failed
    assert f"{len(failed)} x KeyError: 'a bug of the stand-in'" in text


def test_gpu_memory_runs_out(bench: Any, figure: Any) -> None:
    """80 rows a batch on a stand-in for a GPU that holds 64, a quarter of it for each trial."""
    cramped = {"name": "stand_ins:Cramped", "rows": 64}
    plan = grid("model", *({**cramped, "least": least} for least in (0.25, 0.5, 2.0)))
    changes = {**plan, "student.model": cramped, "resources": {"student": {"cpu": 1, "gpu": 0.25}}}
    text = bench.sweep(bench.config(**changes), "--gpus", "1")
    by_least = {r.params["model.least"]: r for r in bench.results()}
    small, middle, never = (by_least[least] for least in (0.25, 0.5, 2.0))
    pieces = {r.key: {entry["micro_batches"] for entry in r.history} for r in (small, middle)}
    assert (small.state, pieces[small.key]) == (TrialState.COMPLETE, {8.0})
    assert (middle.state, pieces[middle.key]) == (TrialState.COMPLETE, {4.0})
    assert never.state is TrialState.FAILED
    assert never.error.startswith("oom: OutOfMemoryError: CUDA out of memory")
    assert "trying again with 0.5 of a GPU" in text
    assert "trying again with 1 of a GPU" in text
    starts = Counter(event.key for event in bench.events(TrialStarted))
    assert [starts[r.key] for r in (small, middle, never)] == [1, 2, 3]
    assert bench.counts().open == 0
    figure(micro_batches=[8, 4], shares_tried=[0.25, 0.5, 1.0], failed_as_oom=1)


def test_the_memory_monitor_kills_a_trial(bench: Any, figure: Any) -> None:
    """Ray ends a process that pushes its node over a limit; the rest of the sweep goes on."""
    import ray._private.utils as memory

    total = memory.get_system_memory()
    used = memory.get_used_memory()
    room, hungry = 3 * 2**30, 5 * 2**30
    if used + hungry + 2**30 > total:
        pytest.skip("not enough free memory to fill some of it")
    plan = grid("loss", "kd", "stand_ins:Hungry", "mse_logits")
    text = bench.sweep(
        bench.config(**plan),
        RAY_memory_monitor_refresh_ms="100",
        RAY_memory_usage_threshold=f"{(used + room) / total:.4f}",
        FAULTS_HUNGRY_MB=str(hungry // 2**20),
    )
    by_loss = {r.params["loss"]: r for r in bench.results()}
    assert {name: r.state for name, r in by_loss.items()} == {
        "kd": TrialState.COMPLETE,
        "mse_logits": TrialState.COMPLETE,
        "stand_ins:Hungry": TrialState.FAILED,
    }, text
    victim = by_loss["stand_ins:Hungry"]
    assert "Ray's memory monitor killed the trial" in victim.error
    starts = Counter(event.key for event in bench.events(TrialStarted))
    figure(complete=2, failed=1, tries_of_the_hungry=starts[victim.key])
    assert sum(e.key == victim.key for e in bench.events(TrialReported)) == 0
