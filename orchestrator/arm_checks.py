"""What must hold for arms, and for teachers that know different classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from orchestrator.arms import CONTROLS
from orchestrator.component_checks import student_problems
from orchestrator.errors import Problem
from orchestrator.points import apply_point
from orchestrator.schema import ArmConfig, StudentConfig, SweepConfig
from orchestrator.wants import anchors, components, schedule_anchors
from orchestrator.wording import did_you_mean, problems_of
from trainables import catalog
from trainables.errors import ComponentError
from trainables.joint import reaches_teacher

_PREPARED = ("tokenizer", "embedding", "max_length")


def check_arms(config: SweepConfig) -> list[Problem]:
    """Check every arm by itself and what it refers to."""
    if not config.arms:
        if config.search.trials:
            return []
        return [Problem("search.trials", "is 0 and there are no arms", "ask for at least 1")]
    problems = []
    if config.search.space:
        what = "is not used: arms are trained instead of a search"
        problems.append(Problem("search.space", what, "remove it, or remove the arms"))
    if config.confirm is None:
        what = "must not be null: its seeds are what the arms are trained with"
        problems.append(Problem("confirm", what, "write {seeds: 3}"))
    taken = {*CONTROLS, *(teacher.name for teacher in config.teachers)}
    for index, arm in enumerate(config.arms):
        where = f"arms[{index}]"
        if arm.name in taken:
            what = f"{arm.name!r} is the name of a teacher, a control or another arm"
            problems.append(Problem(f"{where}.name", what, "give each arm its own name"))
        taken.add(arm.name)
        problems.extend(_arm_problems(config, arm, where))
    return problems or [*_circles(config.arms), *_published_problems(config)]


def check_label_spaces(config: SweepConfig) -> list[Problem]:
    """Refuse teachers of superclasses without superclasses, or where one student has both."""
    problems = []
    for index, teacher in enumerate(config.teachers):
        where = f"teachers[{index}]"
        if teacher.labels != "class" and config.data.superclass is None:
            what = f"{teacher.labels!r} needs superclasses, but data.superclass is not set"
            cure = "name the column, or write {class: superclass, ...}"
            problems.append(Problem(f"{where}.labels", what, cure))
        if teacher.folds is not None and anchors(config):
            what = "cannot be combined with a schedule that follows the teachers on their way"
            problems.append(Problem(f"{where}.folds", what, "set student.schedule to constant"))
    if not config.arms:
        student, names = config.student, [teacher.name for teacher in config.teachers]
        for loss in components(config, "loss"):
            problems.extend(_mixture(config, names, loss, student.hint, student, "teachers"))
    return list(dict.fromkeys(problems))


def _arm_problems(config: SweepConfig, arm: ArmConfig, where: str) -> list[Problem]:
    if arm.members:
        return list(_ensemble_problems(config, arm, where))
    names = arm.point.get("teachers", [])
    known = [teacher.name for teacher in config.teachers]
    others = [other.name for other in config.arms if other.name != arm.name]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        what = f"must be a list of names, got {names!r}"
        return [Problem(f"{where}.point.teachers", what, "write [name, ...]")]
    problems = [
        Problem(
            f"{where}.point.teachers",
            f"there is no teacher or arm {name!r}",
            did_you_mean(name, [*known, *others]),
        )
        for name in names
        if name not in known and name not in others
    ]
    point = {key: value for key, value in arm.point.items() if key != "teachers"}
    fields = [key for key in StudentConfig.model_fields if key not in _PREPARED]
    unknown = [key for key in point if key not in fields]
    problems += [
        Problem(f"{where}.point.{key}", f"unknown key {key!r}", did_you_mean(key, fields))
        for key in unknown
    ]
    if problems:
        return problems
    try:
        student = StudentConfig.model_validate(
            apply_point(config.student.model_dump(mode="json"), point)
        )
    except ValidationError as error:
        return [
            Problem(f"{where}.point.{problem.where}", problem.what, problem.cure)
            for _, problem in problems_of(error.errors(), StudentConfig)
        ]
    own = {problem.what for problem in student_problems(config.student, config, "")}
    problems += [
        problem
        for problem in student_problems(student, config, f"{where}.point")
        if problem.what not in own
    ]
    return problems or [
        *_mixture(config, _teachers(config, arm), student.loss, student.hint, student, where),
        *_taught_problems(config, arm, student, where),
    ]


def _taught_problems(
    config: SweepConfig, arm: ArmConfig, student: StudentConfig, where: str
) -> Iterator[Problem]:
    """Check what a live teacher, or a student as a teacher, cannot do."""
    names = _teachers(config, arm)
    schemes = {other.name for other in config.arms if other.scheme is not None}
    graduates = [name for name in names if name in {other.name for other in config.arms}]
    if arm.scheme is not None:
        teachers = {teacher.name: teacher for teacher in config.teachers}
        if len(names) != 1 or names[0] not in teachers or teachers[names[0]].labels != "class":
            what = "trains one teacher that knows the classes at the same time"
            yield Problem(f"{where}.scheme", what, "name it: point: {teachers: [NAME]}")
        if arm.scheme != "isolated" and not reaches_teacher(student.loss["name"]):
            what = f"the loss {student.loss['name']!r} stops the gradient at the teacher"
            yield Problem(f"{where}.scheme", what, "use kd or mse_logits")
    for name in graduates:
        if _has_joint(config, name, schemes):
            what = f"{name!r} grew up with its teacher, and only students of their own can teach"
            yield Problem(f"{where}.point.teachers", what, "name another arm")
    if graduates and len(schedule_anchors(student.schedule)) > 1:
        what = "the students of other arms have no stored way to follow"
        yield Problem(f"{where}.point.schedule", what, "use constant")
    if graduates and student.hint is not None and student.beta and _level(student) == "features":
        what = "the students of other arms teach by their logits only"
        yield Problem(f"{where}.point.hint", what, "use a hint on logits, or none")


def _has_joint(config: SweepConfig, name: str, schemes: set[str]) -> bool:
    members = next((arm.members for arm in config.arms if arm.name == name), ())
    return name in schemes or any(member in schemes for member in members)


def _ensemble_problems(config: SweepConfig, arm: ArmConfig, where: str) -> Iterator[Problem]:
    others = [other.name for other in config.arms if other.name != arm.name and not other.members]
    if arm.point or arm.scheme is not None:
        what = "an ensemble trains nothing, so it has no point and no scheme"
        yield Problem(where, what, "remove them, or remove members")
    if len(arm.members) < 2:
        yield Problem(f"{where}.members", "an ensemble has at least two members")
    for name in arm.members:
        if name not in others:
            what = f"there is no student arm {name!r}"
            yield Problem(f"{where}.members", what, did_you_mean(name, others))


def _mixture(
    config: SweepConfig,
    names: Sequence[str],
    loss: Mapping[str, Any],
    hint: Mapping[str, Any] | None,
    student: StudentConfig,
    where: str,
) -> Iterator[Problem]:
    """Refuse teachers of different classes in one student, and what cannot translate."""
    chosen = [teacher for teacher in config.teachers if teacher.name in names]
    spaces = {teacher.labels for teacher in chosen}
    others = len(names) > len(chosen)
    if len(spaces) > 1 or (others and spaces - {"class"}):
        what = (
            "teachers that know different classes cannot teach one student together: no "
            "weighting can compare outputs over classes, superclasses and shuffled ones"
        )
        cure = "list arms with teachers of one kind each"
        yield Problem(where, what, cure)
        return
    if not chosen or spaces == {"class"}:
        return
    try:
        accepted = {parameter.name for parameter in catalog.parameters("losses", loss["name"])}
    except ComponentError:
        return  # reported with the student
    if student.alpha and "groups" not in accepted:
        what = f"the loss {loss['name']!r} cannot read teachers of superclasses"
        yield Problem(where, what, "use superclass, or alpha: 0 with a hint on features")
    if hint is not None and student.beta and _level(student) == "logits":
        what = f"the hint {hint['name']!r} compares logits, which are over different classes"
        yield Problem(where, what, "use a hint on features, such as auxiliary_head")


def _level(student: StudentConfig) -> str:
    assert student.hint is not None
    return str(getattr(catalog.load("hints", student.hint["name"]), "level", "features"))


def _teachers(config: SweepConfig, arm: ArmConfig) -> list[str]:
    """Return the teachers of an arm; those that know the classes if it names none."""
    fine = [teacher.name for teacher in config.teachers if teacher.labels == "class"]
    named = arm.point.get("teachers")
    return list(named if named is not None else fine or [t.name for t in config.teachers])


def _published_problems(config: SweepConfig) -> Iterator[Problem]:
    """Check that every published number belongs to something that is run."""
    if config.published is None:
        return
    known = [*CONTROLS, *(t.name for t in config.teachers), *(arm.name for arm in config.arms)]
    for part, names in (("rows", config.published.rows), ("order", config.published.order)):
        for name in names:
            if name not in known:
                what = f"there is no arm, teacher or control {name!r}"
                yield Problem(f"published.{part}", what, did_you_mean(name, known))


def _circles(arms: Sequence[ArmConfig]) -> list[Problem]:
    """Refuse arms that wait for each other."""
    waiting = {arm.name: {*arm.members, *arm.point.get("teachers", [])} for arm in arms}
    while waiting:
        ready = [name for name, needs in waiting.items() if needs.isdisjoint(waiting)]
        if not ready:
            names = ", ".join(waiting)
            what = f"{names} wait for each other"
            return [Problem("arms", what, "let at least one learn from teachers only")]
        for name in ready:
            del waiting[name]
    return []
