"""The ledger: the Optuna studies that are the truth about a search.

Only the driver opens it. Each stage of a sweep is one study; each trial is one Optuna trial whose
user attribute ``trial`` says what was run and whose attribute ``outcome`` says what became of it.
Ray holds nothing that is not here or in the content store, so a driver may die at any moment: the
next one reads the ledger, settles what was running and goes on.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
import sqlalchemy
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState

from orchestrator.proposals import Objectives, Outcome, Proposal
from orchestrator.records import Stage, TrialRecord, TrialState
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

Label = str | int | float | bool
Storage = optuna.storages.BaseStorage
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
    """

    def __init__(
        self,
        storage: optuna.storages.BaseStorage,
        study_name: str,
        stage: Stage,
        objectives: Objectives,
        *,
        seed: int = 0,
        sampler: str = "tpe",
        startup: int = 10,
    ) -> None:
        directions = [
            StudyDirection.MAXIMIZE if direction == "max" else StudyDirection.MINIMIZE
            for direction in objectives.directions.values()
        ]
        self.stage = stage
        self.objectives = objectives
        self.study = optuna.create_study(
            storage=storage, study_name=study_name, directions=directions, load_if_exists=True
        )
        past = self.study.get_trials(deepcopy=False)
        seed = derive_seed(seed, study_name, str(len(past)))
        self._sampler = _make_sampler(sampler, seed, startup)
        self._chance = optuna.samplers.RandomSampler(seed=seed % 2**32)
        self._known: dict[str, _Known] = {}
        self._lost: dict[str, Proposal] = {}
        self._live: dict[int, optuna.trial.Trial] = {}
        for trial in past:
            self._remember(trial)

    def _remember(self, trial: optuna.trial.FrozenTrial) -> None:
        described = trial.user_attrs.get("trial")
        if described is None:
            return
        key, state = described["key"], _state_of(trial)
        if state is TrialState.LOST:
            self._lost[key] = _proposal(described, retry_of=trial.number)
        elif state is not TrialState.DUPLICATE:
            self._lost.pop(key, None)
            self._known[key] = _Known(trial.number, state, described["role"])

    def state_of(self, key: str) -> TrialState | None:
        """Return what is known of the trial with this key."""
        known = self._known.get(key)
        return None if known is None else known.state

    def results(self, *, controls: bool = True) -> int:
        """Count the distinct outcomes, with or without those of controls."""
        return sum(
            known.state.is_result() and (controls or not known.role.startswith("control"))
            for known in self._known.values()
        )

    def complete(self) -> list[tuple[Proposal, Mapping[str, float]]]:
        """Return the complete trials as they were proposed, each with its metrics."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            (_proposal(attrs["trial"], number=known.number), attrs["outcome"]["metrics"])
            for known in self._known.values()
            if known.state is TrialState.COMPLETE
            for attrs in (trials[known.number].user_attrs,)
        ]

    def forget_failures(self) -> None:
        """Let failed trials run again: a teacher's failure is often the machine's."""
        failed = [key for key, known in self._known.items() if known.state is TrialState.FAILED]
        for key in failed:
            del self._known[key]

    def reconcile(self) -> list[Proposal]:
        """Settle what a dead driver left behind; returns its unfinished trials, to be run again.

        Call it only while holding the sweep's lock: another driver's live trials look the same.
        """
        while self.study.get_trials(deepcopy=False, states=(OptunaState.WAITING,)):
            self.study.tell(self._ask(self._chance), state=OptunaState.FAIL)
        for trial in self.study.get_trials(deepcopy=False, states=(OptunaState.RUNNING,)):
            described = trial.user_attrs.get("trial")
            self._write(trial.number, Outcome(TrialState.LOST))
            self.study.tell(trial.number, state=OptunaState.FAIL, skip_if_finished=True)
            # A duplicate whose end was not written down has its result under another number.
            known = None if described is None else self._known.get(described["key"])
            if described is not None and known is not None and known.number == trial.number:
                del self._known[described["key"]]
                self._lost[described["key"]] = _proposal(described, retry_of=trial.number)
        # Also those of a driver that died before it could run the orphans of the one before it.
        orphans, self._lost = list(self._lost.values()), {}
        return orphans

    def enter(self, proposal: Proposal, space: Space | None = None) -> Proposal:
        """Write down a trial that is about to run and return it with its number.

        Args:
            proposal: What will run.
            space: If given and ``proposal.point`` lies in it, the sampler learns from the trial.
        """
        point = dict(proposal.point)
        if space is not None and point and space.contains(point):
            self.study.enqueue_trial(space.paths_of(point))
            trial = self._ask(self._chance)
            space.sample(_Suggest(trial))
        else:
            trial = self._ask(self._chance)
        return self._enter(trial, proposal)

    def suggest(
        self, space: Space, describe: Callable[[Mapping[str, Any]], Proposal]
    ) -> Proposal | None:
        """Draw the next point that has not been tried; None when none can be found.

        Args:
            space: Where to draw from.
            describe: Turns a point into the trial that stands for it.
        """
        for draw in range(MAX_DUPLICATES):
            trial = self._ask(self._sampler if draw < _MODEL_DRAWS else self._chance)
            proposal = describe(space.sample(_Suggest(trial)))
            known = self._known.get(proposal.key)
            if known is None:
                return self._enter(trial, proposal)
            trial.set_user_attr("trial", proposal.to_dict())
            self._write(trial.number, Outcome(TrialState.DUPLICATE, duplicate_of=known.number))
            self.study.tell(trial, state=OptunaState.FAIL)
        return None

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write down an epoch's leading objective; several objectives have no such values."""
        value = metrics.get(self.objectives.first[0])
        trial = self._live.get(number)
        if trial is None or value is None or not math.isfinite(value):
            return
        if len(self.objectives.directions) == 1:
            trial.report(float(value), epoch)

    def finish(self, proposal: Proposal, outcome: Outcome) -> None:
        """Write down what became of a trial; doing so twice changes nothing."""
        known = self._known.get(proposal.key)
        if known is not None and known.number == proposal.number and known.state.is_finished():
            return
        values = None
        if outcome.state is TrialState.COMPLETE:
            values = self.objectives.values(outcome.metrics)
        state = _STATES[outcome.state]
        if outcome.state is TrialState.COMPLETE and values is None:
            # Tasks without the objective (outputs, a teacher's test pass) are complete all the
            # same, but Optuna has no COMPLETE without values.
            state = OptunaState.FAIL
        self._write(proposal.number, outcome)
        self.study.tell(proposal.number, values, state=state, skip_if_finished=True)
        self._live.pop(proposal.number, None)
        self._known[proposal.key] = _Known(proposal.number, outcome.state, proposal.role)

    def records(self) -> list[TrialRecord]:
        """Return all trials, oldest first."""
        return _records(self.study, self.stage)

    def _ask(self, sampler: optuna.samplers.BaseSampler) -> optuna.trial.Trial:
        self.study.sampler = sampler
        return self.study.ask()

    def _enter(self, trial: optuna.trial.Trial, proposal: Proposal) -> Proposal:
        entered = Proposal(**{**proposal.to_dict(), "number": trial.number})
        trial.set_user_attr("trial", {**proposal.to_dict(), "started": time.time()})
        self._live[trial.number] = trial
        self._known[proposal.key] = _Known(trial.number, TrialState.RUNNING, proposal.role)
        return entered

    def _write(self, number: int, outcome: Outcome) -> None:
        identifier = self.study._storage.get_trial_id_from_study_id_trial_number(
            self.study._study_id, number
        )
        self.study._storage.set_trial_user_attr(identifier, "outcome", outcome.to_dict())


