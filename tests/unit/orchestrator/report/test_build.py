from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import numpy as np
import pytest

from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from orchestrator.report.build import build_report
from orchestrator.report.parts import Verdict

Sweep = Any  # the builder of conftest.py, which cannot be imported


def notes_of(sweep: Sweep, **data: Any) -> str:
    return "\n".join(build_report(sweep.record(**data), sweep.store).notes)


def test_finished_sweep(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    assert report.verdict is Verdict.BEATS
    assert report.sentence.startswith("BEATS: kd T=4 · average · bert beats the same student")
    # (0.90 - 0.80) / (0.94 - 0.80) from the confirm means on test and the better teacher.
    assert report.distillation_ratio == pytest.approx(0.10 / 0.14, abs=1e-9)
    assert report.distillation.teacher_name == "bert"
    assert report.distillation.split == "test"
    plain, other = report.comparisons
    assert plain.interval is not None and other.interval is not None
    assert plain.interval.estimate == pytest.approx(0.10, abs=0.01)
    assert (plain.control, other.control) == ("control:plain", "control:best_teacher")
    assert report.notes == (
        "1 of 7 student trials stopped early; means per method are of the others and therefore "
        "flatter each method.",
        "The candidate's search score was partly luck: 90.0 dev macro F1 there, 89.0 over fresh "
        "seeds.",
    )


def test_candidate_and_control_are_chosen_on_dev(finished: Sweep) -> None:
    """On test the other candidate (0.93) and the other control (0.88) are ahead."""
    report = build_report(finished.record(), finished.store)
    assert report.chosen is not None and report.best is not None
    assert (report.chosen.group, report.chosen.params) == (report.best.key, report.best.params)
    assert report.confirm[0].metrics["test_f1_macro"].mean == pytest.approx(0.90)
    assert report.comparisons[1].control == "control:best_teacher"


def test_json_has_the_shape_of_the_design(finished: Sweep) -> None:
    document = build_report(finished.record(), finished.store).to_json()
    document = json.loads(json.dumps(document, allow_nan=False))
    assert document["sweep"] == "news"
    assert document["verdict"] == "BEATS"
    assert document["distillation_ratio"] == pytest.approx(0.10 / 0.14, abs=1e-9)
    assert [row["name"] for row in document["teachers"]] == ["bert", "weak"]
    assert [row["role"] for row in document["controls"]] == [
        "control:plain",
        "control:best_teacher",
        "control:average",
    ]
    assert [row["state"] for row in document["students"]] == ["complete"] * 3 + ["pruned"]
    for row in document["students"]:
        assert {"key", "state", "params", "metrics"} <= set(row)
    assert document["best"]["metrics"]["val_f1_macro"] == 0.90
    assert len(document["confirm"]) == 5
    assert document["classes"] == ["sport", "money", "world"]


def test_classes_agreement_and_confusion(finished: Sweep) -> None:
    found = build_report(finished.record(), finished.store).diagnosis
    assert found.split == "test"
    assert [row.support for row in found.classes] == [200, 200, 200]
    matrix = np.array(found.confusion_candidate)
    assert matrix.sum() == pytest.approx(600)
    assert np.trace(matrix) == pytest.approx(540)
    rows = {row.model: row for row in found.fidelity}
    # One-hot logits of height 4 have confidence e^4 / (e^4 + 2) = 0.964663; 0.90 are right.
    assert rows["candidate"].ece == pytest.approx(0.964663 - 0.90, abs=1e-6)
    assert set(rows) == {
        "candidate",
        "control:plain",
        "control:best_teacher",
        "teacher:bert",
        "teacher:weak",
    }
    assert 0.80 <= rows["candidate"].agreement["bert"] <= 0.90


def test_suspects_are_dev_examples_that_every_teacher_gets_wrong(finished: Sweep) -> None:
    found = build_report(finished.record(), finished.store).diagnosis
    assert 0 < found.n_suspects <= 30  # bert has 5 % of 600 wrong
    assert set(found.suspects) <= set(finished.ids.tolist())


def test_cost(finished: Sweep) -> None:
    cost = build_report(finished.record(), finished.store).cost
    # Two teachers (100 s and 0 s), six outputs of 10 s, seven students and fifteen confirms of 5 s.
    assert cost.stages == {"teachers": 100.0, "outputs": 60.0, "students": 35.0, "confirm": 75.0}
    assert cost.teachers_reused == 100.0
    assert cost.gpu_seconds is None
    # Teacher epochs seen by students: bert 2+2+2+2+2+1 = 11, weak 2+2 = 4, at 10 s, less 20 spent.
    assert cost.teacher_forwards_saved == 130.0


def test_methods_and_ranks(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    kd = next(row for row in report.per_method if row.method == "kd + average")
    assert kd.score is not None
    assert (kd.score.mean, kd.best) == (pytest.approx(0.87), 0.90)
    assert (kd.complete, kd.pruned, kd.failed) == (3, 1, 0)
    assert [row.rank for row in report.ranked()] == [1, 2, 3, 4, 5, 6, None]
    assert [row.metrics["val_f1_macro"] for row in report.ranked() if row.pareto] == [0.90, 0.86]


def test_without_confirm_nothing_is_claimed(sweep: Sweep) -> None:
    sweep.teacher("bert", 0.95)
    sweep.student("control:plain", 0.60, predictions=True)
    sweep.student("search", 0.90, predictions=True)
    report = build_report(sweep.record(), sweep.store)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "only 3 seeds or more can decide" in report.sentence
    # (0.90 - 0.60) / (0.95 - 0.60) on dev.
    assert report.distillation_ratio == pytest.approx(0.30 / 0.35)
    assert "No candidate has been confirmed" in report.notes[0]


def test_empty_sweep(sweep: Sweep) -> None:
    report = build_report(sweep.record(), sweep.store)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.best is None
    assert report.distillation.reason == "no distilled student is complete"
    json.dumps(report.to_json(), allow_nan=False)


def test_no_test_split_is_said_plainly(sweep: Sweep) -> None:
    sweep.teacher("bert", 0.95)
    sweep.student("search", 0.90)
    for role, accuracy in (("candidate", 0.90), ("control:plain", 0.80)):
        wrong = np.arange(600) < 600 * (1 - accuracy)
        predictions = np.where(wrong, (sweep.targets + 1) % 3, sweep.targets)
        for seed in range(3):
            metrics = {"val_f1_macro": accuracy}
            key = sweep.add(Stage.CONFIRM, role, {}, metrics, group=role, seed=seed)
            with sweep.store.write("confirm", key) as draft:
                draft.meta["student"] = f"{role[:4]}-{seed}"
            sweep.save("student", f"{role[:4]}-{seed}", "dev.safetensors", predictions, True)
    report = build_report(sweep.record(), sweep.store)
    assert report.verdict is Verdict.BEATS
    assert "points of dev macro F1" in report.sentence
    assert report.distillation_ratio == pytest.approx(0.10 / 0.15)
    assert any("no test split" in note for note in report.notes)


def test_missing_and_damaged_predictions_become_notes(finished: Sweep) -> None:
    keys = [t.key for t in finished.trials if t.group == "g-plain"]
    finished.store.delete("confirm", keys[0])
    (finished.store.path("confirm", keys[1]) / "predictions.safetensors").write_bytes(b"torn")
    report = build_report(finished.record(), finished.store)
    assert any(
        "control:plain seed 0 (test), control:plain seed 1 (test)" in n for n in report.notes
    )
    # One seed is left, and one seed decides nothing.
    assert report.verdict is Verdict.INCONCLUSIVE


def test_teacher_no_better_than_the_plain_student(sweep: Sweep) -> None:
    sweep.teacher("bert", 0.80)
    sweep.student("control:plain", 0.80)
    sweep.student("search", 0.82)
    report = build_report(sweep.record(), sweep.store)
    assert report.distillation_ratio is None
    assert report.distillation.reason == (
        "the best teacher bert (80.0) is not better than the plain student (80.0): there is no "
        "advantage to keep"
    )
    assert "No distillation ratio: the best teacher bert" in "\n".join(report.notes)


def test_floor_and_majority_notes(sweep: Sweep) -> None:
    sweep.teacher("bert", 0.70)
    sweep.student("control:plain", 0.60)
    sweep.student("search", 0.65)
    text = notes_of(sweep, tfidf={"val_f1_macro": 0.75}, majority=0.66)
    assert "The student is below the TF-IDF floor: 65.0 against 75.0 dev macro F1." in text
    assert "Teacher bert (70.0) is below the TF-IDF floor (75.0)" in text
    assert "not above that of always answering the biggest class (66.0)" in text


def test_control_ahead_of_the_search(sweep: Sweep) -> None:
    sweep.student("control:average", 0.90)
    sweep.student("search", 0.85)
    text = notes_of(sweep)
    assert "the plain average of the teachers is ahead of everything the search found" in text


def test_failed_and_unfinished_trials_are_counted(sweep: Sweep) -> None:
    sweep.teacher("bert", 0.9)
    sweep.student("search", 0.8, state=TrialState.FAILED)
    sweep.student("search", 0.8, state=TrialState.RUNNING)
    sweep.student("search", 0.8, state=TrialState.DUPLICATE)
    text = notes_of(sweep)
    assert "1 of 2 student trials failed." in text
    assert "1 of 2 student trials have not finished" in text


def test_lost_attempts_are_not_rows(sweep: Sweep) -> None:
    key = sweep.student("search", 0.8)
    lost = dataclasses.replace(sweep.trials[0], state=TrialState.LOST)
    running = dataclasses.replace(sweep.trials[0], state=TrialState.RUNNING)
    sweep.trials = [lost, *sweep.trials, running]
    report = build_report(sweep.record(), sweep.store)
    assert [(row.key, row.state) for row in report.students] == [(key, TrialState.COMPLETE)]


def test_nan_scores_are_not_ranked_and_do_not_break_json(sweep: Sweep) -> None:
    sweep.student("search", float("nan"))
    sweep.student("search", 0.5)
    report = build_report(sweep.record(), sweep.store)
    assert [row.rank for row in report.students] == [None, 1]
    document = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(document)["students"][0]["metrics"]["val_f1_macro"] is None


def test_minimised_objective(sweep: Sweep) -> None:
    sweep.teacher("bert", 0.9)
    keys = [sweep.student("search", dev) for dev in (0.7, 0.6)]
    trials = tuple(
        dataclasses.replace(trial, metrics={**trial.metrics, "val_loss": loss})
        if trial.stage is Stage.STUDENTS
        else trial
        for trial, loss in zip(sweep.trials, [0.0, 0.0, 0.0, 1.5, 0.9], strict=True)
    )
    record = dataclasses.replace(sweep.record(), trials=trials, objective=("val_loss", "min"))
    report = build_report(record, sweep.store)
    assert report.best is not None
    assert report.best.key == keys[1]
    assert report.distillation.metric == "f1_macro"


def test_two_thousand_trials_stay_cheap(sweep: Sweep) -> None:
    rng = np.random.default_rng(0)
    trials = [
        TrialRecord(
            Stage.STUDENTS,
            f"{index:064x}",
            TrialState.COMPLETE,
            "search",
            params={"loss": "kd", "loss.temperature": float(index)},
            metrics={
                "val_f1_macro": float(rng.random()),
                "parameters": float(rng.integers(1, 10**7)),
                "model_bytes": float(rng.integers(1, 10**7)),
            },
            history=({"epoch": 1.0, "val_f1_macro": 0.5},) * 5,
        )
        for index in range(2000)
    ]
    record = SweepRecord("big", {}, tuple(trials), {"classes": ["a", "b"]})
    started = time.process_time()
    report = build_report(record, sweep.store)
    json.dumps(report.to_json())
    assert time.process_time() - started < 10.0  # a fifth of a second, unless quadratic
    assert len(report.students) == 2000
