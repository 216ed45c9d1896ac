"""Ray Tune at arm's length: run the trials a driver proposes and tell it what they report.

The only module that builds a ``ray.tune.Tuner``. Every stage gets a fresh one, which forgets its
trials as they end; nothing is ever restored from Tune's own files, because they lag behind the
ledger and cannot be trusted after a crash. The driver proposes a trial, hears its epochs and its
end, and decides nothing here.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, Protocol

from orchestrator import cluster  # sets the environment Ray reads on import

# isort: split
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.ledger import Proposal
from orchestrator.leftovers import scratch_folder
from orchestrator.slim import forget_finished
from trainables.tune import Trial

MAX_INFRASTRUCTURE_FAILURES = 3


class Driver(Protocol):
    """Proposes the trials of a stage and hears about them. No method may raise for a trial."""

    def propose(self) -> Proposal | None:
        """Return the next trial to run, or None when there is none left, or none yet."""

    def waiting(self) -> bool:
        """Tell whether that None meant that there is none yet."""

    def started(self, number: int) -> None:
        """Hear that a trial's process has begun to work."""

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """Hear of an epoch."""

    def ended(self, number: int, report: Mapping[str, Any] | None, error: str | None) -> None:
        """Hear of a trial's last report, or of the error that no retry could mend."""


@dataclass(frozen=True)
class EarlyStopping:
    """ASHA on the number of epochs.

    Attributes:
        metric: The leading objective.
        mode: ``max`` or ``min``.
        max_epochs: The most epochs any trial has.
        grace_epochs: No trial is stopped before.
        reduction: One in this many goes on at each rung.
        past: Histories of earlier trials, ``(epoch, value)`` each: a driver started again must
            not be kinder to the weak than the one before.
    """

    metric: str
    mode: str
    max_epochs: int
    grace_epochs: int = 1
    reduction: int = 3
    past: Sequence[Sequence[tuple[int, float]]] = ()


