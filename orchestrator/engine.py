"""The engine: runs one stage after the other on whatever cluster there is.

Ray is started when the first trial must run and not before: a sweep that finds everything done ends
within seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator import preflight
from orchestrator.errors import FailureBudgetExceeded, Interrupted, PreflightError, Problem
from orchestrator.home import Home
from orchestrator.ledger import Objectives, Proposal, StageLedger, Storage, open_storage
from orchestrator.names import trial_name
from orchestrator.records import Stage, TrialRecord
from orchestrator.schema import StageResources, SweepConfig
from orchestrator.stages import Budget, Search, StageRun
from orchestrator.state import SweepState
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import Notice, StageFinished, StageStarted
from trainables.store import content_key

if TYPE_CHECKING:
    from orchestrator.cluster import Node
    from orchestrator.tuning import EarlyStopping


@dataclass
class Options:
    """How to run, as opposed to what.

    Attributes:
        address: A running Ray cluster, or None for a local one.
        cpus: Logical CPUs of a local cluster, or None for all.
        gpus: Logical GPUs of a local cluster, or None for all.
        grace_seconds: How long running epochs may take to finish after Ctrl-C.
        python_path: Where a user's own components are imported from.
        keep: Makes sure that the sweep is still this driver's; see ``LedgerLock``.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    grace_seconds: float = 60.0
    python_path: str = ""
    keep: Callable[[], object] = lambda: None


