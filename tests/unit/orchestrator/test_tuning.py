"""Real Ray, stand-in training: what Tune does with trials, on one cluster for all tests."""

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ray import cloudpickle

from orchestrator import tuning
from orchestrator.ledger import Objectives, Proposal, StageLedger, open_storage
from orchestrator.records import Stage, TrialState
from orchestrator.stages import StageRun
from orchestrator.tracking import EventBus
from orchestrator.tuning import EarlyStopping, StopFlag, run_trials, stop_on_signals
from trainables.checkpoint import Checkpoint
from trainables.errors import NonFiniteLoss
from trainables.store import Store, content_key
from trainables.tune import Trial

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]
ONE_CPU = {"cpu": 1.0, "gpu": 0.0}
ASHA = EarlyStopping("val_f1_macro", "max", max_epochs=4, grace_epochs=1, reduction=2)


def stand_in(task: str, spec: Mapping[str, Any], store: Store) -> Iterator[dict[str, Any]]:
    """Report ``spec["values"]`` epoch by epoch, with the accidents that the spec asks for."""
    checkpoint = Checkpoint(store.root, content_key(dict(spec)))
    done = (checkpoint.load() or {"epoch": 0})["epoch"]
    folder = store.root / "marks"
    folder.mkdir(parents=True, exist_ok=True)
    if crowd := spec.get("crowd"):
        (folder / f"{spec['name']}").touch()
        deadline = time.monotonic() + 150
        while len(list(folder.iterdir())) < crowd and time.monotonic() < deadline:
            time.sleep(0.05)
    values = spec["values"]
    for epoch, value in enumerate(values[done:], start=done + 1):
        if spec.get("dies_in") == epoch and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if spec.get("diverges_in") == epoch:
            raise NonFiniteLoss("the training loss is not finite in epoch 1")
        if spec.get("loses_disk_in") == epoch:
            raise OSError("the shared disk went away")
        checkpoint.save({"epoch": epoch})
        last = epoch == len(values)
        report = {"epoch": epoch, "val_f1_macro": value, "finished": last}
        yield {**report, "summary": {"val_f1_macro": value}} if last else report


class StandIn(Trial):  # type: ignore[misc]
    """The real adapter over stand-in training."""

    def _start(self, config: dict[str, Any]) -> None:
        from trainables import tune as adapter

        adapter.run_task = stand_in
        super()._start(config)


class Recorder:
    """A driver that proposes a list of specs and writes down what it hears."""

    def __init__(self, specs: Sequence[Mapping[str, Any]]) -> None:
        self._left = [
            Proposal("student", "0" * 64, spec.get("role", "search"), spec, number=number)
            for number, spec in enumerate(specs)
        ]
        self.starts: defaultdict[int, int] = defaultdict(int)
        self.epochs: defaultdict[int, list[int]] = defaultdict(list)
        self.workers: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        self.ends: dict[int, tuple[dict[str, Any], str | None]] = {}
        self.stop_after = StopFlag(), -1
        self.away = 0  # how often it has nothing to propose yet

    def propose(self) -> Proposal | None:
        self.away -= 1
        return self._left.pop(0) if self._left and self.away <= 0 else None

    def waiting(self) -> bool:
        return self.away > 0

    def started(self, number: int) -> None:
        self.starts[number] += 1

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        self.epochs[number].append(report["epoch"])
        self.workers[number].append({k: report.get(f"worker/{k}") for k in ("pid", "gpus")})
        flag, epoch = self.stop_after
        if report["epoch"] == epoch:
            flag.set()

    def ended(self, number: int, report: Mapping[str, Any] | None, error: str | None) -> None:
        if report is not None:
            self.reported(number, report)
        self.ends[number] = dict(report or {}), error


