import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.ledger import Objectives, Outcome, Proposal, StageLedger, open_storage, read_study
from orchestrator.records import Stage, TrialState
from search_spaces.space import Space
from trainables.store import content_key

F1 = Objectives({"val_f1_macro": "max"})
COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED
SPACE = Space.parse({"alpha": {"uniform": [0.0, 1.0]}})
BRANCHES = Space.parse(
    {
        "loss": {"choice": [{"name": "kd", "temperature": {"uniform": [1.0, 8.0]}}, "mse_logits"]},
        "alpha": {"log_uniform": [0.1, 10.0]},
    }
)


def describe(point: Any, role: str = "search") -> Proposal:
    return Proposal("student", content_key(dict(point)), role, {"epochs": 3}, point=dict(point))


def score(value: float) -> Outcome:
    return Outcome(COMPLETE, {"val_f1_macro": value})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


def ledger(url: str, objectives: Objectives = F1, study: str = "s/students/1") -> StageLedger:
    return StageLedger(open_storage(url), study, Stage.STUDENTS, objectives, startup=2)


def drawn(stage: StageLedger, space: Space = SPACE) -> Proposal:
    proposal = stage.suggest(space, describe)
    assert proposal is not None
    return proposal


def test_a_trial_is_proposed_reported_and_finished(url: str) -> None:
    stage = ledger(url)
    proposal = drawn(stage)
    assert stage.state_of(proposal.key) is TrialState.RUNNING
    stage.report(proposal.number, 1, {"val_f1_macro": 0.4})
    stage.finish(proposal, score(0.5))

    (record,) = read_study(open_storage(url), "s/students/1", Stage.STUDENTS)
    assert (record.key, record.state, record.role) == (proposal.key, COMPLETE, "search")
    assert record.metrics == {"val_f1_macro": 0.5}
    (trial,) = stage.study.trials
    assert trial.value == 0.5
    assert trial.intermediate_values == {1: 0.4}
    assert trial.params["alpha"] == proposal.point["alpha"]


def test_finishing_twice_keeps_the_first_outcome(url: str) -> None:
    stage = ledger(url)
    proposal = drawn(stage)
    stage.finish(proposal, score(0.5))
    stage.finish(proposal, Outcome(FAILED, error="too late"))
    assert [(r.state, r.metrics) for r in stage.records()] == [(COMPLETE, {"val_f1_macro": 0.5})]
    assert stage.results() == 1