class Engine:
    """Runs the stages of one sweep.

    Args:
        config: The sweep.
        home: Where the ledger and the store are.
        state: Told of each study, so that reports find it.
        bus: Hears what happens.
        options: How to run.

    Attributes:
        ledger: The ledger of the stage that ran last.
        tags: Tags of every trial.
        checkpoints: Folders that trials will read, each with its digest.
    """

    ledger: StageLedger

    def __init__(
        self, config: SweepConfig, home: Home, state: SweepState, bus: EventBus, options: Options
    ) -> None:
        self.config = config
        self.store = home.store
        self.state = state
        self.bus = bus
        self.options = options
        self.tags: dict[str, str] = {}
        self.checkpoints: dict[str, str] = {}
        self._home = home
        self._exits = ExitStack()
        self._nodes: list[Node] | None = None
        self._checked: set[str] = set()
        self._said_no_gpu = False

    @cached_property
    def _storage(self) -> Storage:
        """The ledger's database; a sweep that is refused never opens it."""
        return open_storage(self._home.ledger_url(self.config.ledger.url_env))

    def close(self) -> None:
        """End what was started: a local cluster, the connection to another."""
        self._exits.close()

    def run(
        self,
        stage: Stage,
        planned: Sequence[Proposal],
        resources: StageResources,
        *,
        objective: str = "val_f1_macro",
        identity: Any = None,
        search: Search | None = None,
        retry_failed: bool = False,
        part: str = "",
    ) -> dict[str, TrialRecord]:
        """Run one stage to its end and return its records by key, the newest of each.

        Args:
            stage: Which stage.
            planned: Trials to run, in this order.
            resources: What each trial occupies.
            objective: The metric trials are told as their value, outside of a search.
            identity: What makes this search another one; None for the list of its trials.
            search: Where further trials come from; its weak trials are stopped early.
            retry_failed: Run trials again that failed in an earlier start.
            part: Tells apart several lists of trials of one stage.

        Raises:
            PreflightError: A trial fits on no node, or the store is full.
            FailureBudgetExceeded: Too many trials failed.
            Interrupted: The user stopped it.
        """
        config = self.config
        objectives = config.search.objectives if search else {objective: "max"}
        fingerprint = content_key(identity or sorted(p.key for p in planned))[:12]
        study = f"{config.name}/{stage}{'-' + part if part else ''}/{fingerprint}"
        seed = config.seed if config.search.seed is None else config.search.seed
        self.ledger = StageLedger(
            self._storage,
            study,
            stage,
            Objectives(objectives),
            seed=seed,
            sampler=config.search.sampler,
            startup=max(4, min(10, config.search.trials // 4)),
            notify=self._warn,
            keep=self.options.keep,
        )
        if retry_failed:
            self.ledger.forget_failures()
        self.state.add_study(f"{stage}{'-' + part if part else ''}", study)
        started = time.monotonic()
        run = StageRun(
            stage,
            self.ledger,
            self.store,
            self.bus,
            planned,
            name=trial_name,
            objective=next(iter(objectives)),
            tags=self.tags,
            search=search,
            budget=Budget(config.budget.failed_trials),
        )
        total = len(planned)
        if search is not None:
            controls = sum(1 for p in planned if p.role.startswith("control"))
            total = controls + max(search.target, len(planned) - controls)
        self.bus.emit(StageStarted(stage, total, run.results(), self._slots(resources)))
        if run.has_work():
            self._run_trials(run, resources, self._asha(search, objectives))
        if run.fatal is not None:
            raise PreflightError([Problem("", run.fatal)])
        if run.over_budget:
            raise FailureBudgetExceeded(_explain_failures(stage, run))
        self.bus.emit(StageFinished(stage, time.monotonic() - started))
        return {record.key: record for record in self.ledger.records()}

    def _run_trials(
        self, run: StageRun, resources: StageResources, early: EarlyStopping | None
    ) -> None:
        nodes = self._connect()
        wanted = self._available(resources, nodes)
        self._session(run, nodes, wanted, early)
        while run.grow() and run.has_work():
            wanted["gpu"] = min(1.0, 2 * wanted["gpu"])
            self._warn(f"GPU memory ran out: trying again with {wanted['gpu']:g} of a GPU each")
            self._session(run, nodes, wanted, early)

    def _session(
        self,
        run: StageRun,
        nodes: Sequence[Node],
        wanted: Mapping[str, float],
        early: EarlyStopping | None,
    ) -> None:
        from orchestrator import cluster, tuning  # Ray, only when a trial must run

        slots = cluster.slots(list(nodes), wanted)
        if not slots:
            raise PreflightError([preflight.does_not_fit(run.stage, wanted, nodes)])
        run.gpu = wanted["gpu"]
        if run.stage is Stage.STUDENTS and self.config.search.concurrent:
            slots = min(slots, self.config.search.concurrent)
        stop = tuning.StopFlag()
        with tuning.stop_on_signals(stop, self.options.grace_seconds):
            tuning.run_trials(
                run,
                store=self.store.address,
                resources=wanted,
                slots=slots,
                stop=stop,
                early_stopping=early,
            )
        if stop:
            raise Interrupted("stopped")

    def _connect(self) -> list[Node]:
        from orchestrator import cluster

        if self._nodes is None:
            where = self.options.address or "this machine"
            self._tell(f"starting Ray on {where}")
            self._nodes = self._exits.enter_context(
                cluster.connect(
                    self.options.address,
                    cpus=self.options.cpus,
                    gpus=self.options.gpus,
                    python_path=self.options.python_path,
                    sweep=content_key([str(self._home.path), self.config.name]),
                )
            )
        if self.options.address is not None:
            self._check_nodes()
        return self._nodes

    def _check_nodes(self) -> None:
        """Check the nodes that have joined since the last stage; a local cluster is this machine.

        Raises:
            PreflightError: Trials could not run on some node.
        """
        from orchestrator import cluster, node_checks

        new = [node for node in cluster.alive_nodes() if node.id not in self._checked]
        if new:
            place = self.store.root if self.store.remote is None else self.store.address
            node_checks.check_nodes(new, place, self.checkpoints, cluster.ask_nodes)
            self._tell(f"nodes checked for store, release and checkpoints: {len(new)}")
        self._checked |= {node.id for node in new}

    def _available(self, resources: StageResources, nodes: Sequence[Node]) -> dict[str, float]:
        """Return what a trial gets: GPUs only where there are any."""
        wanted = {"cpu": resources.cpu, "gpu": resources.gpu}
        if wanted["gpu"] and not any(node.gpu for node in nodes):
            if not self._said_no_gpu:
                self._said_no_gpu = True
                self._warn("no GPU found: trials run on the CPU, which can be much slower")
            wanted["gpu"] = 0.0
            wanted["cpu"] = wanted["cpu"] or 1.0
        return wanted

    def _slots(self, resources: StageResources) -> int:
        """Return how many trials run at once, as far as that is known without Ray."""
        return preflight.expected_slots(resources, self.options)

    def _asha(self, search: Search | None, objectives: Mapping[str, str]) -> EarlyStopping | None:
        settings = self.config.search.early_stopping
        if settings is None or search is None:
            return None
        from orchestrator.tuning import EarlyStopping

        metric, mode = next(iter(objectives.items()))
        past = [
            [(int(e["epoch"]), float(e[metric])) for e in record.history if metric in e]
            for record in self.ledger.records()
            if record.state.is_result()
        ]
        corners = [corner.value for corner in search.space.corners()]
        epochs = [int(point.get("epochs", self.config.student.epochs)) for point in corners]
        if not metric.startswith("val_"):
            return None  # sizes and times say nothing about which student will be good
        return EarlyStopping(
            metric, mode, max(epochs, default=1), settings.grace_epochs, settings.reduction, past
        )

    def _tell(self, text: str) -> None:
        self.bus.emit(Notice("info", text))

    def _warn(self, text: str) -> None:
        self.bus.emit(Notice("warning", text))


def _explain_failures(stage: Stage, run: StageRun) -> str:
    reasons = "\n".join(f"  {count} x {reason}" for reason, count in run.failures.most_common(5))
    total = sum(run.failures.values())
    return (
        f"stage {stage} was stopped: {total} trials failed, more than budget.failed_trials "
        f"allows:\n{reasons}"
    )