class StopFlag:
    """Set when the sweep should stop: no new trials, running ones end at their next report."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Ask for a stop."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


@contextmanager
def stop_on_signals(flag: StopFlag, grace_seconds: float) -> Iterator[None]:
    """Let SIGINT and SIGTERM set the flag; a second one, or the end of the grace, interrupts.

    Ray handles SIGTERM by exiting at once, and ``ray job stop`` and ``docker stop`` send it.
    """

    def ask(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        if flag:
            raise KeyboardInterrupt
        flag.set()
        signal.setitimer(signal.ITIMER_REAL, grace_seconds)

    def give_up(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    handlers = {signal.SIGINT: ask, signal.SIGTERM: ask, signal.SIGALRM: give_up}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_trials(
    driver: Driver,
    *,
    store: Path | str,
    resources: Mapping[str, float],
    slots: int,
    stop: StopFlag,
    early_stopping: EarlyStopping | None = None,
) -> None:
    """Run what the driver proposes until it proposes nothing more or ``stop`` is set.

    Args:
        driver: Proposes and listens.
        store: Root of the content store, a folder that every node sees, or its URL.
        resources: ``cpu`` and ``gpu`` of each trial.
        slots: How many trials run side by side.
        stop: Checked at each report.
        early_stopping: Stops weak trials, or None.
    """
    scratch = scratch_folder()
    try:
        tuner = tune.Tuner(
            tune.with_resources(Trial, {name: n for name, n in resources.items() if n}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearch(driver, store, stop),
                scheduler=_scheduler(stop, early_stopping),
                num_samples=-1,
                max_concurrent_trials=slots,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="stage",
                storage_path=str(scratch),
                callbacks=[_Listener(driver), _NoProgress()],
                failure_config=tune.FailureConfig(max_failures=MAX_INFRASTRUCTURE_FAILURES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
            ),
        )
        with cluster.survive_memory_monitor():
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class LedgerSearch(Searcher):  # type: ignore[misc]
    """Asks the driver for trials and tells it how they end; keeps no state of its own."""

    def __init__(self, driver: Driver, store: Path | str, stop: StopFlag) -> None:
        super().__init__()
        self._driver = driver
        self._store = str(store)
        self._stop = stop
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial, None for "ask again", or that there is none."""
        proposal = None if self._stop else self._driver.propose()
        if proposal is None:
            # Tune asks again at each step, and once a second when nothing runs.
            return None if self._driver.waiting() and not self._stop else Searcher.FINISHED
        self._numbers[trial_id] = proposal.number
        return {
            "task": proposal.task,
            "spec": dict(proposal.spec),
            "store": self._store,
            "number": proposal.number,
            "exempt": proposal.role.startswith("control"),
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass an epoch on."""
        self._driver.reported(self._numbers[trial_id], result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Pass the end on; errors come with their text through the callback.

        The last report of a trial is not given to ``on_trial_result``, so it is passed on here.
        """
        number = self._numbers.pop(trial_id)
        report = result or {}
        # Tune sets "done" on whatever it stops, so only the trial's own words count. One that was
        # stopped because the sweep stops has no outcome: the next driver continues it.
        own_end = report.get("finished") or report.get("status") == "failed"
        if error:
            return
        if own_end or not self._stop:
            self._driver.ended(number, report, None)
        elif report:
            self._driver.reported(number, report)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing: the ledger is the state."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave the driver out: Tune pickles its searcher, and the driver knows database URLs."""
        return {"_store": self._store}


class _Listener(tune.Callback):  # type: ignore[misc]
    """Hears what Tune tells callbacks only: the start of a trial and the text of an error."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._driver.started(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        try:
            # trial.get_error() looks where Tune copies the file to, which it does later.
            error = Path(trial.error_file).read_text(encoding="utf-8")
        except (TypeError, OSError):
            error = "the trial's process died"
        self._driver.ended(trial.config["number"], None, error)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _NoProgress(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of Tune's own progress lines, which keep every trial for ever."""

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print nothing."""

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print nothing."""


def _scheduler(stop: StopFlag, asha: EarlyStopping | None) -> TrialScheduler:
    if asha is None or asha.max_epochs <= asha.grace_epochs:
        return _RunAll(stop)
    return _StopWeak(stop, asha)


class _RunAll(FIFOScheduler):  # type: ignore[misc]
    """Runs every trial to its end, unless the sweep is to stop."""

    def __init__(self, stop: StopFlag) -> None:
        super().__init__()
        self._stop = stop

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = TrialScheduler.STOP if self._stop else TrialScheduler.CONTINUE
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Choose as Tune does, which looks at all trials there are: keep them few."""
        forget_finished(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StopWeak(ASHAScheduler):  # type: ignore[misc]
    """ASHA that leaves controls alone: they are the yardstick and must be whole."""

    def __init__(self, stop: StopFlag, asha: EarlyStopping) -> None:
        super().__init__(
            time_attr="epoch",
            metric=asha.metric,
            mode=asha.mode,
            max_t=asha.max_epochs,
            grace_period=asha.grace_epochs,
            reduction_factor=asha.reduction,
            brackets=1,
        )
        self._stop = stop
        for number, history in enumerate(asha.past):
            for epoch, value in history:
                self._brackets[0].on_result(
                    SimpleNamespace(trial_id=f"past-{number}"), epoch, self._metric_op * value
                )

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if self._stop:
            decision: str = TrialScheduler.STOP
        elif trial.config["exempt"]:
            decision = TrialScheduler.CONTINUE
        else:
            decision = super().on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Keep a control's last score out of the rungs, which hold scores of earlier epochs."""
        if not trial.config["exempt"]:
            super().on_trial_complete(tune_controller, trial, result)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Choose as Tune does; the rungs know the scores of the trials it forgets."""
        forget_finished(tune_controller)
        return super().choose_trial_to_run(tune_controller)

    def __getstate__(self) -> dict[str, Any]:
        return {}
