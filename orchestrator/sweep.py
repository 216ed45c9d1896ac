"""The sweep: prepare, then teachers, outputs, students and confirm, one stage after the other.

Started again, it continues: what the ledger and the store hold is not done twice. Nothing here
talks to Ray or MLflow directly; stages are run by ``engine``, events are shipped by ``tracking``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from orchestrator import preflight
from orchestrator.arms import Arms
from orchestrator.deployment.release import this_release
from orchestrator.engine import Engine, Options
from orchestrator.errors import (
    Interrupted,
    OrchestratorError,
    PreflightError,
    Problem,
)
from orchestrator.exporting.fetch import fetch_registered
from orchestrator.gate import pass_gate
from orchestrator.home import Home
from orchestrator.ledger import Proposal
from orchestrator.materials import (
    Materials,
    TeacherMaterials,
    encode_test,
    prefixed,
    prepare_data,
    prepare_materials,
)
from orchestrator.points import preferred
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.reuse import search_identity
from orchestrator.schema import SweepConfig
from orchestrator.screening import MOST_SCREENED, choose, screen
from orchestrator.specs import (
    PLAIN,
    StudentFactory,
    TrainedTeacher,
    confirm_proposals,
    outputs_proposal,
    outputs_proposals,
    teacher_proposals,
    trained_teacher,
)
from orchestrator.stages import Search
from orchestrator.state import SweepState
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import (
    Notice,
    SweepFinished,
    SweepStarted,
)
from orchestrator.warm_start import check_warm_start, warm_points
from search_spaces.space import Space
from trainables.errors import ArtifactMissing, DataError, StoreError
from trainables.floor import tfidf_floor_test

__all__ = ["Options", "Sweep", "as_preflight"]


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
        self.store.notify = self._warn
        self.bus = bus
        self.options = options
        self.state = SweepState(config, home)
        self.engine = Engine(config, home, self.state, bus, options)

    def run(self) -> None:
        """Run every stage, or what is left of it.

        Raises:
            PreflightError: Something makes the sweep impossible; nothing was spent.
            FailureBudgetExceeded: Too many trials failed.
            Interrupted: The user stopped it; the same command continues.
        """
        state = TrialState.FAILED
        self._announced = False
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
            self.engine.close()

    def _run(self) -> None:
        preflight.check_home(self.home)
        preflight.check_resources(self.config, self.options)
        try:
            self._use(fetch_registered(self.config, self.home, self._tell))
            data = prepare_data(self.config, self.store, self._tell)
            preflight.check_methods(self.config, data)
            check_warm_start(self.config, self.home, data.digest)
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

    def _use(self, config: SweepConfig) -> None:
        """Go on with a config whose registered teachers have become folders."""
        self.config = self.engine.config = self.state.config = config

    def _teachers(self, materials: Materials) -> list[TrainedTeacher]:
        """Train the teachers, exclude the useless, cache what the others say."""
        planned = [p for teacher in materials.teachers for p in teacher_proposals(teacher)]
        self._set_damaged_aside(planned)
        records = self.engine.run(
            Stage.TEACHERS, planned, self.config.resources.teacher, retry_failed=True
        )
        passed = pass_gate(materials, records, self._warn)
        outputs = [
            proposal
            for teacher in materials.teachers
            if teacher.config.name in passed
            for proposal in outputs_proposals(self.config, teacher)
        ]
        self._set_damaged_aside(outputs)
        done = self.engine.run(
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

    def _set_damaged_aside(self, planned: Sequence[Proposal]) -> None:
        """Verify what later trials will read: what is damaged is made again now, not then."""
        for proposal in planned:
            with suppress(ArtifactMissing):
                self.store.read(proposal.task, proposal.key)

    def _spent(self, teacher: TeacherMaterials) -> float:
        """Return the seconds that training a teacher and caching its outputs have taken."""
        keys = [spec.key for spec in (teacher.spec, *teacher.folds)]
        trained = [self.store.meta("teacher", key) or {"metrics": {}} for key in keys]
        outputs = outputs_proposals(self.config, teacher)
        answered = [self.store.meta("outputs", proposal.key) or {} for proposal in outputs]
        return sum(float(meta["metrics"].get("wall_seconds", 0.0)) for meta in trained) + sum(
            float(meta.get("seconds", 0.0)) for meta in answered
        )

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
        warm = warm_points(config, self.home, space)
        planned += [factory.proposal(point, "warm") for point in warm]
        planned += self._screened(factory, space)
        planned += [factory.proposal(point, "grid") for point in space.grid_points(first)]
        identity = search_identity(config, space, factory)
        self.engine.run(
            Stage.STUDENTS,
            _distinct(planned),
            config.resources.student,
            identity=identity,
            search=Search(
                space, lambda point: factory.proposal(point, "search"), config.search.trials
            ),
        )
        return self._ranked()

    def _screened(self, factory: StudentFactory, space: Space) -> list[Proposal]:
        """Return the students whose teaching looks best before any is trained."""
        if not self.config.search.screen:
            return []
        started = time.monotonic()
        ways = screen(self.config, space, factory.teachers, self.store)
        # A fifth of the budget at most: the search needs the rest for what screening cannot see.
        chosen = choose(ways, min(MOST_SCREENED, self.config.search.trials // 5))
        if chosen:
            names = ", ".join(map(str, chosen))
            seconds = time.monotonic() - started
            self._tell(
                f"{len(ways)} ways to teach scored on dev in {seconds:.1f} s; first: {names}"
            )
        return [factory.proposal(way.point, "screened") for way in chosen]

    def _ranked(self) -> list[Proposal]:
        """Return the complete students of the search, the best on dev first."""
        metric, direction = next(iter(self.config.search.objectives.items()))
        sign = -1.0 if direction == "max" else 1.0
        complete = [entry for entry in self.engine.ledger.complete() if metric in entry[1]]
        complete.sort(key=lambda entry: (sign * entry[1][metric], entry[0].key))
        return [proposal for proposal, _ in complete]

    def _confirm(self, factory: StudentFactory, ranked: Sequence[Proposal]) -> None:
        """Run the best and the controls again with several seeds; read the test split."""
        settings = self.config.confirm
        # A control that learns from teachers may win; then it is what the user should ship.
        candidates = [replace(p, role="candidate") for p in ranked if p.role != PLAIN]
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
        self.engine.run(
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
                return self.engine.run(
                    stage, planned, resources.outputs, objective="rows", part=part
                )
            return self.engine.run(
                stage, planned, resources.confirm, objective=objective, part=part
            )

        results = Arms(factory, self.store, test, run, self._warn).run()
        self.state.data["arms"] = {name: asdict(result) for name, result in results.items()}
        self.state.write()

    def _open_test(self, factory: StudentFactory) -> str | None:
        """Tokenise the test split, if there is one, and measure floor and teachers on it."""
        materials = factory.materials
        test = encode_test(materials, materials.student, self.store)
        if test is not None:
            floor = tfidf_floor_test(self.store, materials.data)
            self.state.data["tfidf"] |= prefixed(floor, "test_")
            self.state.write()
            self._teacher_tests(factory)
        return test

    def _teacher_tests(self, factory: StudentFactory) -> None:
        """Let the teachers answer the test split, which the distillation ratio needs."""
        planned = []
        for teacher in factory.teachers.values():
            encoded = encode_test(factory.materials, teacher.materials.tokens, self.store)
            assert encoded is not None
            planned.append(outputs_proposal(teacher.materials, "test", encoded, features=False))
        self.engine.run(
            Stage.OUTPUTS, planned, self.config.resources.outputs, objective="rows", part="test"
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
        self.engine.tags = {"data_digest": data.digest, "git_sha": this_release().git}
        self.engine.checkpoints = {
            str(teacher.spec.model["checkpoint"]): teacher.spec.checkpoint_digest
            for teacher in materials.teachers
            if "checkpoint" in teacher.spec.model
        }
        self.state.begin(materials)
        metric, direction = next(iter(self.config.search.objectives.items()))
        self._announced = True
        self.bus.emit(
            SweepStarted(
                self.config.name,
                params=self.config.to_dict(),
                tags=self.engine.tags,
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

    def _tell(self, text: str) -> None:
        self.bus.emit(Notice("info", text))

    def _warn(self, text: str) -> None:
        self.bus.emit(Notice("warning", text))


def _distinct(proposals: Sequence[Proposal]) -> list[Proposal]:
    """Drop proposals whose key has come before."""
    return list({proposal.key: proposal for proposal in reversed(proposals)}.values())[::-1]


def as_preflight(error: Exception) -> PreflightError:
    """Turn an error about data or checkpoints into the list of problems it holds."""
    return PreflightError([Problem("", line) for line in str(error).splitlines() if line])
