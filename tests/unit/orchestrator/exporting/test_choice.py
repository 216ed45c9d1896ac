"""Which trial is taken when none is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.exporting.choice import choose
from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from orchestrator.report.build import build_report
from trainables.store import Store


def trial(stage: Stage, key: str, role: str, dev: float, **rest: object) -> TrialRecord:
    metrics = {"val_f1_macro": dev, "test_f1_macro": 1 - dev}
    return TrialRecord(stage, key, TrialState.COMPLETE, role, metrics=metrics, **rest)  # type: ignore[arg-type]


SEARCHED = (
    trial(Stage.STUDENTS, "1plain", "control:plain", 0.95),
    trial(Stage.STUDENTS, "2weak", "search", 0.5),
    trial(Stage.STUDENTS, "3best", "search", 0.9),
)
CONFIRMED = (
    trial(Stage.CONFIRM, "4a", "candidate", 0.80, group="2weak", seed=0),
    trial(Stage.CONFIRM, "5a", "candidate", 0.84, group="3best", seed=0),
    trial(Stage.CONFIRM, "5b", "candidate", 0.86, group="3best", seed=1),
    trial(Stage.CONFIRM, "5c", "candidate", 0.82, group="3best", seed=2),
    trial(Stage.CONFIRM, "6a", "control:plain", 0.99, group="1plain", seed=0),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for one in CONFIRMED:
        with store.write("confirm", one.key) as draft:
            draft.meta["student"] = f"student-of-{one.key}"
    return store


def pick(
    store: Store, trials: tuple[TrialRecord, ...], wanted: str | None = None
) -> tuple[str, bool]:
    record = SweepRecord("news", {}, trials, {"classes": ["a", "b"]})
    choice = choose(record, build_report(record, store), store, wanted)
    return choice.student, choice.confirmed


def test_the_confirmed_candidate_s_seed_best_on_dev_is_taken(store: Store) -> None:
    # Seed 1 is the worst on test, which must not matter.
    assert pick(store, SEARCHED + CONFIRMED) == ("student-of-5b", True)


def test_before_confirmation_the_best_distilled_student_is_taken(store: Store) -> None:
    assert pick(store, SEARCHED) == ("3best", False)


def test_any_trial_can_be_named(store: Store) -> None:
    assert pick(store, SEARCHED + CONFIRMED, "2w") == ("2weak", False)
    assert pick(store, SEARCHED + CONFIRMED, "5c") == ("student-of-5c", True)
    assert pick(store, SEARCHED + CONFIRMED, "6") == ("student-of-6a", False)
    with pytest.raises(UsageError, match="3 trials begin with '5'"):
        pick(store, SEARCHED + CONFIRMED, "5")


def test_trials_that_are_not_complete_cannot_be_named(store: Store) -> None:
    failed = replace(SEARCHED[1], state=TrialState.FAILED)
    with pytest.raises(UsageError, match="no complete student"):
        pick(store, (failed,), "2w")


def test_several_students_together_are_refused_by_name(store: Store) -> None:
    params = {"members": "one+two", "combiner": "soft_vote"}
    several = trial(Stage.CONFIRM, "7a", "ensemble", 0.99, params=params)
    with pytest.raises(UsageError, match=r"ensemble \(one\+two\).*name one of its members"):
        pick(store, SEARCHED + CONFIRMED + (several,), "7a")
    assert pick(store, SEARCHED + CONFIRMED + (several,)) == ("student-of-5b", True)


def test_a_student_trained_with_its_teacher_is_of_another_kind(store: Store) -> None:
    store.delete("confirm", "5b")
    with store.write("confirm", "5b") as draft:
        draft.meta |= {"student": "together", "task": "joint"}
    record = SweepRecord("news", {}, SEARCHED + CONFIRMED, {"classes": ["a", "b"]})
    choice = choose(record, build_report(record, store), store, None)
    assert (choice.student, choice.kind) == ("together", "joint")


def test_a_lost_confirmation_is_named(store: Store) -> None:
    store.delete("confirm", "5b")
    with pytest.raises(OrchestratorError, match="lost trial 5b"):
        pick(store, SEARCHED + CONFIRMED)
