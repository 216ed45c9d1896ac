"""How far a sweep is: counts, running trials, best so far, time left. Pure; time comes in."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.events import (
    Event,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)

RECENT = 50


def eta(
    left: int,
    running: Sequence[float],
    finished: Sequence[float],
    slots: int,
    estimate: float | None = None,
) -> float | None:
    """Return the seconds until a stage is done, or None if nothing is known.

    The work left is what the waiting trials need plus what the running ones still need; it is
    done by the slots side by side, but never faster than the running trial with most to go.

    Args:
        left: Trials not started yet.
        running: Seconds each running trial has run.
        finished: Durations in seconds of finished trials, pruned ones included.
        slots: Trials that run side by side.
        estimate: Seconds per trial, used until one has finished.
    """
    if left + len(running) == 0:
        return 0.0
    each = sum(finished) / len(finished) if finished else estimate
    if each is None:
        return None
    rest = [max(each - seconds, 0.0) for seconds in running]
    lanes = max(1, min(slots, left + len(running)))
    longest = max([*rest, each if left else 0.0])
    return max((left * each + sum(rest)) / lanes, longest)


@dataclass
class TrialView:
    """A running trial."""

    stage: Stage
    name: str
    started: float
    epochs: int = 0
    epoch: int | None = None
    value: float | None = None
    restarts: int = 0


@dataclass
class StageView:
    """A stage that has begun."""

    total: int
    cached: int
    slots: int
    started: float
    estimate: float | None = None
    states: Counter[TrialState] = field(default_factory=Counter)
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    ended: float | None = None
    best: float | None = None
    best_name: str = ""

    @property
    def done(self) -> int:
        """Trials that have a result, the cached ones included."""
        return self.cached + sum(n for state, n in self.states.items() if state.is_result())


class Progress:
    """Follows the events of a sweep.

    Args:
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.sweep = ""
        self.objective = "val_f1_macro"
        self.direction: Literal["max", "min"] = "max"
        self.estimates: dict[str, float] = {}
        self.stages: dict[Stage, StageView] = {}
        self.running: dict[tuple[Stage, str], TrialView] = {}
        self.current: Stage | None = None
        self.state: TrialState | None = None
        self.failure: TrialFinished | None = None
        self.started = clock()
        self.ended: float | None = None

    def observe(self, event: Event) -> None:
        """Take the event into account."""
        match event:
            case SweepStarted():
                self.sweep, self.objective = event.name, event.objective
                self.direction, self.estimates = event.direction, dict(event.estimates)
                self.started, self.ended = self._clock(), None
            case StageStarted():
                self._stage_started(event)
            case TrialStarted():
                self._trial_started(event)
            case TrialReported():
                self._trial_reported(event)
            case TrialFinished():
                self._trial_finished(event)
            case StageFinished():
                if event.stage in self.stages:
                    self.stages[event.stage].ended = self._clock()
            case SweepFinished():
                self.state, self.ended = event.state, self._clock()
                self.running.clear()
            case _:
                pass

    def stage_eta(self, stage: Stage) -> float | None:
        """Return the seconds a stage that has begun still needs."""
        view = self.stages[stage]
        if view.ended is not None:
            return 0.0
        now = self._clock()
        running = [now - trial.started for trial in self.running.values() if trial.stage is stage]
        left = max(0, view.total - view.done - len(running))
        return eta(left, running, list(view.durations), view.slots, view.estimate)

    def eta(self) -> float | None:
        """Return the seconds until the sweep is done, as far as they can be known."""
        times = [self.stage_eta(stage) for stage in self.stages]
        times += [seconds for _, seconds in self.waiting()]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if len(known) == len(times) and known else None

    def waiting(self) -> Iterator[tuple[str, float]]:
        """Yield the stages that have not begun and their expected seconds."""
        begun = {stage.value for stage in self.stages}
        return ((name, sec) for name, sec in self.estimates.items() if name not in begun)

    def elapsed(self) -> float:
        """Return the seconds since the sweep was taken up."""
        return (self._clock() if self.ended is None else self.ended) - self.started

    def stage_elapsed(self, stage: Stage) -> float:
        """Return the seconds since the stage began, or that it took."""
        view = self.stages[stage]
        return (self._clock() if view.ended is None else view.ended) - view.started

    def better(self, value: float, than: float | None) -> bool:
        """Tell whether ``value`` beats ``than`` in the direction of the objective."""
        if than is None:
            return True
        return value > than if self.direction == "max" else value < than

    def _stage_started(self, event: StageStarted) -> None:
        seconds = self.estimates.get(event.stage.value)
        fresh = event.total - event.cached
        slots = max(1, event.slots)
        # The estimate is wall time of the stage; spread it over its trials and slots.
        each = seconds * min(slots, fresh) / fresh if seconds and fresh > 0 else None
        self.stages[event.stage] = StageView(
            event.total, event.cached, slots, self._clock(), estimate=each
        )
        self.current = event.stage

    def _trial_started(self, event: TrialStarted) -> None:
        before = self.running.get((event.stage, event.key))
        self.running[event.stage, event.key] = TrialView(
            event.stage,
            event.name,
            self._clock(),
            event.epochs,
            restarts=before.restarts + 1 if before else 0,
        )

    def _trial_reported(self, event: TrialReported) -> None:
        trial = self.running.get((event.stage, event.key))
        if trial is None:
            return
        trial.epoch = event.epoch
        value = event.metrics.get(self.objective)
        if value is not None and self.better(value, trial.value):
            trial.value = value

    def _trial_finished(self, event: TrialFinished) -> None:
        trial = self.running.pop((event.stage, event.key), None)
        view = self.stages.get(event.stage)
        if view is None:
            return
        view.states[event.state] += 1
        if event.state is TrialState.FAILED:
            self.failure = event
        if trial is not None and event.state.is_result():
            view.durations.append(event.seconds or self._clock() - trial.started)
        value = event.metrics.get(self.objective, trial.value if trial else None)
        if event.state is not TrialState.COMPLETE or value is None:
            return
        if self.better(value, view.best):
            view.best, view.best_name = value, trial.name if trial else event.key[:12]
