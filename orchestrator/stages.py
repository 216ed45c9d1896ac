"""One stage at work: the place where a trial's outcome becomes a state.

A ``StageRun`` proposes trials to Tune, hears their reports and writes what became of them into the
ledger; the same facts go out as events. It neither trains nor tracks anything itself.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.ledger import Outcome, Proposal, StageLedger
from orchestrator.outage import LedgerAway
from orchestrator.records import Stage, TrialState
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import Notice, TrialFinished, TrialReported, TrialStarted
from search_spaces.space import Space
from trainables.store import Store

Namer = Callable[[Proposal], str]


@dataclass(frozen=True)
class Search:
    """What to draw further trials from once the listed ones are done.

    Attributes:
        space: Where to draw.
        describe: Turns a point into a trial.
        target: Distinct results wanted, controls not counted.
    """

    space: Space
    describe: Callable[[Mapping[str, Any]], Proposal]
    target: int


@dataclass(frozen=True)
class Budget:
    """How many failures a stage may have.

    Attributes:
        limit: A number of trials, or a share of them if it is a float; None for any.
    """

    limit: int | float | None = None

    def exceeded(self, failed: int, results: int) -> bool:
        """Tell whether too many of ``results`` have failed."""
        if self.limit is None or not failed:
            return False
        if isinstance(self.limit, int):
            return failed > self.limit
        # A share of very few trials says nothing yet.
        return results >= 5 and failed > self.limit * results


@dataclass
class _Live:
    proposal: Proposal
    started: float = field(default_factory=time.monotonic)
    history: list[dict[str, float]] = field(default_factory=list)
    summary: dict[str, float] = field(default_factory=dict)
    waiting: bool = False


class StageRun:
    """Drives one stage; implements ``orchestrator.tuning.Driver``.

    Args:
        stage: Which stage.
        ledger: Where outcomes are written.
        store: Answers trials whose artifact exists already.
        bus: Hears the events.
        planned: Trials to run, in this order; those already done are left out.
        objective: The metric that must be finite, or None.
        name: Names a trial for people.
        tags: Further tags of every trial.
        search: Where further trials come from, or None.
        budget: Stops the stage when too many trials fail.

    Attributes:
        gpu: Share of a GPU each trial holds, once that is known.
    """

    def __init__(
        self,
        stage: Stage,
        ledger: StageLedger,
        store: Store,
        bus: EventBus,
        planned: Sequence[Proposal],
        *,
        name: Namer,
        objective: str | None = None,
        tags: Mapping[str, str] | None = None,
        search: Search | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.stage = stage
        self.gpu = 0.0
        self.failures: Counter[str] = Counter()
        self.fatal: str | None = None
        self.over_budget = False
        self._ledger = ledger
        self._store = store
        self._bus = bus
        self._name = name
        self._objective = objective
        self._tags = dict(tags or {})
        self._search = search
        self._may_prune = search is not None
        self._budget = budget or Budget()
        self._live: dict[int, _Live] = {}
        self._attempts: Counter[int] = Counter()
        self._cramped: list[Proposal] = []
        orphans = ledger.reconcile()
        again = {proposal.key for proposal in orphans}
        self._queue = deque(orphans)
        self._queue.extend(p for p in planned if p.key not in again and not self._is_done(p))
        # Failures that will not be tried again count against the budget of this start, too.
        self.failures.update(
            _reason(record.error)
            for record in ledger.records()
            if record.state is ledger.state_of(record.key) is TrialState.FAILED
        )
        self._check_budget()
        self._prefetched: Proposal | None = None
        self._waiting = False

    def results(self) -> int:
        """Count the trials that are done, controls included."""
        return self._ledger.results()

    def has_work(self) -> bool:
        """Tell whether a trial must be run, answering from the store what it can answer."""
        while self._prefetched is None:
            self._prefetched = self._next()
            if self._prefetched is None and not self._waiting:
                return False
            if self._waiting:
                self._ledger.rest()
        return True

    def grow(self) -> bool:
        """Queue again what its share of a GPU could not hold; False if there is no such trial.

        Call it between two sessions, with a larger ``gpu`` for the next.
        """
        cramped, self._cramped = self._cramped, []
        self._queue.extend(cramped)
        return bool(cramped)

    def propose(self) -> Proposal | None:
        """Return the next trial to run, entered into the ledger."""
        proposal, self._prefetched = self._prefetched, None
        return proposal or self._next()

    def waiting(self) -> bool:
        """Tell whether there may be more to propose later: the ledger cannot be reached now."""
        return self._waiting

    def started(self, number: int) -> None:
        """Announce a trial; Tune calls this again when it retries one."""
        live = self._live[number]
        self._attempts[number] += 1
        if self._attempts[number] == 1:
            live.started = time.monotonic()
        self._announce(live.proposal)

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """Take an epoch into the ledger and out as an event."""
        live = self._live.get(number)
        if live is None or report.get("status") == "failed":
            return
        if report.get("status") == "waiting":
            self._say_waiting(live, str(report["holder"]))
            return
        for earlier in report.get("history", ()):
            self._take_epoch(number, live, earlier, again=True)
        self._take_epoch(number, live, report, again=bool(report.get("cached")))

    def _take_epoch(
        self, number: int, live: _Live, report: Mapping[str, Any], *, again: bool
    ) -> None:
        metrics = _numbers(report)
        epoch = int(report["epoch"])
        # A trial that continues after its process died repeats no epoch, but may report its
        # last one twice when the report was lost on the way.
        if not metrics or (live.history and live.history[-1]["epoch"] >= epoch):
            return
        live.history.append({"epoch": epoch, **metrics})
        self._ledger.report(number, epoch, metrics)
        self._bus.emit(TrialReported(self.stage, live.proposal.key, epoch, metrics, again))

    def _say_waiting(self, live: _Live, holder: str) -> None:
        if not live.waiting:
            live.waiting = True
            text = (
                f"{self._name(live.proposal)} is being made by {holder}, of another sweep; "
                "waiting for it"
            )
            self._bus.emit(Notice("info", text))

    def ended(self, number: int, report: Mapping[str, Any] | None, error: str | None) -> None:
        """Decide what became of a trial and write it down; its last report is an epoch, too."""
        if report is not None:
            self.reported(number, report)
        live = self._live.pop(number, None)
        if live is None:
            return
        outcome = self._judge(live, report or {}, error)
        if outcome.state is TrialState.FAILED:
            self.failures[_reason(outcome.error)] += 1
        elif outcome.state is TrialState.LOST and self.fatal is None:
            self._cramped.append(replace(live.proposal, retry_of=number))
        self._settle(live.proposal, outcome)

    def _judge(self, live: _Live, report: Mapping[str, Any], error: str | None) -> Outcome:
        seconds = time.monotonic() - live.started
        if report.get("status") == "failed":
            error = f"{report['error']}\n\n{report['traceback']}"
            if report["reason"] == "store":
                self.fatal = str(report["error"])
                return Outcome(TrialState.LOST, seconds=seconds, error=error)
            if report["reason"] == "oom":
                # One row at a time did not fit; with fewer neighbours on its GPU it may.
                if 0 < self.gpu < 1:
                    return Outcome(TrialState.LOST, seconds=seconds, error=error)
                error = f"oom: {error}"
            return Outcome(TrialState.FAILED, {}, live.history, error, seconds)
        if error is not None:
            return Outcome(TrialState.FAILED, {}, live.history, error, seconds)
        if not report.get("finished"):
            last = {k: v for k, v in (live.history or [{}])[-1].items() if k != "epoch"}
            return Outcome(TrialState.PRUNED, last, live.history, None, seconds)
        metrics = _summary(report)
        if self._objective is not None and not math.isfinite(
            metrics.get(self._objective, math.nan)
        ):
            error = f"the trial finished without a finite {self._objective}"
            return Outcome(TrialState.FAILED, metrics, live.history, error, seconds)
        history = self._whole_history(live)
        cached = bool(report.get("cached"))
        return Outcome(TrialState.COMPLETE, metrics, history, None, seconds, cached=cached)

    def _whole_history(self, live: _Live) -> list[dict[str, float]]:
        """Return all epochs, also those trained by another trial: the artifact knows them."""
        if live.history and live.history[0]["epoch"] == 1:
            return live.history
        meta = self._store.meta(live.proposal.task, live.proposal.key) or {}
        return list(meta.get("history") or live.history)

    def _settle(self, proposal: Proposal, outcome: Outcome) -> None:
        held = 0.0 if outcome.cached else self.gpu * outcome.seconds
        facts = {**proposal.facts, "gpu_seconds": held}
        outcome = replace(outcome, metrics={**outcome.metrics, **facts})
        self._ledger.finish(proposal, outcome)
        self._check_budget()
        self._bus.emit(
            TrialFinished(
                self.stage,
                proposal.key,
                outcome.state,
                outcome.metrics,
                outcome.error,
                outcome.seconds,
            )
        )

    def _check_budget(self) -> None:
        failed = sum(self.failures.values())
        self.over_budget = self._budget.exceeded(failed, self._ledger.results())

    def _next(self) -> Proposal | None:
        self._waiting = False
        while not self.over_budget and self.fatal is None:
            try:
                proposal = self._draw()
            except LedgerAway:
                # Trials that run go on meanwhile; what they report is written down later.
                self.fatal = self._ledger.lost
                self._waiting = self.fatal is None
                return None
            if proposal is None:
                return None
            meta = self._store.meta(proposal.task, proposal.key)
            if meta is None:
                self._live[proposal.number] = _Live(proposal)
                return proposal
            self._answer(proposal, meta)
        return None

    def _draw(self) -> Proposal | None:
        space = None if self._search is None else self._search.space
        if self._queue:
            entered = self._ledger.enter(self._queue[0], space)
            self._queue.popleft()
            return entered
        if self._search is None:
            return None
        unfinished = [*(live.proposal for live in self._live.values()), *self._cramped]
        waiting = sum(not proposal.role.startswith("control") for proposal in unfinished)
        if self._ledger.results(controls=False) + waiting >= self._search.target:
            return None
        return self._ledger.suggest(self._search.space, self._search.describe)

    def _answer(self, proposal: Proposal, meta: Mapping[str, Any]) -> None:
        """Settle a trial whose artifact another sweep, or a dead driver's trial, has made."""
        history = list(meta.get("history") or [])
        self._announce(proposal, cached=True)
        for entry in history:
            metrics = {name: value for name, value in entry.items() if name != "epoch"}
            self._ledger.report(proposal.number, int(entry["epoch"]), metrics)
            self._bus.emit(
                TrialReported(self.stage, proposal.key, int(entry["epoch"]), metrics, again=True)
            )
        metrics = dict(meta["metrics"])
        seconds = float(metrics.get("wall_seconds", meta.get("seconds", 0.0)))
        self._settle(
            proposal,
            Outcome(TrialState.COMPLETE, metrics, history, None, seconds, cached=True),
        )

    def _announce(self, proposal: Proposal, *, cached: bool = False) -> None:
        epochs = proposal.spec.get("epochs") or proposal.spec.get("student", {}).get("epochs", 1)
        self._bus.emit(
            TrialStarted(
                self.stage,
                proposal.key,
                self._name(proposal),
                {**proposal.params, "role": proposal.role},
                {
                    **self._tags,
                    "role": proposal.role,
                    "cached": str(cached).lower(),
                    "teacher_keys": " ".join(_teacher_keys(proposal.spec)),
                },
                epochs=int(epochs),
            )
        )

    def _is_done(self, proposal: Proposal) -> bool:
        """Tell whether a listed trial needs nothing more; the store knows about artifacts."""
        state = self._ledger.state_of(proposal.key)
        if state is TrialState.COMPLETE:
            return self._store.exists(proposal.task, proposal.key)
        return state is TrialState.FAILED or (state is TrialState.PRUNED and self._may_prune)


