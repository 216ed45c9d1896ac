"""The sampler's memory: bounded, and the same to the sampler as all that it stands for."""

from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from orchestrator import window
from orchestrator.sampling import Model
from search_spaces.space import Space

SPACE = Space.parse({"alpha": {"uniform": [0.0, 1.0]}})
MAX = [StudyDirection.MAXIMIZE]


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Show 12 of at most 20."""
    monkeypatch.setattr(window, "FULL", 20)
    real = window.to_show
    monkeypatch.setattr(window, "to_show", lambda losses: real(losses, best=4, shown=12))
    yield


def model(past: Any = (), startup: int = 5) -> Model:
    return Model(MAX, "tpe", startup, 3, list(past))


def held(one: Model) -> list[optuna.trial.FrozenTrial]:
    return one._study.get_trials(deepcopy=False)


def test_it_holds_a_bounded_number_of_trials_and_keeps_the_best(small_window: None) -> None:
    one = model()
    for number in range(200):
        trial, _ = one.draw(SPACE, modelled=True)
        one.entered(number, trial)
        one.finish(number, TrialState.COMPLETE, [1.0 if number == 7 else 0.001 * number])
        assert len(held(one)) <= 20
    assert max(trial.value or 0.0 for trial in held(one)) == 1.0


def test_running_trials_survive_the_narrowing_and_can_be_finished(small_window: None) -> None:
    one = model()
    slow, point = one.draw(SPACE, modelled=False)
    one.entered(1000, slow)
    one.report(1000, 1, 0.5)
    for number in range(60):
        trial, _ = one.draw(SPACE, modelled=True)
        one.entered(number, trial)
        one.finish(number, TrialState.COMPLETE, [0.1])
    one.report(1000, 2, 0.9)
    one.finish(1000, TrialState.PRUNED, None)
    (found,) = [trial for trial in held(one) if trial.state is TrialState.PRUNED]
    assert found.params == point
    assert found.intermediate_values == {1: 0.5, 2: 0.9}
    assert found.value == 0.9


def test_it_learns_from_a_past_that_is_longer_than_its_memory() -> None:
    past = [
        optuna.trial.create_trial(
            value=-abs(alpha - 0.25),
            params={"alpha": alpha},
            distributions={"alpha": optuna.distributions.FloatDistribution(0.0, 1.0)},
        )
        for alpha in (number * 0.618034 % 1 for number in range(1000))  # evenly spread, no order
    ]
    one = model(past)
    assert len(held(one)) == window.SHOWN
    near = sum(abs(one.draw(SPACE, modelled=True)[1]["alpha"] - 0.25) < 0.05 for _ in range(20))
    assert near >= 10  # by chance it would be 2


def test_a_fixed_point_is_known_as_if_it_had_been_drawn() -> None:
    one = model()
    trial = one.fixed(SPACE, {"alpha": 0.25})
    assert trial.params == {"alpha": 0.25}
    assert one.ask().params == {}