def test_a_pruned_trial_has_its_last_value(url: str) -> None:
    stage = ledger(url)
    proposal = drawn(stage)
    for epoch, value in ((1, 0.2), (2, 0.3)):
        stage.report(proposal.number, epoch, {"val_f1_macro": value})
    stage.finish(proposal, Outcome(PRUNED))
    (trial,) = stage.study.trials
    assert (trial.state, trial.value) == (optuna.trial.TrialState.PRUNED, 0.3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_never_reaches_the_sampler(url: str, value: float) -> None:
    stage = ledger(url)
    proposal = drawn(stage)
    stage.report(proposal.number, 1, {"val_f1_macro": value})
    stage.finish(proposal, score(value))
    (trial,) = stage.study.trials
    assert trial.state is optuna.trial.TrialState.FAIL
    assert not trial.intermediate_values
    assert stage.records()[0].metrics == {}


def test_several_objectives_are_told_in_order(url: str) -> None:
    both = Objectives({"val_f1_macro": "max", "parameters": "min"})
    stage = ledger(url, both)
    proposal = drawn(stage)
    stage.report(proposal.number, 1, {"val_f1_macro": 0.2, "parameters": 9.0})
    stage.finish(proposal, Outcome(COMPLETE, {"parameters": 9.0, "val_f1_macro": 0.3}))
    stopped = drawn(stage)
    stage.finish(stopped, Outcome(PRUNED, {"val_f1_macro": 0.1}))
    for _ in range(4):  # past the random start, so that TPE sees the pruned one as well
        stage.finish(drawn(stage), Outcome(COMPLETE, {"parameters": 5.0, "val_f1_macro": 0.4}))
    assert stage.study.trials[0].values == [0.3, 9.0]
    assert stage.study.trials[1].state is optuna.trial.TrialState.PRUNED
    assert stage.results() == 6


def test_a_point_is_not_tried_twice_and_a_small_space_is_exhausted(url: str) -> None:
    space = Space.parse({"epochs": {"int": [1, 6]}})
    stage = ledger(url)
    for number in range(6):
        stage.finish(drawn(stage, space), score(1.0 if number == 0 else 0.0))
    assert stage.suggest(space, describe) is None
    states = Counter(record.state for record in stage.records())
    assert states[COMPLETE] == 6
    assert states[TrialState.DUPLICATE] >= 1
    assert stage.results() == 6


def test_a_duplicate_names_the_trial_it_repeats(url: str) -> None:
    space = Space.parse({"epochs": {"int": [1, 2]}})
    stage = ledger(url)
    first, second = drawn(stage, space), drawn(stage, space)
    assert stage.suggest(space, describe) is None
    outcomes = [trial.user_attrs["outcome"] for trial in stage.study.trials[2:]]
    assert {outcome["duplicate_of"] for outcome in outcomes} == {first.number, second.number}


def test_orphans_of_a_dead_driver_are_run_again(url: str) -> None:
    dead = ledger(url)
    finished, running = drawn(dead), drawn(dead)
    dead.finish(finished, score(0.5))

    stage = ledger(url)
    (orphan,) = stage.reconcile()
    assert (orphan.key, orphan.point, orphan.retry_of) == (running.key, running.point, 1)
    assert stage.records()[1].state is TrialState.LOST
    again = stage.enter(orphan, SPACE)
    stage.finish(again, score(0.6))
    assert stage.results() == 2
    assert stage.study.trials[again.number].params == stage.study.trials[1].params
    assert ledger(url).reconcile() == []


def test_orphans_survive_a_second_death_before_they_are_run(url: str) -> None:
    running = drawn(ledger(url))
    assert [p.key for p in ledger(url).reconcile()] == [running.key]
    assert [p.key for p in ledger(url).reconcile()] == [running.key]


def test_an_orphan_that_is_a_duplicate_is_not_run_again(url: str) -> None:
    dead = ledger(url)
    finished = drawn(dead)
    dead.finish(finished, score(0.5))
    repeated = dead.study.ask()  # earlier versions ended a duplicate after writing what it is
    outcome = Outcome(TrialState.DUPLICATE, duplicate_of=finished.number)
    repeated.set_user_attr("trial", finished.to_dict())
    repeated.set_user_attr("outcome", outcome.to_dict())
    stage = ledger(url)
    assert stage.reconcile() == []
    assert stage.results() == 1
    assert not stage.study.get_trials(states=(optuna.trial.TrialState.RUNNING,))


def test_waiting_trials_of_a_dead_driver_are_dropped(url: str) -> None:
    stage = ledger(url)
    stage.study.enqueue_trial({"alpha": 0.3})
    assert ledger(url).reconcile() == []
    assert stage.study.trials[0].state is optuna.trial.TrialState.FAIL


def test_planned_points_inside_the_space_teach_the_sampler(url: str) -> None:
    stage = ledger(url)
    inside = stage.enter(describe({"alpha": 0.25}, "default"), SPACE)
    outside = stage.enter(describe({"alpha": 7.0}, "control:plain"), SPACE)
    assert stage.study.trials[inside.number].params == {"alpha": 0.25}
    assert stage.study.trials[outside.number].params == {}


def test_controls_without_params_do_not_break_grouped_tpe(url: str) -> None:
    stage = ledger(url)
    for number in range(3):
        control = stage.enter(describe({"control": number}, "control:plain"), BRANCHES)
        stage.finish(control, score(0.9))
    for number in range(12):
        proposal = drawn(stage, BRANCHES)
        stage.finish(proposal, score(number / 20))
    assert stage.results() == 15
    assert stage.results(controls=False) == 12


def test_another_driver_does_not_draw_the_same_points(url: str) -> None:
    first = ledger(url)
    points = [drawn(first).point for _ in range(2)]
    second = ledger(url)
    second.reconcile()
    assert drawn(second).point not in points


def test_another_search_space_is_another_study(url: str) -> None:
    stage = ledger(url)
    stage.finish(drawn(stage), score(0.5))
    other = ledger(url, study="s/students/2")
    assert other.results() == 0
    assert other.records() == []


def test_failures_can_be_forgotten_and_results_are_not(url: str) -> None:
    stage = ledger(url)
    good, bad = drawn(stage), drawn(stage)
    stage.finish(good, score(0.5))
    stage.finish(bad, Outcome(FAILED, error="out of memory"))
    stage.forget_failures()
    assert stage.state_of(bad.key) is None
    assert stage.state_of(good.key) is COMPLETE


def test_complete_trials_come_back_as_they_were_proposed(url: str) -> None:
    stage = ledger(url)
    good, bad = drawn(stage), drawn(stage)
    stage.finish(good, score(0.5))
    stage.finish(bad, Outcome(FAILED))
    assert ledger(url).complete() == [(good, {"val_f1_macro": 0.5})]


def test_a_trial_costs_milliseconds(url: str) -> None:
    stage = StageLedger(open_storage(url), "s", Stage.STUDENTS, F1, sampler="random")
    started = time.process_time()
    for _ in range(20):
        proposal = drawn(stage)
        stage.report(proposal.number, 1, {"val_f1_macro": 0.1})
        stage.finish(proposal, score(0.1))
    # Processor time, which other work on the machine does not change: a guard against scans.
    assert (time.process_time() - started) / 20 < 0.25


def test_results_are_counted_as_they_come_and_go(url: str) -> None:
    stage = ledger(url)
    control = stage.enter(describe({"alpha": 7.0}, "control:plain"))
    assert stage.results() == 0
    stage.finish(control, score(0.4))
    failed = drawn(stage)
    stage.finish(failed, Outcome(FAILED))
    assert (stage.results(), stage.results(controls=False)) == (2, 1)
    stage.forget_failures()
    assert (stage.results(), stage.results(controls=False)) == (1, 0)
    assert ledger(url).results() == 2  # another driver knows of the failure


def test_the_database_is_not_read_for_a_suggestion(url: str, monkeypatch: Any) -> None:
    stage = ledger(url)
    for _ in range(5):
        stage.finish(drawn(stage), score(0.1))

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("all trials were read")

    monkeypatch.setattr(stage._storage, "get_all_trials", refuse)
    monkeypatch.setattr(stage._storage, "_get_trials", refuse)
    stage.finish(drawn(stage), score(0.2))
    assert stage.results() == 6