def _teacher_keys(spec: Mapping[str, Any]) -> list[str]:
    """Return the keys of the teachers a trial depends on, shortened as in the UI."""
    teachers = spec.get("student", spec).get("teachers") or spec.get("teacher", ())
    keys = [teachers] if isinstance(teachers, str) else [teacher["key"] for teacher in teachers]
    return [key[:16] for key in keys]


def _reason(error: str | None) -> str:
    """Return the line of an error that says what happened; of a traceback, that is the last."""
    lines = (error or "unknown reason").strip().splitlines()
    return lines[-1] if lines[0].startswith(("Traceback", "Failure")) else lines[0]


_META = {"epoch", "finished", "done", "cached", "status", "summary", "worker", "config"}
# What Tune adds to each report; none of it is ours to record.
_TUNE = {
    "training_iteration",
    "time_this_iter_s",
    "time_total_s",
    "time_since_restore",
    "iterations_since_restore",
    "timestamp",
    "pid",
    "trial_id",
    "date",
    "hostname",
    "node_ip",
    "experiment_tag",
    "timesteps_total",
    "episodes_total",
    "timesteps_since_restore",
    "checkpoint_dir_name",
}


def _numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a report: its numbers, without what Tune and the adapter add."""
    return {
        name: float(value)
        for name, value in report.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in _META | _TUNE
        and "/" not in name
    }


def _summary(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the once-per-run metrics of a last report, which Tune may have flattened."""
    nested = report.get("summary")
    if isinstance(nested, Mapping):
        return {name: float(value) for name, value in nested.items()}
    prefix = "summary/"
    return {
        name.removeprefix(prefix): float(value)
        for name, value in report.items()
        if name.startswith(prefix)
    }
