import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.events import (
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.progress import Progress, eta

S = Stage.STUDENTS


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("left", "running", "finished", "slots", "estimate", "expected"),
    [
        (0, [], [], 2, None, 0.0),
        (10, [], [], 2, None, None),  # nothing known
        (10, [], [], 2, 4.0, 20.0),  # the estimate, two lanes
        (10, [], [8.0, 12.0], 2, 4.0, 50.0),  # measured wins over the estimate
        (9, [5.0], [10.0], 1, None, 95.0),  # a running trial needs its rest only
        (0, [2.0, 9.0], [10.0], 2, None, 8.0),  # never faster than the last one
        (0, [30.0], [10.0], 2, None, 0.0),  # overdue: any moment
        (1, [], [10.0], 8, None, 10.0),  # more slots than trials do not help
        (3, [1.0, 1.0], [10.0], 2, None, 24.0),
    ],
)
def test_eta(
    left: int,
    running: list[float],
    finished: list[float],
    slots: int,
    estimate: float | None,
    expected: float | None,
) -> None:
    assert eta(left, running, finished, slots, estimate) == expected


def test_a_sweep_from_estimates_to_measurements() -> None:
    clock = Clock()
    progress = Progress(clock)
    progress.observe(SweepStarted("news", estimates={"students": 60.0, "confirm": 30.0}))
    assert progress.eta() == 90.0
    progress.observe(StageStarted(S, total=12, cached=2, slots=2))
    assert progress.eta() == 90.0, "the estimate is wall time of what is to run"
    for key in "ab":
        progress.observe(TrialStarted(S, key, key))
    clock.now += 4
    assert progress.stage_eta(S) == pytest.approx(56.0)
    for key in "ab":
        progress.observe(TrialFinished(S, key, TrialState.COMPLETE, seconds=4.0))
    assert progress.stages[S].done == 4
    assert progress.stage_eta(S) == pytest.approx(16.0)
    assert progress.eta() == pytest.approx(46.0)
    assert progress.elapsed() == 4.0
    progress.observe(StageFinished(S))
    clock.now += 5
    assert progress.stage_elapsed(S) == 4.0
    progress.observe(SweepFinished(TrialState.COMPLETE))
    clock.now += 5
    assert progress.elapsed() == 9.0


def test_only_results_count_as_done_and_as_durations() -> None:
    progress = Progress(Clock())
    progress.observe(StageStarted(S, total=5))
    for state in TrialState:
        progress.observe(TrialStarted(S, state.value, "x"))
        if state is not TrialState.RUNNING:
            progress.observe(TrialFinished(S, state.value, state, seconds=2.0))
    view = progress.stages[S]
    assert view.done == 3
    assert len(view.durations) == 3
    assert progress.failure is not None


@pytest.mark.parametrize(("direction", "best"), [("max", "b"), ("min", "a")])
def test_best_follows_the_direction_and_completed_trials(direction: str, best: str) -> None:
    progress = Progress(Clock())
    progress.observe(SweepStarted("news", objective="f1", direction=direction))  # type: ignore[arg-type]
    progress.observe(StageStarted(S, total=3))
    values = {"a": 0.5, "b": 0.7, "pruned": 0.9 if direction == "max" else 0.1}
    for key, value in values.items():
        progress.observe(TrialStarted(S, key, key))
        progress.observe(TrialReported(S, key, 1, {"f1": value}))
        state = TrialState.PRUNED if key == "pruned" else TrialState.COMPLETE
        progress.observe(TrialFinished(S, key, state))
    assert (progress.stages[S].best_name, progress.stages[S].best) == (best, values[best])


def test_a_trial_started_again_is_one_trial_with_a_mark() -> None:
    progress = Progress(Clock())
    progress.observe(StageStarted(S, total=1))
    progress.observe(TrialStarted(S, "a", "a", epochs=5))
    progress.observe(TrialStarted(S, "a", "a", epochs=5))
    assert [trial.restarts for trial in progress.running.values()] == [1]


def test_events_out_of_place_do_no_harm() -> None:
    progress = Progress(Clock())
    progress.observe(TrialReported(S, "ghost", 1, {}))
    progress.observe(TrialFinished(S, "ghost", TrialState.COMPLETE))
    progress.observe(StageFinished(S))
    assert progress.stages == {}
    assert progress.eta() is None
