"""Several drivers at once: on one sweep, and on one teacher."""

import json
import signal
from collections import Counter
from typing import Any

import pytest

from orchestrator.records import Stage
from orchestrator.tracking.events import TrialReported

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(900)]
SLOW = {"name": "stand_ins:Slow", "seconds": 0.15}
# 320 rows in batches of 16: five seconds an epoch.
SLOW_TEACHER = {"teachers.0.model": {"name": "stand_ins:SlowLinear", "embedding_dim": 16}}


def test_two_drivers_on_one_sweep(bench: Any, figure: Any) -> None:
    config = bench.config(**{"student.loss": {**SLOW, "seconds": 0.6}})
    first = bench.start(config)
    # All of its training is still before it, so that the second comes while it is at work.
    first.wait_until(lambda: "starting Ray" in first.text())
    second = bench.start(config)
    assert second.wait() == 3, second.text()
    assert "another driver is running sweep 'fault'" in second.text()
    assert "Traceback" not in second.text()
    assert first.wait() == 0, first.text()
    counts = bench.expect_whole(4)
    figure(refused=1, exit_code=3, trials=counts.trials, twice=counts.twice)
    assert counts.twice == 0


def teacher_epochs(bench: Any, name: str) -> Counter[int]:
    """Count the epochs of the teacher that a sweep has trained itself."""
    return Counter(
        event.epoch
        for event in bench.events(TrialReported, name)
        if event.stage is Stage.TEACHERS and not event.again
    )


def test_two_sweeps_want_the_same_teacher(fresh: Any, figure: Any) -> None:
    """Both start in an empty home at once; and the one that trains it is killed midway."""
    names = ("one", "two")
    changes = {**SLOW_TEACHER, "search.trials": 1}
    runs = {name: fresh.start(fresh.config(name, **changes), "--cpus", "1") for name in names}

    def waits(name: str) -> bool:
        return "of another sweep; waiting for it" in runs[name].text()

    runs["one"].wait_until(lambda: any(waits(name) for name in names))
    waiting = next(name for name in names if waits(name))
    training = next(name for name in names if name != waiting)
    runs[training].wait_until(lambda: len(teacher_epochs(fresh, training)) >= 1)
    runs[training].kill(signal.SIGKILL)
    assert runs[waiting].wait() == 0, runs[waiting].text()
    fresh.sweep(fresh.config(training, **changes), "--cpus", "1")
    both = teacher_epochs(fresh, "one") + teacher_epochs(fresh, "two")
    teachers = len(list((fresh.home / "store" / "teacher").rglob("manifest.json")))
    figure(sweeps=2, waited=1, teachers=teachers, epochs_trained=dict(sorted(both.items())))
    assert both == {1: 1, 2: 1, 3: 1, 4: 1}
    assert teachers == 1
    assert not list((fresh.home / "store" / "leases").iterdir())
    for name in names:
        (result,) = fresh.results(Stage.TEACHERS, name)
        assert [entry["epoch"] for entry in result.history] == [1, 2, 3, 4]


def test_a_changed_config_keeps_what_is_still_valid(bench: Any, figure: Any) -> None:
    """The first teacher stays, a second is new; the plan says so before, and is right."""
    bench.sweep(bench.config(**{"search.trials": 2}))
    before = bench.trained()
    second = {
        "name": "second",
        "model": {"name": "linear", "embedding_dim": 8},
        "tokenizer": {"kind": "word"},
        "epochs": 4,
        "lr": 0.05,
        "batch_size": 16,
    }
    config = bench.config(**{"search.trials": 2, "teachers": [*bench.teachers(), second]})
    plan = json.loads(bench.call("plan", config, "--no-estimate", "--json").stdout)
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert (stages["teachers"]["reused"], stages["teachers"]["new"]) == (["tiny"], ["second"])
    assert "teachers.1.name" in plan["changed"]
    shown = bench.call("plan", config, "--no-estimate").stdout
    assert "teachers: reused tiny; new second" in shown
    bench.sweep(config)
    after = bench.trained() - before
    trained = {key for stage, key, _ in after if stage is Stage.TEACHERS}
    figure(reused=stages["teachers"]["reused"], new=stages["teachers"]["new"], trained=len(trained))
    assert len(trained) == 1
    # Nothing changed: the plan says that nothing is left.
    plan = json.loads(bench.call("plan", config, "--no-estimate", "--json").stdout)
    students = next(stage for stage in plan["stages"] if stage["stage"] == "students")
    assert plan["changed"] == {}
    assert (students["cached"], students["trials"], students["new"]) == (2, 2, [])
