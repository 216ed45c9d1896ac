from orchestrator.records import Stage, TrialState
from orchestrator.tracking.events import (
    ArtifactLogged,
    Event,
    Notice,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.outbox import Entry
from orchestrator.tracking.runs import (
    MAX_PARAM,
    MAX_TAG,
    Point,
    RunKey,
    RunUpdate,
    batches,
    flatten,
    grouped,
    merge,
)
from orchestrator.tracking.translator import Translator

S = Stage.STUDENTS


def translate(*events: Event) -> list[RunUpdate]:
    translator = Translator()
    parts = [translator.translate(Entry(n, n, event)) for n, event in enumerate(events)]
    return [part for part in parts if part is not None]


def test_a_trial_becomes_a_run_named_by_sweep_stage_and_key() -> None:
    _, start, report, end = translate(
        SweepStarted("news", time_ms=1),
        TrialStarted(S, "k", "kd T=3", {"loss": "kd"}, {"git_sha": "abc"}, time_ms=2),
        TrialReported(S, "k", 1, {"val_loss": 0.5}, time_ms=3),
        TrialFinished(S, "k", TrialState.COMPLETE, {"parameters": 9.0}, time_ms=4),
    )
    assert start.run == report.run == end.run == RunKey("news", "students", "k")
    assert start.run.parent == RunKey("news", "sweep", "news")
    assert (start.name, start.start_ms, start.status) == ("kd T=3", 2, "RUNNING")
    assert start.params == {"loss": "kd"}
    expected = {"sweep": "news", "stage": "students", "trial_key": "k", "attempt": "1"}
    assert expected.items() <= start.tags.items()
    assert start.tags["mlflow.source.git.commit"] == "abc"
    assert report.metrics == [Point("val_loss", 0.5, 3, 1)]
    assert end.metrics == [Point("parameters", 9.0, 4, 0)]
    assert (end.status, end.end_ms, end.tags) == ("FINISHED", 4, {"state": "complete"})


def test_an_epoch_reported_again_after_a_restart_is_not_sent_again() -> None:
    parts = translate(
        SweepStarted("news"),
        TrialStarted(S, "k", "a"),
        TrialReported(S, "k", 1, {"val_loss": 0.5}, time_ms=1),
        TrialReported(S, "k", 2, {"val_loss": 0.4}, time_ms=2),
        TrialStarted(S, "k", "a"),
        TrialReported(S, "k", 2, {"val_loss": 0.4}, time_ms=5),
        TrialReported(S, "k", 3, {"val_loss": 0.3}, time_ms=6),
    )
    points = [(p.step, p.time_ms) for part in parts for p in part.metrics]
    assert points == [(1, 1), (2, 2), (3, 6)]
    assert [part.tags.get("attempt") for part in parts if part.name == "a"] == ["1", "2"]


def test_an_epoch_whose_report_was_lost_is_sent_when_it_is_told_again() -> None:
    history = [TrialReported(S, "k", n, {"val_loss": n / 10}, True, time_ms=9) for n in (1, 2, 3)]
    parts = translate(
        SweepStarted("news"),
        TrialStarted(S, "k", "a"),
        TrialReported(S, "k", 1, {"val_loss": 0.1}, time_ms=1),
        TrialReported(S, "k", 3, {"val_loss": 0.3}, time_ms=3),
        TrialStarted(S, "k", "a"),
        *history,
    )
    points = [(p.step, p.time_ms) for part in parts for p in part.metrics]
    assert points == [(1, 1), (3, 3), (2, 9)]


def test_killed_between_the_last_report_and_the_end_every_step_is_there_once() -> None:
    """The next driver finds the artifact and answers the trial from it, epoch by epoch."""
    told = [TrialReported(S, "k", n, {"val_loss": n / 10}, time_ms=n) for n in (1, 2)]
    again = [TrialReported(S, "k", n, {"val_loss": n / 10}, True, time_ms=10 + n) for n in (1, 2)]
    parts = translate(
        SweepStarted("news"),
        TrialStarted(S, "k", "a"),
        *told,
        SweepStarted("news"),
        TrialStarted(S, "k", "a", {}, {"cached": "true"}),
        *again,
        TrialFinished(S, "k", TrialState.COMPLETE, {"val_loss": 0.2}, time_ms=20),
    )
    points = [(p.name, p.step) for part in parts for p in part.metrics]
    assert points == [("val_loss", 1), ("val_loss", 2), ("kept_val_loss", 0)]


def test_once_per_run_metrics_are_sent_once_and_kept_epochs_have_their_own_name() -> None:
    _, first, second = translate(
        SweepStarted("news"),
        TrialFinished(S, "k", TrialState.COMPLETE, {"parameters": 9.0, "val_f1_macro": 0.7}),
        TrialFinished(S, "k", TrialState.COMPLETE, {"parameters": 9.0, "gpu_seconds": 1.0}),
    )
    assert {p.name for p in first.metrics} == {"parameters", "kept_val_f1_macro"}
    assert {p.name for p in second.metrics} == {"gpu_seconds"}


def test_a_second_session_of_the_sweep_is_another_attempt_and_step() -> None:
    parts = translate(
        SweepStarted("news"),
        SweepFinished(TrialState.LOST, {"trials": 3.0}),
        SweepStarted("news"),
        SweepFinished(TrialState.COMPLETE, {"trials": 6.0}),
    )
    assert [part.status for part in parts] == ["RUNNING", "KILLED", "RUNNING", "FINISHED"]
    assert [p.step for part in parts for p in part.metrics] == [0, 1]
    assert [parts[0].tags["attempt"], parts[2].tags["attempt"]] == ["1", "2"]
    assert all(part.ends_orphans for part in parts)


def test_what_mlflow_need_not_know() -> None:
    before_any_sweep = translate(TrialStarted(S, "k", "a"))
    assert before_any_sweep == []
    parts = translate(
        SweepStarted("news"),
        Notice("info", "hello"),
        TrialFinished(S, "k", TrialState.DUPLICATE),
    )
    assert len(parts) == 1


def test_states_and_errors() -> None:
    parts = translate(
        SweepStarted("news"),
        TrialStarted(S, "k", "a"),
        TrialFinished(S, "k", TrialState.FAILED, error="boom" * 9000),
        TrialStarted(S, "k", "a"),
        TrialFinished(S, "k", TrialState.PRUNED),
        TrialFinished(S, "j", TrialState.LOST),
    )
    failed, again, pruned, lost = parts[2:]
    assert failed.status == "FAILED"
    assert len(failed.tags["error"]) == MAX_TAG
    assert again.tags["error"] == ""
    assert (pruned.status, pruned.tags["state"]) == ("FINISHED", "pruned")
    assert lost.status == "KILLED"


def test_events_of_one_run_are_coalesced_between_barriers() -> None:
    parts = translate(
        SweepStarted("news"),
        TrialStarted(S, "a", "a", {"x": 1}),
        TrialStarted(S, "b", "b"),
        TrialReported(S, "a", 1, {"m": 1.0}),
        TrialReported(S, "b", 1, {"m": 1.0}),
        TrialReported(S, "a", 2, {"m": 2.0}),
        TrialFinished(S, "a", TrialState.COMPLETE, time_ms=9),
        ArtifactLogged("r.html", text="x"),
        SweepFinished(TrialState.COMPLETE),
    )
    groups = list(grouped(parts))
    assert [(g[0].run.key, len(g)) for g in groups] == [
        ("news", 1),
        ("a", 4),
        ("b", 2),
        ("news", 1),
        ("news", 1),
    ]
    whole = merge(groups[1])
    assert whole.name == "a"
    assert whole.params == {"x": "1"}
    assert [p.step for p in whole.metrics] == [1, 2]
    assert (whole.status, whole.end_ms, whole.tags["state"]) == ("FINISHED", 9, "complete")
    assert len(whole.entries) == 4
    assert len(parts[1].entries) == 1, "merging must not change its parts"


def test_flatten() -> None:
    nested = {"loss": {"name": "kd", "temperature": 3.0}, "k": [2, 3], "seed": None, "e": {}}
    assert flatten(nested) == {
        "loss.name": "kd",
        "loss.temperature": "3.0",
        "k": "[2, 3]",
        "seed": "null",
        "e": "{}",
    }
    assert len(flatten({"a": "x" * 9000})["a"]) == MAX_PARAM


def test_batches_hold_at_most_a_thousand_items_and_a_hundred_params_or_tags() -> None:
    points = [Point("m", 0.0, 1, step) for step in range(2500)]
    params = {f"p{n}": "x" for n in range(250)}
    tags = {f"t{n}": "x" for n in range(120)}
    cut = list(batches(points, params, tags))
    assert [tuple(map(len, batch)) for batch in cut] == [
        (800, 100, 100),
        (880, 100, 20),
        (820, 50, 0),
    ]
    assert [point for batch in cut for point in batch[0]] == points
    assert list(batches([], {}, {})) == []
