"""The ledger: the Optuna studies that are the truth about a search.

Only the driver writes it. Each stage of a sweep is one study; each trial is one Optuna trial whose
user attribute ``trial`` says what was run and whose attribute ``outcome`` says what became of it.
Ray holds nothing that is not here or in the content store, so a driver may die at any moment: the
next one reads the ledger, settles what was running and goes on.

The database is read when a stage starts and never for a suggestion: the sampler works on a copy of
the best and the latest trials in memory, and a trial is entered in one transaction.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from orchestrator import rows
from orchestrator.database import FAILURES, Storage, open_storage
from orchestrator.outage import Gateway, probe
from orchestrator.proposals import Objectives, Outcome, Proposal
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.sampling import Model
from search_spaces.space import Space
from trainables.seeding import derive_seed

__all__ = [
    "Objectives",
    "Outcome",
    "Proposal",
    "StageLedger",
    "Storage",
    "open_storage",
    "read_study",
]

optuna.logging.set_verbosity(optuna.logging.WARNING)

MAX_DUPLICATES = 50
# A model of a small space proposes its favourite again and again; after that many, chance decides.
_MODEL_DRAWS = 10
_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
    # Not given to the sampler: it has seen this point already, or will see it again.
    TrialState.DUPLICATE: OptunaState.FAIL,
    TrialState.LOST: OptunaState.FAIL,
}


@dataclass(frozen=True)
class _Known:
    """The newest trial with a key that is a result or is running."""

    number: int
    state: TrialState
    role: str


@dataclass
class _Live:
    """A trial that this driver runs: its identifier in the database and its last value."""

    identifier: int
    value: float | None = None


@dataclass(frozen=True)
class _Drawn:
    """A trial that the database has not got yet."""

    proposal: Proposal
    trial: optuna.trial.Trial
    started: float


class StageLedger:
    """One stage of a sweep: a study, and which of its keys are known.

    Args:
        storage: Optuna's storage, shared by the stages of a driver.
        study_name: Unique name of the study.
        stage: Which stage this is.
        objectives: What trials are told as their values.
        seed: Seeds the sampler together with the number of trials already there: a driver
            started again must not draw the same points again.
        sampler: ``tpe`` or ``random``.
        startup: Random points before TPE begins to model.
        notify: Told when the database cannot be reached, and when it can be again.
        keep: Makes sure that the sweep is still this driver's.
        gateway: What to do meanwhile; replaced by tests only.

    Raises:
        PreflightError: The database stayed away for too long.
    """

    def __init__(
        self,
        storage: Storage,
        study_name: str,
        stage: Stage,
        objectives: Objectives,
        *,
        seed: int = 0,
        sampler: str = "tpe",
        startup: int = 10,
        notify: Callable[[str], None] = lambda text: None,
        keep: Callable[[], object] = lambda: None,
        gateway: Gateway | None = None,
    ) -> None:
        directions = [
            StudyDirection.MAXIMIZE if direction == "max" else StudyDirection.MINIMIZE
            for direction in objectives.directions.values()
        ]
        self.stage = stage
        self.objectives = objectives
        self._storage = storage
        self._gateway = gateway or Gateway(
            partial(probe, storage.engine, keep), FAILURES, notify=notify
        )
        self.study = self._gateway.wait(
            lambda: optuna.create_study(
                storage=storage, study_name=study_name, directions=directions, load_if_exists=True
            )
        )
        past = self._trials()
        seed = derive_seed(seed, study_name, str(len(past)))
        self._model = Model(directions, sampler, startup, seed, past)
        self._known: dict[str, _Known] = {}
        self._counts: Counter[bool] = Counter()
        self._lost: dict[str, Proposal] = {}
        self._live: dict[int, _Live] = {}
        self._drawn: _Drawn | None = None
        self._unsure = False
        for trial in past:
            self._remember(trial)

    @property
    def lost(self) -> str | None:
        """Why the ledger was given up, or None."""
        return self._gateway.lost

    def rest(self) -> None:
        """Sleep until the database may be asked again."""
        self._gateway.rest()

    def _remember(self, trial: FrozenTrial) -> None:
        described = trial.user_attrs.get("trial")
        if described is None:
            return
        key, state = described["key"], _state_of(trial)
        if state is TrialState.LOST:
            self._lost[key] = _proposal(described, retry_of=trial.number)
        elif state is not TrialState.DUPLICATE:
            self._lost.pop(key, None)
            self._note(key, _Known(trial.number, state, described["role"]))

    def _note(self, key: str, known: _Known | None) -> None:
        """Set or forget what is known of a key, and keep the count of results."""
        before = self._known.pop(key, None)
        for entry, change in ((before, -1), (known, 1)):
            if entry is not None and entry.state.is_result():
                self._counts[entry.role.startswith("control")] += change
        if known is not None:
            self._known[key] = known

    def state_of(self, key: str) -> TrialState | None:
        """Return what is known of the trial with this key."""
        known = self._known.get(key)
        return None if known is None else known.state

    def results(self, *, controls: bool = True) -> int:
        """Count the distinct outcomes, with or without those of controls."""
        return self._counts[False] + (self._counts[True] if controls else 0)

    def complete(self) -> list[tuple[Proposal, Mapping[str, float]]]:
        """Return the complete trials as they were proposed, each with its metrics."""
        complete = {
            known.number for known in self._known.values() if known.state is TrialState.COMPLETE
        }
        return [
            (_proposal(described, number=number), outcome["metrics"])
            for number, described, outcome in self._rows()
            if number in complete and outcome is not None
        ]

    def forget_failures(self) -> None:
        """Let failed trials run again: a teacher's failure is often the machine's."""
        failed = [key for key, known in self._known.items() if known.state is TrialState.FAILED]
        for key in failed:
            self._note(key, None)

    def reconcile(self) -> list[Proposal]:
        """Settle what a dead driver left behind; returns its unfinished trials, to be run again.

        Call it only while holding the sweep's lock: another driver's live trials look the same.
        """
        for trial in self._trials(OptunaState.WAITING):
            self._gateway.wait(partial(self._drop, trial._trial_id))
        for trial in self._trials(OptunaState.RUNNING):
            described = trial.user_attrs.get("trial")
            self._gateway.wait(partial(self._settle, trial._trial_id, Outcome(TrialState.LOST)))
            # A duplicate whose end was not written down has its result under another number.
            known = None if described is None else self._known.get(described["key"])
            if described is not None and known is not None and known.number == trial.number:
                self._note(described["key"], None)
                self._lost[described["key"]] = _proposal(described, retry_of=trial.number)
        # Also those of a driver that died before it could run the orphans of the one before it.
        orphans, self._lost = list(self._lost.values()), {}
        return orphans

    def enter(self, proposal: Proposal, space: Space | None = None) -> Proposal:
        """Write down a trial that is about to run and return it with its number.

        Args:
            proposal: What will run.
            space: If given and ``proposal.point`` lies in it, the sampler learns from the trial.

        Raises:
            LedgerAway: The database cannot be reached; call it again with the same trial.
        """
        if self._drawn is None or self._drawn.proposal.key != proposal.key:
            point = dict(proposal.point)
            if space is None or not point or not space.contains(point):
                trial = self._model.ask()
            else:
                trial = self._model.fixed(space, point)
            self._drawn = _Drawn(proposal, trial, time.time())
        return self._enter(self._drawn)

    def suggest(
        self, space: Space, describe: Callable[[Mapping[str, Any]], Proposal]
    ) -> Proposal | None:
        """Draw the next point that has not been tried; None when none can be found.

        Args:
            space: Where to draw from.
            describe: Turns a point into the trial that stands for it.

        Raises:
            LedgerAway: The database cannot be reached; the next call returns the same point.
        """
        if self._drawn is None:
            self._drawn = self._draw(space, describe)
        return None if self._drawn is None else self._enter(self._drawn)

    def _draw(
        self, space: Space, describe: Callable[[Mapping[str, Any]], Proposal]
    ) -> _Drawn | None:
        for draw in range(MAX_DUPLICATES):
            trial, point = self._model.draw(space, modelled=draw < _MODEL_DRAWS)
            drawn = _Drawn(describe(point), trial, time.time())
            known = self._known.get(drawn.proposal.key)
            if known is None:
                return drawn
            self._model.tell(trial.number, OptunaState.FAIL, None)
            outcome = Outcome(TrialState.DUPLICATE, duplicate_of=known.number)
            self._gateway.later(partial(self._create, drawn, outcome))
        return None

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write down an epoch's leading objective; several objectives have no such values."""
        value = metrics.get(self.objectives.first[0])
        live = self._live.get(number)
        if live is None or value is None or not math.isfinite(value):
            return
        if len(self.objectives.directions) == 1:
            live.value = float(value)
            self._model.report(number, epoch, live.value)
            self._gateway.later(
                partial(
                    self._storage.set_trial_intermediate_value, live.identifier, epoch, live.value
                )
            )

    def finish(self, proposal: Proposal, outcome: Outcome) -> None:
        """Write down what became of a trial; doing so twice changes nothing."""
        live = self._live.pop(proposal.number, None)
        if live is None:
            return
        values, state = None, _STATES[outcome.state]
        if outcome.state is TrialState.COMPLETE:
            values = self.objectives.values(outcome.metrics)
        elif outcome.state is TrialState.PRUNED and live.value is not None:
            values = [live.value]
        if outcome.state is TrialState.COMPLETE and values is None:
            # Tasks without the objective (outputs, a teacher's test pass) are complete all the
            # same, but Optuna has no COMPLETE without values.
            state = OptunaState.FAIL
        self._model.finish(
            proposal.number, state, values if state is OptunaState.COMPLETE else None
        )
        self._gateway.later(partial(self._settle, live.identifier, outcome, state, values))
        self._note(proposal.key, _Known(proposal.number, outcome.state, proposal.role))

    def records(self) -> list[TrialRecord]:
        """Return all trials, oldest first.

        Raises:
            PreflightError: The database stayed away for too long.
        """
        return [
            rows.record(self.stage, described, outcome) for _, described, outcome in self._rows()
        ]

    def _rows(self) -> list[tuple[int, rows.Described, Mapping[str, Any] | None]]:
        engine, name = self._storage.engine, self.study.study_name
        return self._gateway.wait(lambda: list(rows.attributes(engine, name)))

    def _trials(self, *states: OptunaState) -> list[FrozenTrial]:
        """Read trials from the database, past the study, which would keep a copy of them all."""
        return self._gateway.wait(
            partial(
                self._storage.get_all_trials,
                self.study._study_id,
                deepcopy=False,
                states=states or None,
            )
        )

    def _enter(self, drawn: _Drawn) -> Proposal:
        proposal = drawn.proposal
        identifier, number = self._gateway.now(partial(self._create, drawn))
        self._drawn = None
        self._model.entered(number, drawn.trial)
        self._live[number] = _Live(identifier)
        self._note(proposal.key, _Known(number, TrialState.RUNNING, proposal.role))
        return replace(proposal, number=number)

    def _create(self, drawn: _Drawn, outcome: Outcome | None = None) -> tuple[int, int]:
        """Write a trial in one transaction; returns its identifier and its number."""
        described = {**drawn.proposal.to_dict(), "started": drawn.started}
        if self._unsure and (found := self._find(drawn)) is not None:
            self._unsure = False
            return found
        attributes = {"trial": described}
        if outcome is not None:
            attributes["outcome"] = outcome.to_dict()
        self._unsure = True
        identifier = self._storage.create_new_trial(
            self.study._study_id,
            optuna.trial.create_trial(
                state=OptunaState.RUNNING if outcome is None else _STATES[outcome.state],
                params=drawn.trial.params,
                distributions=drawn.trial.distributions,
                user_attrs=attributes,
            ),
        )
        number = self._storage.get_trial_number_from_id(identifier)
        self._unsure = False
        return identifier, number

    def _find(self, drawn: _Drawn) -> tuple[int, int] | None:
        """Look for a trial whose creation was not confirmed: it may be there all the same."""
        for trial in self._storage.get_all_trials(self.study._study_id, deepcopy=False):
            described = trial.user_attrs.get("trial", {})
            same = described.get("key"), described.get("started")
            if same == (drawn.proposal.key, drawn.started):
                return trial._trial_id, trial.number
        return None

    def _settle(
        self,
        identifier: int,
        outcome: Outcome,
        state: OptunaState = OptunaState.FAIL,
        values: Sequence[float] | None = None,
    ) -> None:
        """Write an outcome; it may be there already, if the answer to the first time was lost."""
        try:
            self._storage.set_trial_user_attr(identifier, "outcome", outcome.to_dict())
            self._storage.set_trial_state_values(identifier, state, values)
        except optuna.exceptions.UpdateFinishedTrialError:
            return

    def _drop(self, identifier: int) -> None:
        """End a trial that was enqueued and never begun."""
        self._storage.set_trial_state_values(identifier, OptunaState.RUNNING)
        self._storage.set_trial_state_values(identifier, OptunaState.FAIL)


def _state_of(trial: FrozenTrial) -> TrialState:
    return rows.state_of(trial.user_attrs.get("outcome"))


def _proposal(described: Mapping[str, Any], **changes: Any) -> Proposal:
    values = {name: value for name, value in described.items() if name != "started"}
    return Proposal(**{**values, **changes})


def read_study(storage: Storage, study_name: str, stage: Stage) -> list[TrialRecord]:
    """Return the trials of a study, oldest first, without taking part in it.

    Raises:
        KeyError: There is no such study.
    """
    return rows.read_records(storage.engine, study_name, stage)
