"""The sampler of a search: what has been tried, kept in memory, and what to try next.

A search of thousands of trials must not read them all for each suggestion, neither from the
database nor from memory. The model is a study of Optuna in memory that never holds more than a few
hundred trials, see ``orchestrator.window``; the ledger stays the truth and fills it when it opens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from orchestrator import window
from search_spaces.space import Space

Label = str | int | float | bool
# What a sampler learns from.
_TEACHING = (OptunaState.COMPLETE, OptunaState.PRUNED)


class Model:
    """The sampler, and in memory as much of the past as it needs.

    Args:
        directions: Of the objectives.
        sampler: ``tpe`` or ``random``.
        startup: Random points before TPE begins to model.
        seed: Of all that is drawn.
        past: Trials of earlier drivers.
    """

    def __init__(
        self,
        directions: Sequence[StudyDirection],
        sampler: str,
        startup: int,
        seed: int,
        past: Iterable[FrozenTrial],
    ) -> None:
        self._directions = list(directions)
        self._sampler = _make_sampler(sampler, seed, startup)
        self._chance = optuna.samplers.RandomSampler(seed=seed % 2**32)
        self._numbers: dict[int, int] = {}  # of the trials that run: in the ledger -> here
        self._show([trial for trial in past if trial.state in _TEACHING])

    def draw(self, space: Space, *, modelled: bool) -> tuple[optuna.trial.Trial, dict[str, Any]]:
        """Begin a trial and draw its point, by the model or by chance."""
        trial = self.ask(modelled=modelled)
        return trial, space.sample(_Suggest(trial))

    def ask(self, *, modelled: bool = False) -> optuna.trial.Trial:
        """Begin a trial; it has no parameters yet."""
        if self._size >= window.FULL:
            self._narrow()
        self._size += 1
        self._study.sampler = self._sampler if modelled else self._chance
        return self._study.ask()

    def fixed(self, space: Space, point: Mapping[str, Any]) -> optuna.trial.Trial:
        """Begin a trial with the parameters of a point of the space."""
        self._study.enqueue_trial(space.paths_of(point))
        trial = self.ask()
        space.sample(_Suggest(trial))
        return trial

    def entered(self, number: int, trial: optuna.trial.Trial) -> None:
        """Hear which number the ledger gave a trial."""
        self._numbers[number] = trial.number

    def report(self, number: int, epoch: int, value: float) -> None:
        """Hear of an epoch of a trial of the ledger."""
        identifier = self._study._storage.get_trial_id_from_study_id_trial_number(
            self._study._study_id, self._numbers[number]
        )
        self._study._storage.set_trial_intermediate_value(identifier, epoch, value)

    def finish(self, number: int, state: OptunaState, values: Sequence[float] | None) -> None:
        """Hear what became of a trial of the ledger."""
        self.tell(self._numbers.pop(number), state, values)

    def tell(self, number: int, state: OptunaState, values: Sequence[float] | None) -> None:
        """Hear what became of a trial of this model."""
        self._study.tell(number, values, state=state)

    def _narrow(self) -> None:
        """Begin anew with the best, the latest and the running trials."""
        trials = self._study.get_trials(deepcopy=False)
        running = {here: number for number, here in self._numbers.items()}
        live = [trial for trial in trials if trial.number in running]
        first = self._show([trial for trial in trials if trial.state in _TEACHING])
        for place, trial in enumerate(live):
            self._numbers[running[trial.number]] = first + place
            self._study.add_trial(trial)
        self._size += len(live)

    def _show(self, finished: Sequence[FrozenTrial]) -> int:
        """Begin a study of some of the finished trials; returns how many."""
        chosen = window.to_show([self._losses(trial) for trial in finished])
        self._study = optuna.create_study(directions=self._directions)
        for index in chosen:
            self._study.add_trial(_bare(finished[index]))
        self._size = len(chosen)
        return self._size

    def _losses(self, trial: FrozenTrial) -> window.Losses | None:
        if trial.state is not OptunaState.COMPLETE:
            return None
        return tuple(
            -value if direction is StudyDirection.MAXIMIZE else value
            for value, direction in zip(trial.values, self._directions, strict=True)
        )


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """Return a finished trial without its description, which the sampler does not read."""
    return optuna.trial.create_trial(
        state=trial.state,
        values=trial.values,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
    )


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
