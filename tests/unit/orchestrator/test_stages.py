import math
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger import Objectives, Proposal, StageLedger, open_storage
from orchestrator.records import Stage, TrialState
from orchestrator.stages import Budget, Search, StageRun
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import Event, Notice, TrialFinished, TrialReported, TrialStarted
from search_spaces.space import Space
from trainables.store import Store, content_key

SPACE = Space.parse({"alpha": {"uniform": [0.0, 1.0]}})
DONE = {"finished": True, "done": True, "summary": {"val_f1_macro": 0.5}}


def planned(name: str, role: str = "search", epochs: int = 2) -> Proposal:
    return Proposal("student", content_key(name), role, {"epochs": epochs}, {"name": name})


def describe(point: Mapping[str, Any]) -> Proposal:
    return Proposal("student", content_key(dict(point)), "search", {"epochs": 2}, point=dict(point))


class Bench:
    """A stage on a real ledger and store, driven by hand as Tune would."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self.events: list[Event] = []
        self.started: list[str] = []

    def ledger(self) -> StageLedger:
        objectives = Objectives({"val_f1_macro": "max"})
        return StageLedger(open_storage(self.url), "s/students/1", Stage.STUDENTS, objectives)

    def run(self, plan: list[Proposal], **options: Any) -> StageRun:
        return StageRun(
            Stage.STUDENTS,
            self.ledger(),
            self.store,
            EventBus([self.events.append]),
            plan,
            name=lambda proposal: str(proposal.params.get("name", "drawn")),
            objective="val_f1_macro",
            **options,
        )

    def work(self, run: StageRun, result: Mapping[str, Any] = DONE, slots: int = 1) -> int:
        """Run what is proposed, ``slots`` at once, and end all with ``result``."""
        count, live = 0, deque[Proposal]()
        while (proposal := run.propose()) is not None:
            count += 1
            self.started.append(str(proposal.params.get("name", "drawn")))
            run.started(proposal.number)
            live.append(proposal)
            if len(live) == slots:
                self.end(run, live.popleft(), result)
        while live:
            self.end(run, live.popleft(), result)
        return count

    @staticmethod
    def end(run: StageRun, proposal: Proposal, result: Mapping[str, Any]) -> None:
        run.ended(proposal.number, {"epoch": 2, "val_f1_macro": 0.5, **result}, None)

    def keep(self, proposal: Proposal, *values: float) -> None:
        """Store the artifact a trial with these epochs leaves behind."""
        history = [{"epoch": n, "val_f1_macro": v} for n, v in enumerate(values, start=1)]
        with self.store.write(proposal.task, proposal.key) as draft:
            draft.meta.update(metrics={"val_f1_macro": max(values, default=0.5)}, history=history)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def states(self) -> list[TrialState]:
        return [record.state for record in self.ledger().records()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def failure(reason: str = "NonFiniteLoss", error: str = "loss is not finite") -> dict[str, Any]:
    return {"status": "failed", "reason": reason, "error": error, "traceback": "T", "epoch": 1}


def test_listed_trials_run_in_order_before_any_is_drawn(bench: Bench) -> None:
    plan = [planned("plain", "control:plain"), planned("default", "default")]
    run = bench.run(plan, search=Search(SPACE, describe, target=3))
    assert run.has_work()
    assert bench.work(run, slots=2) == 4
    assert bench.started == ["plain", "default", "drawn", "drawn"]
    assert run.results() == 4  # controls do not count towards the target
    for proposal in plan:
        bench.keep(proposal)
    assert not bench.run(plan, search=Search(SPACE, describe, target=3)).has_work()


def test_a_larger_target_extends(bench: Bench) -> None:
    assert bench.work(bench.run([], search=Search(SPACE, describe, target=2))) == 2
    assert bench.work(bench.run([], search=Search(SPACE, describe, target=5))) == 3


def test_the_last_report_is_an_epoch_like_the_others(bench: Bench) -> None:
    run = bench.run([planned("a")])
    proposal = run.propose()
    assert proposal is not None
    run.reported(proposal.number, {"epoch": 1, "val_f1_macro": 0.4, "pid": 7, "done": False})
    bench.end(run, proposal, DONE)
    (record,) = bench.ledger().records()
    assert [dict(entry) for entry in record.history] == [
        {"epoch": 1, "val_f1_macro": 0.4},
        {"epoch": 2, "val_f1_macro": 0.5},
    ]
    assert [event.epoch for event in bench.of(TrialReported)] == [1, 2]
    (finished,) = bench.of(TrialFinished)
    assert finished.state is TrialState.COMPLETE
    assert finished.metrics["val_f1_macro"] == 0.5


def test_a_trial_cut_short_is_pruned_with_its_last_report(bench: Bench) -> None:
    run = bench.run([planned("a")])
    proposal = run.propose()
    assert proposal is not None
    run.ended(proposal.number, {"epoch": 1, "val_f1_macro": 0.3, "done": True}, None)
    (record,) = bench.ledger().records()
    assert (record.state, record.metrics["val_f1_macro"]) == (TrialState.PRUNED, 0.3)
    assert bench.ledger().study.trials[0].value == 0.3


def test_a_retried_trial_reports_no_epoch_twice(bench: Bench) -> None:
    run = bench.run([planned("a")])
    proposal = run.propose()
    assert proposal is not None
    for epoch in (1, 1, 2):  # the worker died after epoch 1 and reported it again
        run.started(proposal.number)
        run.reported(proposal.number, {"epoch": epoch, "val_f1_macro": 0.1})
    bench.end(run, proposal, DONE)
    assert [event.epoch for event in bench.of(TrialReported)] == [1, 2]
    assert {event.key for event in bench.of(TrialStarted)} == {proposal.key}


def test_an_artifact_in_the_store_answers_without_work(bench: Bench) -> None:
    proposal = planned("a")
    bench.keep(proposal, 0.2, 0.7)
    run = bench.run([proposal])
    assert not run.has_work()
    assert run.results() == 1
    assert bench.states() == [TrialState.COMPLETE]
    assert bench.of(TrialStarted)[0].tags["cached"] == "true"
    assert [event.epoch for event in bench.of(TrialReported)] == [1, 2]
    assert bench.ledger().study.trials[0].value == 0.7


def test_a_continued_trial_has_the_history_of_its_artifact(bench: Bench) -> None:
    orphan = planned("a")
    dead = bench.run([orphan])
    proposal = dead.propose()
    assert proposal is not None
    dead.reported(proposal.number, {"epoch": 1, "val_f1_macro": 0.2})

    run = bench.run([orphan])
    again = run.propose()
    assert again is not None
    assert again.retry_of == proposal.number
    bench.keep(orphan, 0.2, 0.5)
    bench.end(run, again, DONE)
    record = bench.ledger().records()[-1]
    assert [entry["epoch"] for entry in record.history] == [1, 2]
    assert [event.epoch for event in bench.of(TrialReported)] == [1, 2]
    assert bench.states() == [TrialState.LOST, TrialState.COMPLETE]


def test_a_complete_trial_whose_artifact_is_gone_runs_again(bench: Bench) -> None:
    assert bench.work(bench.run([planned("a")])) == 1
    assert bench.work(bench.run([planned("a")])) == 1


def test_a_failed_trial_keeps_its_traceback_and_is_not_tried_again(bench: Bench) -> None:
    run = bench.run([planned("a"), planned("b")])
    assert bench.work(run, failure()) == 2
    record = bench.ledger().records()[0]
    assert record.state is TrialState.FAILED
    assert record.error == "loss is not finite\n\nT"
    assert run.failures == {"loss is not finite": 2}
    assert not bench.run([planned("a"), planned("b")]).has_work()


def test_an_infrastructure_error_is_grouped_by_its_last_line(bench: Bench) -> None:
    run = bench.run([planned("a")])
    proposal = run.propose()
    assert proposal is not None
    text = "Failure # 1 (occurred at noon)\nTraceback ...\nActorDiedError: the worker died\n"
    run.ended(proposal.number, None, text)
    assert run.failures == {"ActorDiedError: the worker died": 1}
    assert bench.states() == [TrialState.FAILED]


@pytest.mark.parametrize("summary", [{}, {"val_f1_macro": math.nan}])
def test_a_result_without_a_finite_objective_is_a_failure(bench: Bench, summary: Any) -> None:
    bench.work(bench.run([planned("a")]), {**DONE, "summary": summary, "val_f1_macro": math.nan})
    assert bench.states() == [TrialState.FAILED]


def test_a_summary_that_tune_flattened_is_read_all_the_same(bench: Bench) -> None:
    bench.work(bench.run([planned("a")]), {"finished": True, "summary/val_f1_macro": 0.9})
    assert bench.ledger().records()[0].metrics["val_f1_macro"] == 0.9


def test_a_full_disk_ends_the_stage_and_the_trial_is_run_again(bench: Bench) -> None:
    plan = [planned("a"), planned("b")]
    run = bench.run(plan)
    assert bench.work(run, failure("store", "cannot write: no space left")) == 1
    assert run.fatal == "cannot write: no space left"
    assert not run.failures
    assert bench.states() == [TrialState.LOST]
    assert bench.work(bench.run(plan)) == 2


def test_a_drawn_trial_lost_to_a_full_disk_is_run_again(bench: Bench) -> None:
    search = Search(SPACE, describe, target=1)
    bench.work(bench.run([], search=search), failure("store", "no space left"))
    run = bench.run([], search=search)
    proposal = run.propose()
    assert proposal is not None
    assert proposal.key == bench.ledger().records()[0].key


def test_a_number_of_failures_stops_the_stage(bench: Bench) -> None:
    plan = [planned(str(number)) for number in range(9)]
    run = bench.run(plan, budget=Budget(2))
    assert bench.work(run, failure()) == 3
    assert run.over_budget
    again = bench.run(plan, budget=Budget(2))  # nothing changed, so nothing is burnt again
    assert not again.has_work()
    assert again.over_budget
    assert again.failures == {"loss is not finite": 3}
    assert bench.run(plan, budget=Budget(5)).has_work()


@pytest.mark.parametrize(
    ("limit", "failed", "results", "exceeded"),
    [
        (None, 9, 9, False),
        (0, 0, 9, False),
        (0, 1, 1, True),
        (2, 2, 9, False),
        (0.5, 4, 4, False),  # too few trials to speak of a share
        (0.5, 2, 5, False),
        (0.5, 3, 5, True),
    ],
)
def test_the_budget_is_a_number_or_a_share(
    limit: float | None, failed: int, results: int, exceeded: bool
) -> None:
    assert Budget(limit).exceeded(failed, results) is exceeded


def test_end_of_an_unknown_trial_is_ignored(bench: Bench) -> None:
    run = bench.run([planned("a")])
    run.ended(17, dict(DONE, epoch=1), None)
    run.reported(17, {"epoch": 1})
    assert bench.states() == []


def oom(reason: str = "oom") -> dict[str, Any]:
    return failure(reason, "OutOfMemoryError: CUDA out of memory")


def test_what_a_share_of_a_gpu_cannot_hold_is_tried_with_a_larger_one(bench: Bench) -> None:
    run = bench.run([planned("a"), planned("b")])
    run.gpu = 0.5
    assert bench.work(run, oom()) == 2
    assert [event.state for event in bench.of(TrialFinished)] == [TrialState.LOST] * 2
    assert run.grow()
    assert run.has_work()
    run.gpu = 1.0
    assert bench.work(run, oom()) == 2
    assert not run.grow()
    records = [r for r in bench.ledger().records() if r.state.is_result()]
    assert [r.state for r in records] == [TrialState.FAILED] * 2
    assert all((r.error or "").startswith("oom: OutOfMemoryError") for r in records)
    assert run.failures == {"oom: OutOfMemoryError: CUDA out of memory": 2}


@pytest.mark.parametrize("gpu", [0.0, 1.0, 2.0])
def test_memory_that_cannot_grow_is_a_failure(bench: Bench, gpu: float) -> None:
    run = bench.run([planned("a")])
    run.gpu = gpu
    bench.work(run, oom())
    assert not run.grow()
    assert bench.states() == [TrialState.FAILED]


def test_a_trial_that_waits_for_its_larger_share_is_not_replaced(bench: Bench) -> None:
    run = bench.run([], search=Search(SPACE, describe, target=1))
    run.gpu = 0.5
    assert bench.work(run, oom()) == 1
    assert run.grow()
    run.gpu = 1.0
    assert bench.work(run) == 1
    assert run.results() == 1
    assert len({r.key for r in bench.ledger().records()}) == 1


def test_epochs_whose_report_died_with_the_driver_are_told_again(bench: Bench) -> None:
    """The second driver has heard of no epoch; the trial had trained two."""
    run = bench.run([planned("a", epochs=3)])
    proposal = run.propose()
    assert proposal is not None
    earlier = [{"epoch": n, "val_f1_macro": n / 10} for n in (1, 2)]
    run.reported(proposal.number, {"epoch": 3, "val_f1_macro": 0.3, "history": earlier})
    run.ended(proposal.number, {"epoch": 3, "val_f1_macro": 0.3, "done": True}, None)
    events = bench.of(TrialReported)
    assert [(e.epoch, e.metrics["val_f1_macro"], e.again) for e in events] == [
        (1, 0.1, True),
        (2, 0.2, True),
        (3, 0.3, False),
    ]
    (record,) = bench.ledger().records()
    assert [entry["epoch"] for entry in record.history] == [1, 2, 3]


def test_waiting_for_another_sweep_is_said_once(bench: Bench) -> None:
    run = bench.run([planned("a")])
    proposal = run.propose()
    assert proposal is not None
    report = {"epoch": 0, "finished": False, "status": "waiting", "holder": "process 7 on host"}
    run.reported(proposal.number, report)
    run.reported(proposal.number, report)
    (notice,) = bench.of(Notice)
    assert notice.text == "a is being made by process 7 on host, of another sweep; waiting for it"
    assert bench.of(TrialReported) == []
