"""Progress as text: one labelled line per event, for logs and pipes."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.events import (
    Event,
    Notice,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.progress import Progress, TrialView

QUIET_S = 30.0


class Lines:
    """Turns events into lines.

    Starts and epochs are said only if nothing has been said for half a minute: a sweep of a
    thousand short trials fills one line each, and one long trial still shows that it lives.

    Args:
        progress: Updated with each event.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._last = clock()
        self._lag = ""

    def describe(self, event: Event, lag: str = "") -> list[str]:
        """Take the event into account and return the lines to print, usually one or none.

        Args:
            event: What happened.
            lag: The state of the way to MLflow; a trouble is said when it begins or ends.
        """
        trial = None
        if isinstance(event, TrialFinished):
            trial = self._progress.running.get((event.stage, event.key))
        self._progress.observe(event)
        lines = self._describe(event, trial)
        behind = lag if "behind" in lag else ""
        if bool(behind) != bool(self._lag):
            lines.append(f"[mlflow] {behind or 'delivering again'}")
            self._lag = behind
        if lines:
            self._last = self._clock()
        return lines

    def _describe(self, event: Event, trial: TrialView | None) -> list[str]:
        quiet = self._clock() - self._last >= QUIET_S
        match event:
            case SweepStarted():
                seconds = sum(event.estimates.values())
                about = f", about {duration(seconds)}" if seconds else ""
                return [f"[sweep {event.name}] started{about}"]
            case StageStarted():
                return [self._stage_started(event)]
            case TrialStarted():
                again = self._progress.running[event.stage, event.key].restarts
                text = f"{'started again' if again else 'started'} {event.name}"
                return [f"{self._label(event.stage)} {text}"] if again or quiet else []
            case TrialReported():
                return [self._epoch(event)] if quiet else []
            case TrialFinished():
                return [self._trial_finished(event, trial)] if event.state.is_result() else []
            case StageFinished():
                seconds = self._progress.stage_elapsed(event.stage)
                return [f"{self._label(event.stage)} done in {duration(seconds)}"]
            case SweepFinished():
                word = "interrupted" if event.state is TrialState.LOST else event.state.value
                time = duration(self._progress.elapsed())
                return [f"[sweep {self._progress.sweep}] {word} after {time}"]
            case Notice():
                return [f"[{event.level}] {event.text}"]
            case _:
                return []

    def _label(self, stage: Stage) -> str:
        view = self._progress.stages.get(stage)
        return f"[{stage.value} {view.done}/{view.total}]" if view else f"[{stage.value}]"

    def _stage_started(self, event: StageStarted) -> str:
        fresh = event.total - event.cached
        parts = [f"{event.cached} cached"] if event.cached else []
        parts.append(f"{fresh} to run" if fresh else "nothing to run")
        if fresh > 1:
            parts.append(f"{event.slots} at a time")
        seconds = self._progress.stage_eta(event.stage)
        if seconds:
            parts.append(f"about {duration(seconds)}")
        return f"{self._label(event.stage)} {', '.join(parts)}"

    def _epoch(self, event: TrialReported) -> str:
        trial = self._progress.running.get((event.stage, event.key))
        name = trial.name if trial else event.key[:12]
        of = f"/{trial.epochs}" if trial and trial.epochs else ""
        value = event.metrics.get(self._progress.objective)
        score = f": {self._progress.objective} {value:.3f}" if value is not None else ""
        return f"{self._label(event.stage)} epoch {event.epoch}{of} {name}{score}"

    def _trial_finished(self, event: TrialFinished, trial: TrialView | None) -> str:
        progress, view = self._progress, self._progress.stages.get(event.stage)
        name = trial.name if trial else event.key[:12]
        text = f"{self._label(event.stage)} {event.state.value} {name}"
        took = f" {duration(event.seconds)}" if event.seconds else ""
        if event.state is TrialState.FAILED:
            text += f"{took and ' after' + took}: {reason(event.error)}"
        else:
            text += self._score(event, trial) + took
        left = progress.stage_eta(event.stage) if view else None
        return f"{text}, ETA {duration(left)}" if left else text

    def _score(self, event: TrialFinished, trial: TrialView | None) -> str:
        name, view = self._progress.objective, self._progress.stages.get(event.stage)
        value = event.metrics.get(name, trial.value if trial else None)
        text = f": {name} {value:.3f}" if value is not None else ""
        best = view.best if view else None
        return f"{text} (best {best:.3f})" if best is not None else text


def duration(seconds: float) -> str:
    """Return a time as people say it: ``8.2 s``, ``43 s``, ``4 min``, ``2 h 05 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def reason(error: str | None) -> str:
    """Return the line of an error or traceback that says what happened."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    if not lines:
        return "unknown reason"
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= 160 else f"{line[:159]}…"
