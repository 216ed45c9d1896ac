"""What is known about the trials of a sweep: the frozen records that reports are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stage(StrEnum):
    """The stages of a sweep, in the order in which they run."""

    TEACHERS = "teachers"
    OUTPUTS = "outputs"
    STUDENTS = "students"
    CONFIRM = "confirm"


class TrialState(StrEnum):
    """What became of a trial.

    ``DUPLICATE`` was answered from an earlier trial with the same key; ``LOST`` was running when
    its driver died and has been enqueued again; both are bookkeeping, not results.
    """

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    DUPLICATE = "duplicate"
    LOST = "lost"

    def is_finished(self) -> bool:
        """Tell whether the trial will not change any more."""
        return self is not TrialState.RUNNING

    def is_result(self) -> bool:
        """Tell whether the trial is a distinct outcome of its sweep."""
        return self in {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED}


@dataclass(frozen=True)
class TrialRecord:
    """One trial of one stage.

    Attributes:
        stage: The stage it belongs to.
        key: Content key of what it makes: the identity of the trial.
        state: What became of it.
        role: Why it ran: ``search``, ``default``, ``screened``, ``warm``, ``grid``,
            ``control:plain``, ``control:best_teacher``, ``control:average``; in the confirm stage
            ``candidate`` or the control's role; in the teachers and outputs stages the teacher's
            name.
        params: Flat dotted names and the values chosen, e.g. ``loss`` and ``loss.temperature``.
        metrics: Names of DESIGN's MLflow schema; the epoch that was kept (best on dev).
        history: The reports of each epoch, in order.
        group: In the confirm stage, the key of the configuration without its seed.
        seed: The seed it ran with.
        error: For ``FAILED``: the reason and the traceback.
        seconds: Wall time of the trial.
        spec: The full description the trial was run from.
    """

    stage: Stage
    key: str
    state: TrialState
    role: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: tuple[Mapping[str, float], ...] = ()
    group: str = ""
    seed: int = 0
    error: str | None = None
    seconds: float = 0.0
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepRecord:
    """Everything a report needs to know about one sweep; lives without Ray and MLflow.

    Attributes:
        name: The config's ``name``.
        config: The validated config as plain data.
        trials: All trials of all stages, oldest first.
        data: Facts about the data: ``classes`` (names in id order), ``rows`` per split,
            ``digest``, ``majority`` (dev share of the biggest class), ``tfidf`` (metrics of the
            TF-IDF floor on dev, and on test once confirm has run).
        objective: The metric that ranks trials and its direction, ``("val_f1_macro", "max")``.
    """

    name: str
    config: Mapping[str, Any]
    trials: tuple[TrialRecord, ...]
    data: Mapping[str, Any]
    objective: tuple[str, str] = ("val_f1_macro", "max")

    def of(self, stage: Stage) -> list[TrialRecord]:
        """Return the trials of one stage."""
        return [trial for trial in self.trials if trial.stage is stage]
