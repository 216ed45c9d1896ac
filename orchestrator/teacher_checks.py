"""Where a teacher comes from: trained from a model, or an exported student of another sweep."""

from __future__ import annotations

from orchestrator.errors import Problem
from orchestrator.schema import SweepConfig, TeacherConfig
from orchestrator.wants import anchors

SOURCES = ("model", "exported", "registered")

# What an exported student still has: it is asked, but not trained.
_ASKED = {"name", "precision", *SOURCES}


def source_problems(teacher: TeacherConfig, where: str) -> list[Problem]:
    """Check that a teacher has one source, and that an exported student is not to be trained."""
    given = [name for name in SOURCES if getattr(teacher, name)]
    if not given:
        what = "has no name" if "model" in teacher.model_fields_set else "is missing"
        cure = "write `model: {name: bert, checkpoint: ...}`, or the folder of an exported student"
        return [Problem(f"{where}.model", what, cure)]
    if len(given) > 1:
        return [Problem(where, f"has both {' and '.join(given)}", "keep one of them")]
    if teacher.model:
        return []
    return [
        Problem(f"{where}.{name}", "means nothing for a teacher that is not trained", "remove it")
        for name in sorted(teacher.model_fields_set - _ASKED)
        if getattr(teacher, name) != type(teacher).model_fields[name].default
    ]


def exported_problems(config: SweepConfig) -> list[Problem]:
    """Refuse methods that need a teacher in training, for teachers that are not trained."""
    ready = [teacher.name for teacher in config.teachers if not teacher.model]
    problems = []
    if ready and anchors(config):
        what = f"teacher {ready[0]!r} is an exported student, which has no states on its way"
        problems.append(Problem("student.schedule", what, "use constant, or another teacher"))
    for index, arm in enumerate(config.arms):
        names = arm.point.get("teachers") or [teacher.name for teacher in config.teachers]
        taught = [name for name in names if name in ready]
        if arm.scheme is not None and taught:
            what = f"teacher {taught[0]!r} is an exported student and cannot be trained with it"
            problems.append(Problem(f"arms[{index}].scheme", what, "name another teacher"))
    return problems
