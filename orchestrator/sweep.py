"""The sweep: prepare, then teachers, outputs, students and confirm, one stage after the other.

Started again, it continues: what the ledger and the store hold is not done twice. Nothing here
talks to Ray or MLflow directly; stages are run by ``tuning``, events are shipped by ``tracking``.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import preflight
from orchestrator.arms import Arms
from orchestrator.errors import (
    FailureBudgetExceeded,
    Interrupted,
    OrchestratorError,
    PreflightError,
    Problem,
)
from orchestrator.exporting.fetch import fetch_registered
from orchestrator.home import Home
from orchestrator.ledger import Objectives, Proposal, StageLedger, open_storage
from orchestrator.materials import (
    Materials,
    TeacherMaterials,
    encode_test,
    prefixed,
    prepare_data,
    prepare_materials,
)
from orchestrator.names import trial_name
from orchestrator.points import preferred
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.schema import StageResources, SweepConfig
from orchestrator.specs import (
    StudentFactory,
    TrainedTeacher,
    confirm_proposals,
    outputs_proposal,
    outputs_proposals,
    teacher_proposals,
    trained_teacher,
)
from orchestrator.stages import Budget, Search, StageRun
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import (
    Notice,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
)
from search_spaces.space import Space
from trainables.dataset import PreparedData
from trainables.errors import DataError, StoreError
from trainables.floor import tfidf_floor_test
from trainables.hierarchy import superclass_counts
from trainables.store import content_key

if TYPE_CHECKING:
    from orchestrator.cluster import Node
    from orchestrator.tuning import EarlyStopping

# A teacher that beats always-the-biggest-class by less than this has learned nothing of use.
GATE_MARGIN = 0.02


@dataclass
class Options:
    """How to run, as opposed to what.

    Attributes:
        address: A running Ray cluster, or None for a local one.
        cpus: Logical CPUs of a local cluster, or None for all.
        gpus: Logical GPUs of a local cluster, or None for all.
        grace_seconds: How long running epochs may take to finish after Ctrl-C.
        python_path: Where a user's own components are imported from.
    """

    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    grace_seconds: float = 60.0
    python_path: str = ""


@dataclass
class _Progress:
    """What a sweep has found out so far, written to ``sweep.json`` after each stage."""

    studies: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


class Sweep:
    """One driver of one sweep.

    Args:
        config: What to run.
        home: Where everything is kept; its lock on the sweep is held by the caller.
        bus: Hears what happens.
        options: How to run.
    """

    def __init__(self, config: SweepConfig, home: Home, bus: EventBus, options: Options) -> None:
        self.config = config
        self.home = home
        self.store = home.store
        self.bus = bus
        self.options = options
        self._progress = _Progress()
        self._nodes: list[Node] | None = None
        self._said_no_gpu = False

    def run(self) -> None:
        """Run every stage, or what is left of it.

        Raises:
            PreflightError: Something makes the sweep impossible; nothing was spent.
            FailureBudgetExceeded: Too many trials failed.
            Interrupted: The user stopped it; the same command continues.
        """
        state = TrialState.FAILED
        self._announced = False
        with ExitStack() as self._exits:
            try:
                self._run()
                state = TrialState.COMPLETE
            except (KeyboardInterrupt, Interrupted) as error:
                state = TrialState.LOST
                raise Interrupted(
                    "interrupted; everything so far is kept and the same command continues"
                ) from error
            finally:
                if self._announced:  # else nothing was begun that could be finished
                    self.bus.emit(SweepFinished(state))

    def _run(self) -> None:
        preflight.check_home(self.home)
        preflight.check_resources(self.config, self.options)
        self._storage = open_storage(self.home.ledger_url(self.config.ledger.url_env))
        try:
            self.config = fetch_registered(self.config, self.home, self._tell)
            data = prepare_data(self.config, self.store, self._tell)
            preflight.check_methods(self.config, data)
            materials = prepare_materials(self.config, data, self.store, self._tell)
        except (DataError, StoreError) as error:
            raise as_preflight(error) from error
        self._describe(materials)
        teachers = self._teachers(materials)
        factory = StudentFactory(self.config, materials, teachers)
        if self.config.arms:
            self._arms(factory)
            return
        ranked = self._students(factory)
        if self.config.confirm is not None:
            self._confirm(factory, ranked)

    def _teachers(self, materials: Materials) -> list[TrainedTeacher]:
        """Train the teachers, exclude the useless, cache what the others say."""
        planned = [p for teacher in materials.teachers for p in teacher_proposals(teacher)]
        records = self._stage(
            Stage.TEACHERS, planned, self.config.resources.teacher, retry_failed=True
        )
        passed = self._gate(materials, records)
        outputs = [
            proposal
            for teacher in materials.teachers
            if teacher.config.name in passed
            for proposal in outputs_proposals(self.config, teacher)
        ]
        done = self._stage(
            Stage.OUTPUTS,
            outputs,
            self.config.resources.outputs,
            objective="rows",
            retry_failed=True,
        )
        self._require_complete(Stage.OUTPUTS, outputs, done)
        return [
            trained_teacher(self.config, teacher, passed[teacher.config.name], self._spent(teacher))
            for teacher in materials.teachers
            if teacher.config.name in passed
        ]

    def _spent(self, teacher: TeacherMaterials) -> float:
        """Return the seconds that training a teacher and caching its outputs have taken."""
        keys = [spec.key for spec in (teacher.spec, *teacher.folds)]
        trained = [self.store.meta("teacher", key) or {"metrics": {}} for key in keys]
        outputs = outputs_proposals(self.config, teacher)
        answered = [self.store.meta("outputs", proposal.key) or {} for proposal in outputs]
        return sum(float(meta["metrics"].get("wall_seconds", 0.0)) for meta in trained) + sum(
            float(meta.get("seconds", 0.0)) for meta in answered
        )

    def _gate(self, materials: Materials, records: Mapping[str, TrialRecord]) -> dict[str, float]:
        """Return the dev macro-F1 of each teacher that is worth learning from."""
        floor = float(materials.floor.get("val_accuracy", 0.0))
        passed, problems = {}, []
        for teacher in materials.teachers:
            name = teacher.config.name
            majority = _majority(materials.data, teacher.spec.groups)
            record = _worst([records.get(s.key) for s in (teacher.spec, *teacher.folds)])
            if record is None or record.state is not TrialState.COMPLETE:
                reason = "was not trained" if record is None or not record.error else record.error
                text = f"failed: {reason.partition(chr(10))[0]}"
            elif record.metrics["val_accuracy"] <= majority + GATE_MARGIN:
                text = (
                    f"reaches {record.metrics['val_accuracy']:.3f} accuracy on dev, no better "
                    f"than always answering the biggest class ({majority:.3f})"
                )
            else:
                passed[name] = float(record.metrics["val_f1_macro"])
                # The floor knows the classes; superclasses are easier, so it says nothing there.
                if record.metrics["val_accuracy"] < floor and not teacher.spec.groups:
                    self._warn(
                        f"teacher {name} ({record.metrics['val_accuracy']:.3f} accuracy on dev) "
                        f"is below the TF-IDF floor ({floor:.3f}): train it longer or drop it"
                    )
                continue
            problem = Problem(
                f"teachers.{name}", text, "raise its epochs or lr, or check its data and labels"
            )
            problems.append(problem)
            self._warn(f"excluded: {problem}")
        if not passed:
            raise PreflightError(problems)
        return passed

    def _students(self, factory: StudentFactory) -> list[Proposal]:
        """Search; returns the complete students, best first."""
        config = self.config
        names = [teacher.name for teacher in config.teachers]
        excluded = [name for name in names if name not in factory.teachers]
        space = Space.parse(config.search.space).with_teachers(names, excluded)
        first = preferred(config)
        planned = []
        if config.search.controls:
            planned += [factory.proposal(p, role) for role, p in factory.controls().items()]
        planned.append(factory.proposal(space.default_point(first), "default"))
        planned += [factory.proposal(point, "grid") for point in space.grid_points(first)]
        identity = {
            "space": space.to_json(),
            "objectives": list(config.search.objectives.items()),
            "base": factory.spec({}).canonical(),
        }
        self._stage(
            Stage.STUDENTS,
            _distinct(planned),
            config.resources.student,
            identity=identity,
            search=Search(
                space, lambda point: factory.proposal(point, "search"), config.search.trials
            ),
            early=True,
        )
        return self._ranked()

    def _ranked(self) -> list[Proposal]:
        """Return the complete students of the search, the best on dev first."""
        metric, direction = next(iter(self.config.search.objectives.items()))
        sign = -1.0 if direction == "max" else 1.0
        complete = [entry for entry in self._ledger.complete() if metric in entry[1]]
        complete.sort(key=lambda entry: (sign * entry[1][metric], entry[0].key))
        return [proposal for proposal, _ in complete]

    def _confirm(self, factory: StudentFactory, ranked: Sequence[Proposal]) -> None:
        """Run the best and the controls again with several seeds; read the test split."""
        settings = self.config.confirm
        candidates = [p for p in ranked if not p.role.startswith("control")]
        if settings is None or not settings.top or not candidates:
            return
        test = self._open_test(factory)
        best = candidates[0]
        # The controls differ from the winner in how they are taught and in nothing else, so the
        # comparison is not one of tuned against untuned students.
        chosen = [
            *candidates[: settings.top],
            *(factory.proposal(p, role) for role, p in factory.controls(best.point).items()),
        ]
        seeds = [self.config.seed + offset for offset in range(settings.seeds)]
        planned = [p for student in chosen for p in confirm_proposals(student, seeds, test)]
        self._stage(
            Stage.CONFIRM,
            _distinct(planned),
            self.config.resources.confirm,
            objective="test_f1_macro" if test is not None else "val_f1_macro",
        )

    def _arms(self, factory: StudentFactory) -> None:
        """Train what is listed instead of searching; reads the test split."""
        test = self._open_test(factory)
        objective = "test_f1_macro" if test is not None else "val_f1_macro"
        resources = self.config.resources

        def run(stage: Stage, planned: Sequence[Proposal], part: str) -> Mapping[str, TrialRecord]:
            if stage is Stage.OUTPUTS:
                return self._stage(stage, planned, resources.outputs, objective="rows", part=part)
            return self._stage(stage, planned, resources.confirm, objective=objective, part=part)

        results = Arms(factory, self.store, test, run, self._warn).run()
        self._progress.data["arms"] = {name: asdict(result) for name, result in results.items()}
        self._write_state()

    def _open_test(self, factory: StudentFactory) -> str | None:
        """Tokenise the test split, if there is one, and measure floor and teachers on it."""
        materials = factory.materials
        test = encode_test(materials, materials.student, self.store)
        if test is not None:
            floor = tfidf_floor_test(self.store, materials.data)
            self._progress.data["tfidf"] |= prefixed(floor, "test_")
            self._write_state()
            self._teacher_tests(factory)
        return test

    def _teacher_tests(self, factory: StudentFactory) -> None:
        """Let the teachers answer the test split, which the distillation ratio needs."""
        planned = []
        for teacher in factory.teachers.values():
            encoded = encode_test(factory.materials, teacher.materials.tokens, self.store)
            assert encoded is not None
            planned.append(outputs_proposal(teacher.materials, "test", encoded, features=False))
        self._stage(
            Stage.OUTPUTS, planned, self.config.resources.outputs, objective="rows", part="test"
        )

    def _stage(
        self,
        stage: Stage,
        planned: Sequence[Proposal],
        resources: StageResources,
        *,
        objective: str = "val_f1_macro",
        identity: Any = None,
        search: Search | None = None,
        early: bool = False,
        retry_failed: bool = False,
        part: str = "",
    ) -> dict[str, TrialRecord]:
        """Run one stage to its end and return its records by key, the newest of each."""
        config = self.config
        objectives = config.search.objectives if search else {objective: "max"}
        fingerprint = content_key(identity or sorted(p.key for p in planned))[:12]
        study = f"{config.name}/{stage}{'-' + part if part else ''}/{fingerprint}"
        seed = config.seed if config.search.seed is None else config.search.seed
        self._ledger = StageLedger(
            self._storage,
            study,
            stage,
            Objectives(objectives),
            seed=seed,
            sampler=config.search.sampler,
            startup=max(4, min(10, config.search.trials // 4)),
        )
        if retry_failed:
            self._ledger.forget_failures()
        self._progress.studies[f"{stage}{'-' + part if part else ''}"] = study
        self._write_state()
        started = time.monotonic()
        run = StageRun(
            stage,
            self._ledger,
            self.store,
            self.bus,
            planned,
            name=trial_name,
            objective=next(iter(objectives)),
            tags=self._tags,
            search=search,
            budget=Budget(config.budget.failed_trials),
        )
        total = len(planned)
        if search is not None:
            controls = sum(1 for p in planned if p.role.startswith("control"))
            total = controls + max(search.target, len(planned) - controls)
        self.bus.emit(StageStarted(stage, total, run.results(), self._slots(resources)))
        if run.has_work():
            self._run_trials(run, resources, self._asha(objectives) if early else None)
        if run.fatal is not None:
            raise PreflightError([Problem("", run.fatal)])
        if run.over_budget:
            raise FailureBudgetExceeded(_explain_failures(stage, run))
        self.bus.emit(StageFinished(stage, time.monotonic() - started))
        return {record.key: record for record in self._ledger.records()}

    def _run_trials(
        self, run: StageRun, resources: StageResources, early: EarlyStopping | None
    ) -> None:
        from orchestrator import cluster, tuning  # Ray, only when a trial must run

        nodes = self._connect()
        wanted = self._available(resources, nodes)
        slots = cluster.slots(nodes, wanted)
        if not slots:
            raise PreflightError([preflight.does_not_fit(run.stage, wanted, nodes)])
        run.gpu = wanted["gpu"]
        if run.stage is Stage.STUDENTS and self.config.search.concurrent:
            slots = min(slots, self.config.search.concurrent)
        stop = tuning.StopFlag()
        with tuning.stop_on_signals(stop, self.options.grace_seconds):
            tuning.run_trials(
                run,
                store=self.store.root,
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
                )
            )
        return self._nodes

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

    def _asha(self, objectives: Mapping[str, str]) -> EarlyStopping | None:
        settings = self.config.search.early_stopping
        if settings is None:
            return None
        from orchestrator.tuning import EarlyStopping

        metric, mode = next(iter(objectives.items()))
        past = [
            [(int(e["epoch"]), float(e[metric])) for e in record.history if metric in e]
            for record in self._ledger.records()
            if record.state.is_result()
        ]
        epochs = [self.config.student.epochs]
        epochs += [int(r.spec["epochs"]) for r in self._ledger.records()]
        if not metric.startswith("val_"):
            return None  # sizes and times say nothing about which student will be good
        return EarlyStopping(
            metric, mode, max(epochs), settings.grace_epochs, settings.reduction, past
        )

    def _require_complete(
        self, stage: Stage, planned: Sequence[Proposal], records: Mapping[str, TrialRecord]
    ) -> None:
        missing = [
            records[p.key].error or "did not finish"
            for p in planned
            if p.key in records and records[p.key].state is not TrialState.COMPLETE
        ]
        if missing:
            raise OrchestratorError(f"stage {stage} failed: {missing[0].partition(chr(10))[0]}")

    def _describe(self, materials: Materials) -> None:
        """Announce the sweep and write down what a report needs to know about the data."""
        data = materials.data
        self._tags = {"data_digest": data.digest, "git_sha": _git_sha()}
        self._progress.data = {
            "classes": list(data.classes),
            "rows": dict(data.rows),
            "class_counts": {name: list(counts) for name, counts in data.class_counts.items()},
            "digest": data.digest,
            "majority": data.majority,
            "tfidf": dict(materials.floor),
            "notes": list(data.notes),
        }
        self._progress.studies = self._earlier_studies()
        self._write_state()
        metric, direction = next(iter(self.config.search.objectives.items()))
        self._announced = True
        self.bus.emit(
            SweepStarted(
                self.config.name,
                params=self.config.to_dict(),
                tags=self._tags,
                data={
                    "name": Path(self.config.data.path or self.config.data.source).name,
                    "source": self.config.data.source,
                    "digest": data.digest,
                    "rows": sum(data.rows.values()),
                },
                objective=metric,
                direction="max" if direction == "max" else "min",
            )
        )

    def _earlier_studies(self) -> dict[str, str]:
        """Return the studies of an earlier start, so that an early end does not hide them."""
        state = self.home.read_state(self.config.name)
        same = [
            {**config, "search": {**config["search"], "trials": 0}}
            for config in (state.get("config"), self.config.to_dict())
            if config is not None and "search" in config
        ]
        return dict(state["studies"]) if len(same) == 2 and same[0] == same[1] else {}

    def _write_state(self) -> None:
        metric, direction = next(iter(self.config.search.objectives.items()))
        self.home.write_state(
            self.config.name,
            {
                "config": self.config.to_dict(),
                "studies": self._progress.studies,
                "data": self._progress.data,
                "objective": [metric, direction],
            },
        )

    def _tell(self, text: str) -> None:
        self.bus.emit(Notice("info", text))

    def _warn(self, text: str) -> None:
        self.bus.emit(Notice("warning", text))


def _worst(records: Sequence[TrialRecord | None]) -> TrialRecord | None:
    """Return the first training of a teacher that is not complete, or else its own."""
    for record in records:
        if record is None or record.state is not TrialState.COMPLETE:
            return record
    return records[0]


def _majority(data: PreparedData, groups: Sequence[int] | None) -> float:
    """Return the dev accuracy of always answering the biggest class a teacher can know."""
    if groups is None:
        return data.majority
    counts = superclass_counts(data.class_counts["dev"], groups)
    return max(counts) / sum(counts)


def _distinct(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Drop proposals whose key has come before."""
    return list({proposal.key: proposal for proposal in reversed(proposals)}.values())[::-1]


def as_preflight(error: Exception) -> PreflightError:
    """Turn an error about data or checkpoints into the list of problems it holds."""
    return PreflightError([Problem("", line) for line in str(error).splitlines() if line])


def _explain_failures(stage: Stage, run: StageRun) -> str:
    reasons = "\n".join(f"  {count} x {reason}" for reason, count in run.failures.most_common(5))
    total = sum(run.failures.values())
    return (
        f"stage {stage} was stopped: {total} trials failed, more than budget.failed_trials "
        f"allows:\n{reasons}"
    )


def _git_sha() -> str:
    """Return the commit of the code that runs, or ``unknown`` outside a checkout."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