class _Suggest:
    """Lets a space draw from an Optuna trial."""

    def __init__(self, trial: optuna.trial.Trial) -> None:
        self._trial = trial

    def uniform(self, path: str, low: float, high: float) -> float:
        return self._trial.suggest_float(path, low, high)

    def log_uniform(self, path: str, low: float, high: float) -> float:
        return self._trial.suggest_float(path, low, high, log=True)

    def integer(self, path: str, low: int, high: int, log: bool = False) -> int:
        return self._trial.suggest_int(path, low, high, log=log)

    def categorical(self, path: str, labels: Sequence[Label]) -> Label:
        return cast(Label, self._trial.suggest_categorical(path, list(labels)))


def read_study(
    storage: optuna.storages.BaseStorage, study_name: str, stage: Stage
) -> list[TrialRecord]:
    """Return the trials of a study, oldest first, without taking part in it."""
    return _records(optuna.load_study(study_name=study_name, storage=storage), stage)


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Open the database behind ``url``; creates an SQLite file that is not there."""
    if not url.startswith("sqlite"):
        return optuna.storages.RDBStorage(url)
    storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    # Connections made before this listener, by the storage's own set-up, do not have the pragmas.
    sqlalchemy.event.listen(storage.engine, "connect", _relax)
    storage.engine.dispose()
    return storage


def _relax(connection: Any, record: Any) -> None:
    """Let SQLite sync at checkpoints only: a trial is a dozen transactions.

    A power cut may take back the last trials, whose artifacts answer them at the next start.
    """
    del record
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _make_sampler(name: str, seed: int, startup: int) -> optuna.samplers.BaseSampler:
    seed %= 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # group: temperatures exist for some losses only; TPE then models each group by itself.
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            constant_liar=True,
            n_startup_trials=startup,
        )


def _state_of(trial: optuna.trial.FrozenTrial) -> TrialState:
    outcome = trial.user_attrs.get("outcome")
    return TrialState.RUNNING if outcome is None else TrialState(outcome["state"])


def _proposal(described: Mapping[str, Any], **changes: Any) -> Proposal:
    values = {name: value for name, value in described.items() if name != "started"}
    return Proposal(**{**values, **changes})


def _records(study: optuna.Study, stage: Stage) -> list[TrialRecord]:
    trials = study.get_trials(deepcopy=False)
    return [_record(stage, trial) for trial in trials if "trial" in trial.user_attrs]


def _record(stage: Stage, trial: optuna.trial.FrozenTrial) -> TrialRecord:
    described = trial.user_attrs["trial"]
    outcome = trial.user_attrs.get("outcome") or {}
    return TrialRecord(
        stage=stage,
        key=described["key"],
        state=_state_of(trial),
        role=described["role"],
        params=described["params"],
        metrics=_numbers(outcome.get("metrics", {})),
        history=tuple(_numbers(entry) for entry in outcome.get("history", ())),
        group=described["group"],
        seed=described["seed"],
        error=outcome.get("error"),
        seconds=outcome.get("seconds", 0.0),
        spec=described["spec"],
    )


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Leave out what was not finite, see ``Outcome.to_dict``."""
    return {name: value for name, value in metrics.items() if value is not None}
