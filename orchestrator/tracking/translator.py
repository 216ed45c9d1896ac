"""From events to updates of runs.

What must exist once (a metric at a step, the number of attempts) is decided here from the events
alone, never from what a server answers: so every replay decides the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.records import TrialState
from orchestrator.tracking.events import (
    ArtifactLogged,
    Described,
    Event,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.outbox import Entry
from orchestrator.tracking.runs import (
    MAX_KEY,
    MAX_TAG,
    SWEEP_STAGE,
    Point,
    RunKey,
    RunUpdate,
    flatten,
)

PER_EPOCH = frozenset(
    {
        "train_loss",
        "val_loss",
        "val_accuracy",
        "val_f1_macro",
        "val_f1_micro",
        "val_f1_weighted",
        "epoch_seconds",
        "train_seconds",
        "samples_per_second",
    }
)

DESCRIPTION = "mlflow.note.content"  # the tag that the UI shows as the run's description

_STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.LOST: "KILLED",
}


@dataclass
class _Trial:
    """What the events so far have put into a trial's run."""

    starts: int = 0
    epochs: set[int] = field(default_factory=set)
    once: frozenset[str] = frozenset()


class Translator:
    """Turns the events of an outbox, from its first line on, into updates of runs."""

    def __init__(self) -> None:
        self.sweep = ""
        self._sessions: dict[str, int] = {}
        self._trials: dict[RunKey, _Trial] = {}

    def translate(self, entry: Entry) -> RunUpdate | None:
        """Return what the event changes, or None if MLflow need not know about it."""
        event = entry.event
        if isinstance(event, SweepStarted):
            self.sweep = event.name
            self._sessions[event.name] = self._sessions.get(event.name, 0) + 1
        if not self.sweep:
            return None
        update = self._update(event)
        if update is not None:
            update.entries = (entry,)
        return update

    def _update(self, event: Event) -> RunUpdate | None:
        match event:
            case SweepStarted():
                return self._sweep_started(event)
            case SweepFinished():
                return self._sweep_finished(event)
            case TrialStarted():
                return self._trial_started(event)
            case TrialReported():
                return self._trial_reported(event)
            case TrialFinished():
                return self._trial_finished(event)
            case ArtifactLogged():
                return RunUpdate(self._parent(), artifacts=(event,))
            case Described():
                return RunUpdate(self._parent(), tags={DESCRIPTION: event.text[:MAX_TAG]})
            case _:
                return None

    def _parent(self) -> RunKey:
        return RunKey(self.sweep, SWEEP_STAGE, self.sweep)

    def _sweep_started(self, event: SweepStarted) -> RunUpdate:
        run = self._parent()
        return RunUpdate(
            run,
            name=event.name,
            start_ms=event.time_ms,
            params=flatten(event.params),
            tags=self._tags(run, event.tags, self._sessions[event.name], TrialState.RUNNING),
            status="RUNNING",
            data=event.data,
            ends_orphans=True,
        )

    def _sweep_finished(self, event: SweepFinished) -> RunUpdate:
        # The same sweep may finish many times; its sessions are the steps of its metrics.
        step = self._sessions[self.sweep] - 1
        return RunUpdate(
            self._parent(),
            tags={"state": event.state.value},
            metrics=_points(event.metrics, event.time_ms, step),
            status=_STATUS.get(event.state, "FINISHED"),
            end_ms=event.time_ms,
            ends_orphans=True,
        )

    def _trial_started(self, event: TrialStarted) -> RunUpdate:
        run = RunKey(self.sweep, event.stage.value, event.key)
        trial = self._trials.setdefault(run, _Trial())
        trial.starts += 1
        tags = self._tags(run, event.tags, trial.starts, TrialState.RUNNING)
        if trial.starts > 1:
            tags["error"] = ""
        return RunUpdate(
            run,
            name=event.name,
            start_ms=event.time_ms,
            params=flatten(event.params),
            tags=tags,
            status="RUNNING",
        )

    def _trial_reported(self, event: TrialReported) -> RunUpdate | None:
        run = RunKey(self.sweep, event.stage.value, event.key)
        trial = self._trials.setdefault(run, _Trial())
        # An epoch trained twice, because its worker died before the checkpoint was safe, or told
        # again, because its driver died, is reported twice; the first report stands, so that each
        # (metric, step) exists once. A set, because one told again may fill a gap before others.
        if event.epoch in trial.epochs:
            return None
        trial.epochs.add(event.epoch)
        return RunUpdate(run, metrics=_points(event.metrics, event.time_ms, event.epoch))

    def _trial_finished(self, event: TrialFinished) -> RunUpdate | None:
        if event.state not in _STATUS:
            return None
        run = RunKey(self.sweep, event.stage.value, event.key)
        trial = self._trials.setdefault(run, _Trial())
        metrics = {
            f"kept_{name}" if name in PER_EPOCH else name: value
            for name, value in event.metrics.items()
        }
        fresh = {name: value for name, value in metrics.items() if name not in trial.once}
        trial.once |= fresh.keys()
        tags = {"state": event.state.value}
        if event.error:
            tags["error"] = event.error[:MAX_TAG]
        return RunUpdate(
            run,
            tags=tags,
            metrics=_points(fresh, event.time_ms, 0),
            status=_STATUS[event.state],
            end_ms=event.time_ms,
        )

    def _tags(
        self, run: RunKey, given: Mapping[str, str], attempt: int, state: TrialState
    ) -> dict[str, str]:
        tags = {name[:MAX_KEY]: str(value)[:MAX_TAG] for name, value in given.items()}
        tags |= {
            "sweep": run.sweep,
            "stage": run.stage,
            "trial_key": run.key,
            "attempt": str(attempt),
            "state": state.value,
            "mlflow.source.name": f"orchestrator sweep {run.sweep}",
            "mlflow.source.type": "JOB",
        }
        if "git_sha" in given:
            tags["mlflow.source.git.commit"] = str(given["git_sha"])
        return tags


def _points(metrics: Mapping[str, float], time_ms: int, step: int) -> list[Point]:
    return [Point(name[:MAX_KEY], float(value), time_ms, step) for name, value in metrics.items()]
