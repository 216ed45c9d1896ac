"""The plan: which trials a config means, which are there already, and about how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.home import Home
from orchestrator.ledger import Proposal
from orchestrator.materials import Materials
from orchestrator.records import Stage
from orchestrator.schema import StageResources, SweepConfig
from orchestrator.specs import (
    StudentFactory,
    outputs_proposals,
    teacher_proposals,
    trained_teacher,
)
from search_spaces.space import Space
from trainables.store import Store


@dataclass(frozen=True)
class StagePlan:
    """What one stage has to do.

    Attributes:
        stage: Which.
        trials: Trials in all.
        cached: Trials whose artifact is in the store.
        seconds: Estimated wall time of the rest, or None if it was not estimated.
        slots: Trials that run side by side.
    """

    stage: str
    trials: int
    cached: int
    seconds: float | None
    slots: int


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        sweep: Its name.
        data: Classes, rows of each split, rows of each class, duplicates, notes.
        vocab_size: Entries of the student's tokenizer.
        stages: In the order they run.
        parameters: Search parameters by path, as written in the config.
        floor: Dev metrics of the TF-IDF floor.
    """

    sweep: str
    data: Mapping[str, Any]
    vocab_size: int
    stages: tuple[StagePlan, ...]
    parameters: Mapping[str, Any]
    floor: Mapping[str, float]

    @property
    def seconds(self) -> float | None:
        """Estimated wall time of everything, or None."""
        known = [stage.seconds for stage in self.stages]
        return None if any(s is None for s in known) else sum(s for s in known if s is not None)

    def to_json(self) -> dict[str, Any]:
        """Return one JSON document."""
        return {**asdict(self), "seconds": self.seconds}


def make_plan(
    config: SweepConfig,
    materials: Materials,
    home: Home,
    slots: Callable[[StageResources], int],
    *,
    estimate: bool = True,
) -> Plan:
    """Work out what a sweep would do; trains nothing.

    Args:
        config: The sweep.
        materials: What its trials refer to.
        home: Whose store is looked into.
        slots: How many trials of given resources run at once.
        estimate: Measure a few steps of each model to estimate times.

    Raises:
        PreflightError: The search space does not fit the teachers.
    """
    store = home.store
    teachers = [p for teacher in materials.teachers for p in teacher_proposals(teacher)]
    outputs = [p for t in materials.teachers for p in outputs_proposals(config, t)]
    # Scores are unknown before the teachers are trained; keys do not depend on their order here.
    expected = [trained_teacher(config, teacher, 0.0) for teacher in materials.teachers]
    factory = StudentFactory(config, materials, expected)
    space = Space.parse(config.search.space).with_teachers([t.name for t in expected])
    controls = len({factory.proposal(p, role).key for role, p in factory.controls().items()})
    students = controls * config.search.controls + max(
        config.search.trials, 1 + len(space.grid_points())
    )
    if config.arms:
        students = 0
    confirmed = _confirm_trials(config)
    times = _Times(config, materials, factory, store) if estimate else None
    resources = config.resources
    stages = (
        _stage(
            Stage.TEACHERS,
            teachers,
            store,
            slots(resources.teacher),
            times.teacher if times else None,
        ),
        _stage(
            Stage.OUTPUTS,
            outputs,
            store,
            slots(resources.outputs),
            times.outputs if times else None,
        ),
        _uniform(Stage.STUDENTS, students, slots(resources.student), times),
        _uniform(Stage.CONFIRM, confirmed, slots(resources.confirm), times),
    )
    data = materials.data
    return Plan(
        sweep=config.name,
        data={
            "classes": list(data.classes),
            "rows": dict(data.rows),
            "class_counts": {name: list(counts) for name, counts in data.class_counts.items()},
            "duplicates": dict(data.duplicates),
            "majority": data.majority,
            "notes": list(data.notes),
        },
        vocab_size=materials.student.vocab_size,
        stages=stages,
        parameters=config.search.space,
        floor=dict(materials.floor),
    )


class _Times:
    """Estimated seconds of single trials, from a few measured steps of each model."""

    def __init__(
        self, config: SweepConfig, materials: Materials, factory: StudentFactory, store: Store
    ) -> None:
        from trainables.timing import student_seconds, teacher_seconds

        self._rows = materials.data.rows
        self._teachers = {
            teacher.config.name: (teacher.spec, *teacher_seconds(teacher.spec, store))
            for teacher in materials.teachers
        }
        spec = factory.spec({})
        rows = spec.rows_per_epoch or self._rows["train"]
        self.student = spec.epochs * rows * student_seconds(spec, store)

    def teacher(self, proposal: Proposal) -> float:
        spec, train, forward = self._teachers[proposal.role]
        rows = min(spec.rows or self._rows["train"], self._rows["train"])
        return float(spec.epochs * (rows * train + self._rows["dev"] * forward))

    def outputs(self, proposal: Proposal) -> float:
        return float(self._rows[proposal.spec["split"]] * self._teachers[proposal.role][2])


def _confirm_trials(config: SweepConfig) -> int:
    settings = config.confirm
    if settings is not None and config.arms:
        return (len(config.arms) + 3) * settings.seeds
    if settings is None or not settings.top:
        return 0
    return (min(settings.top, config.search.trials) + 3) * settings.seeds


def _stage(
    stage: Stage,
    proposals: Sequence[Proposal],
    store: Store,
    slots: int,
    seconds: Callable[[Proposal], float] | None,
) -> StagePlan:
    missing = [p for p in proposals if not store.exists(p.task, p.key)]
    cached = len(proposals) - len(missing)
    if seconds is None:
        return StagePlan(stage, len(proposals), cached, None, slots)
    single = [seconds(proposal) for proposal in missing]
    # Side by side, but never faster than the longest of them.
    wall = max([sum(single) / slots, *single], default=0.0)
    return StagePlan(stage, len(proposals), cached, wall, slots)


def _uniform(stage: Stage, trials: int, slots: int, times: _Times | None) -> StagePlan:
    seconds = None if times is None else times.student * -(-trials // slots)
    return StagePlan(stage, trials, 0, seconds, slots)
