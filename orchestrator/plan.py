"""The plan: which trials a config means, which are there already, and about how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.home import Home
from orchestrator.ledger import Proposal
from orchestrator.materials import Materials, TeacherMaterials
from orchestrator.points import preferred
from orchestrator.records import Stage
from orchestrator.reuse import Reuse, changed_fields, listed_reuse, student_reuse
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
        reused: Names of the trials that are there already.
        new: Names of those that are not, as far as they are known.
    """

    stage: str
    trials: int
    cached: int
    seconds: float | None
    slots: int
    reused: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


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
        changed: Fields that differ from the last start of this sweep: before and now.
    """

    sweep: str
    data: Mapping[str, Any]
    vocab_size: int
    stages: tuple[StagePlan, ...]
    parameters: Mapping[str, Any]
    floor: Mapping[str, float]
    changed: Mapping[str, tuple[str | None, str | None]]

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
    expected = [
        trained_teacher(config, teacher, _score(teacher, store)) for teacher in materials.teachers
    ]
    factory = StudentFactory(config, materials, expected)
    space = Space.parse(config.search.space).with_teachers([t.name for t in expected])
    listed = _listed_students(config, space, factory)
    controls = len({p.key for p in listed if p.role.startswith("control")})
    students = controls + max(config.search.trials, 1 + len(space.grid_points()))
    reuse = Reuse(new=tuple(dict.fromkeys(p.role for p in listed)))
    if config.arms:
        students, reuse = 0, Reuse()
    elif all(store.exists(p.task, p.key) for p in teachers):
        reuse = student_reuse(config, space, factory, listed, home)
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
        _uniform(Stage.STUDENTS, students, slots(resources.student), times, reuse),
        _uniform(Stage.CONFIRM, confirmed, slots(resources.confirm), times, Reuse()),
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
        changed=changed_fields(config, home),
    )


def _score(teacher: TeacherMaterials, store: Store) -> float:
    """Return what a trained teacher reaches on dev; 0 before it is trained."""
    meta = store.meta("teacher", teacher.spec.key) or {}
    return float(meta.get("metrics", {}).get("val_f1_macro", 0.0))


def _listed_students(config: SweepConfig, space: Space, factory: StudentFactory) -> list[Proposal]:
    """Return the students that are known before the search: controls, the default, grids."""
    first = preferred(config)
    controls = factory.controls().items() if config.search.controls else ()
    points = [(space.default_point(first), "default")]
    points += [(point, "grid") for point in space.grid_points(first)]
    return [
        *(factory.proposal(point, role) for role, point in controls),
        *(factory.proposal(point, role) for point, role in points),
    ]


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
    reuse = listed_reuse(proposals, store)
    names = {"reused": reuse.reused, "new": reuse.new}
    if seconds is None:
        return StagePlan(stage, len(proposals), reuse.count, None, slots, **names)
    single = [seconds(p) for p in proposals if not store.exists(p.task, p.key)]
    # Side by side, but never faster than the longest of them.
    wall = max([sum(single) / slots, *single], default=0.0)
    return StagePlan(stage, len(proposals), reuse.count, wall, slots, **names)


def _uniform(stage: Stage, trials: int, slots: int, times: _Times | None, past: Reuse) -> StagePlan:
    cached = min(past.count, trials)
    seconds = None if times is None else times.student * -(-(trials - cached) // slots)
    return StagePlan(stage, trials, cached, seconds, slots, past.reused, past.new)
