"""Forgetting on a stand-in controller; that a real one stays small is in the benchmark."""

from types import SimpleNamespace
from typing import Any

from orchestrator.slim import forget_finished


class Trial:
    """As much of Tune's trial as is looked at."""

    def __init__(self, number: int, finished: bool = True) -> None:
        self.trial_id = str(number)
        self._finished = finished

    def is_finished(self) -> bool:
        return self._finished


def controller(trials: list[Trial], **busy: Any) -> Any:
    stopped = {trial for trial in trials if trial.is_finished()}
    return SimpleNamespace(
        get_trials=lambda: trials,
        _stopped_trials=stopped,
        _live_trials=set(trials) - stopped,
        _trial_metadata={trial.trial_id: "state" for trial in trials},
        **busy,
    )


def test_only_the_latest_finished_trials_stay() -> None:
    trials = [Trial(number) for number in range(9)]
    its = controller(trials)
    assert forget_finished(its, kept=3) == 6
    assert [trial.trial_id for trial in trials] == ["6", "7", "8"]
    assert set(its._trial_metadata) == {"6", "7", "8"}
    assert its._stopped_trials == set(trials)


def test_running_trials_and_those_being_stopped_stay() -> None:
    trials = [Trial(number, finished=number != 1) for number in range(9)]
    its = controller(trials, _trial_to_actor={trials[2]: "actor"}, _resetting_trials={trials[3]})
    assert forget_finished(SimpleNamespace(_tune_controller=its), kept=3) == 3
    assert [trial.trial_id for trial in trials] == ["1", "2", "3", "6", "7", "8"]
    assert {trial.trial_id for trial in its._live_trials} == {"1"}


def test_nothing_is_forgotten_until_it_is_worth_it() -> None:
    trials = [Trial(number) for number in range(5)]
    assert forget_finished(controller(trials), kept=3) == 0
    assert len(trials) == 5