@pytest.fixture(autouse=True)
def stand_in_training(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    monkeypatch.setattr(tuning, "Trial", StandIn)
    yield
    cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture
def run(ray_cluster: Any, tmp_path: Path) -> Any:
    def start(specs: Sequence[Mapping[str, Any]], **options: Any) -> Recorder:
        driver = Recorder(specs)
        settings: dict[str, Any] = {"resources": ONE_CPU, "slots": 1, "stop": StopFlag()}
        settings |= options
        driver.stop_after = settings["stop"], settings.pop("stop_after", -1)
        run_trials(driver, store=tmp_path / "store", **settings)
        return driver

    return start


def test_the_weak_are_stopped_controls_are_not_and_the_process_is_reused(run: Any) -> None:
    driver = run(
        [
            {"values": [0.9, 0.9, 0.9, 0.9]},
            {"values": [0.1, 0.9, 0.9, 0.9]},
            {"values": [0.05, 0.05, 0.05, 0.05], "role": "control:plain"},
            {"values": [0.9], "diverges_in": 1},
            {"values": [0.95, 0.95, 0.95, 0.95]},
        ],
        early_stopping=ASHA,
    )
    assert driver.epochs[0] == [1, 2, 3, 4]
    assert driver.epochs[1] == [1]  # the report that stopped it is heard, too
    assert driver.epochs[2] == [1, 2, 3, 4]
    assert driver.epochs[4] == [1, 2, 3, 4]
    finished = {number: bool(end[0].get("finished")) for number, end in driver.ends.items()}
    assert finished == {0: True, 1: False, 2: True, 3: False, 4: True}
    # A failed trial has no metric, which must not end the sweep, and is not tried again.
    assert driver.ends[3][0]["reason"] == "NonFiniteLoss"
    assert driver.starts[3] == 1
    assert len({worker["pid"] for heard in driver.workers.values() for worker in heard}) == 1


def test_rungs_of_an_earlier_driver_are_replayed(run: Any) -> None:
    past = [[(1, 0.9), (2, 0.9), (3, 0.9), (4, 0.9)]]
    early = EarlyStopping("val_f1_macro", "max", 4, grace_epochs=1, reduction=2, past=past)
    driver = run([{"values": [0.5] * 4}], early_stopping=early)
    assert driver.epochs[0] == [1]


def test_smaller_is_better_if_the_mode_says_so(run: Any) -> None:
    early = EarlyStopping("val_f1_macro", "min", 4, grace_epochs=1, reduction=2)
    driver = run([{"values": [0.2] * 4}, {"values": [0.5] * 4}], early_stopping=early)
    assert [len(driver.epochs[number]) for number in (0, 1)] == [4, 1]


@pytest.mark.parametrize("early", [None, ASHA])
def test_a_stop_ends_trials_at_their_next_report(run: Any, early: EarlyStopping | None) -> None:
    specs = [{"values": [0.9] * 4}, {"values": [0.9] * 4}]
    driver = run(specs, stop_after=2, early_stopping=early)
    assert driver.epochs[0] == [1, 2, 3]
    assert driver.ends == {}  # it has no outcome: the next driver continues it
    assert driver.starts[1] == 0


def test_a_stop_leaves_the_trial_running_in_the_ledger(ray_cluster: Any, tmp_path: Path) -> None:
    stop = StopFlag()
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    plan = [Proposal("student", content_key("a"), "search", {"values": [0.1, 0.2, 0.3]})]

    def stage() -> StageRun:
        ledger = StageLedger(
            open_storage(url), "s", Stage.STUDENTS, Objectives({"val_f1_macro": "max"})
        )
        bus = EventBus([lambda event: stop.set() if getattr(event, "epoch", 0) == 1 else None])
        store = Store(tmp_path / "store")
        return StageRun(Stage.STUDENTS, ledger, store, bus, plan, name=lambda proposal: "a")

    options: dict[str, Any] = {"store": tmp_path / "store", "resources": ONE_CPU, "slots": 1}
    first = stage()
    run_trials(first, stop=stop, **options)
    states = [record.state for record in first._ledger.records()]
    assert states == [TrialState.RUNNING]

    second = stage()
    run_trials(second, stop=StopFlag(), **options)
    records = second._ledger.records()
    assert [record.state for record in records] == [TrialState.LOST, TrialState.COMPLETE]
    assert [entry["epoch"] for entry in records[1].history] == [3]  # 1 and 2 were kept


def test_a_killed_worker_is_replaced_and_continues_from_its_checkpoint(run: Any) -> None:
    driver = run([{"values": [0.1, 0.2, 0.3], "dies_in": 3}])
    assert driver.epochs[0] == [1, 2, 3]
    assert driver.starts[0] == 2
    assert driver.ends[0][0]["finished"]
    assert len({worker["pid"] for worker in driver.workers[0]}) == 2


def test_an_error_that_may_pass_is_tried_again_and_then_told(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MAX_INFRASTRUCTURE_FAILURES", 1)
    driver = run([{"values": [0.1], "loses_disk_in": 1}, {"values": [0.2]}])
    report, error = driver.ends[0]
    assert report == {}
    assert error is not None
    assert "the shared disk went away" in error
    assert driver.starts[0] == 2
    assert driver.ends[1][0]["finished"]


def test_eight_students_share_two_gpus_at_once(run: Any) -> None:
    specs = [{"values": [0.5], "name": f"s{number}", "crowd": 8} for number in range(8)]
    started = time.monotonic()
    driver = run(specs, resources={"cpu": 0.25, "gpu": 0.25}, slots=8)
    # Each waits until all eight are there, so none would end in time if one had to queue.
    assert time.monotonic() - started < 150
    gpus = sorted(driver.workers[number][0]["gpus"] for number in range(8))
    assert gpus == ["0"] * 4 + ["1"] * 4
    assert len({driver.workers[number][0]["pid"] for number in range(8)}) == 8


def test_a_trial_without_a_gpu_sees_none(run: Any) -> None:
    assert run([{"values": [0.5]}]).workers[0][0]["gpus"] == ""


def test_the_token_of_local_clusters_is_private(ray_cluster: Any) -> None:
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    assert token.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_a_second_one_insists(number: int) -> None:
    before = signal.getsignal(signal.SIGTERM)
    flag = StopFlag()
    with pytest.raises(KeyboardInterrupt), stop_on_signals(flag, grace_seconds=60):
        os.kill(os.getpid(), number)
        assert flag
        os.kill(os.getpid(), number)
        pytest.fail("the second signal was ignored")
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_stop_that_takes_too_long_is_an_interrupt() -> None:
    flag = StopFlag()
    with pytest.raises(KeyboardInterrupt), stop_on_signals(flag, grace_seconds=0.1):
        os.kill(os.getpid(), signal.SIGINT)
        assert flag
        time.sleep(30)


def test_ray_does_not_keep_the_handler_of_sigterm(ray_cluster: Any) -> None:
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_trials_that_are_proposed_later_are_waited_for(ray_cluster: Any, tmp_path: Path) -> None:
    driver = Recorder([{"values": [0.1, 0.2]}])
    driver.away = 3
    run_trials(driver, store=tmp_path / "store", resources=ONE_CPU, slots=1, stop=StopFlag())
    assert driver.epochs[0] == [1, 2]


def test_a_stop_ends_the_wait_for_proposals(tmp_path: Path) -> None:
    driver, stop = Recorder([]), StopFlag()
    driver.away = 9
    search = tuning.LedgerSearch(driver, tmp_path, stop)
    assert search.suggest("a") is None
    stop.set()
    assert search.suggest("b") == tuning.Searcher.FINISHED


def test_tune_forgets_the_trials_that_have_ended(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[tuple[int, ...]] = []

    def watched(controller: Any) -> None:
        tuning_forgets(controller, kept=2)
        its = controller._tune_controller
        held.append(tuple(map(len, (its._trials, its._trial_metadata, its._stopped_trials))))

    tuning_forgets = tuning.forget_finished
    monkeypatch.setattr(tuning, "forget_finished", watched)
    driver = run([{"values": [0.1, 0.2], "name": str(number)} for number in range(15)])
    assert [bool(driver.ends[number][0]["finished"]) for number in range(15)] == [True] * 15
    assert len({worker["pid"] for epochs in driver.workers.values() for worker in epochs}) == 1
    assert all(most <= 6 for most in map(max, zip(*held, strict=True)))
