"""What must hold between the values of a config, and between it and the components it names.

Each check takes a config whose values are fine one by one and returns problems. Components are
imported here and nowhere else on the way to a plan, which is why this takes seconds the first time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from pydantic import ValidationError

from orchestrator.arm_checks import check_arms, check_label_spaces
from orchestrator.component_checks import component_problems, needs_checkpoint, student_problems
from orchestrator.errors import Problem
from orchestrator.points import TEACHER_KEYS, apply_point
from orchestrator.schema import StudentConfig, SweepConfig
from orchestrator.teacher_checks import exported_problems, source_problems
from orchestrator.wording import Location, did_you_mean, key_path, problems_of, space_problem
from search_spaces.errors import SpaceError
from search_spaces.node import Corner
from search_spaces.space import Space
from trainables import catalog
from trainables.errors import ComponentError

SPACE: Location = ("search", "space")

# Made before the first trial, from the config's own student.
_PREPARED = ("tokenizer", "embedding", "max_length")
_PYPI = re.compile(r"pypi:[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+\Z")


def check_data(config: SweepConfig) -> list[Problem]:
    """Check the source, and that the parts of the data can exist together."""
    data, problems = config.data, []
    if data.source.startswith("pypi:"):
        if not _PYPI.match(data.source):
            problems.append(
                Problem("data.source", f"{data.source!r} is not of the form pypi:NAME==VERSION")
            )
    else:
        try:
            catalog.load("data", data.source)
        except ComponentError as error:
            problems.append(Problem("data.source", str(error)))
        if data.path is None:
            problems.append(Problem("data.path", "is missing", "add `path: train.csv`"))
    if data.group in (data.text, data.label):
        what = (
            f"{data.group!r} is the column of the {'text' if data.group == data.text else 'label'}"
        )
        problems.append(Problem("data.group", what, "name the column of what keeps rows together"))
    if data.transfer == "rest" and data.labelled is None:
        problems.append(
            Problem(
                "data.transfer",
                "'rest' is what `labelled` leaves over, but labelled is not set",
                "add `labelled: 3000`, or name a file of unlabelled rows",
            )
        )
    return problems


def check_teachers(config: SweepConfig) -> list[Problem]:
    """Check names, components and what depends on the kind of model."""
    problems = []
    seen: set[str] = set()
    for index, teacher in enumerate(config.teachers):
        where = f"teachers[{index}]"
        if teacher.name in seen:
            what = f"{teacher.name!r} is the name of another teacher"
            problems.append(Problem(f"{where}.name", what, "give each teacher its own name"))
        seen.add(teacher.name)
        problems.extend(source_problems(teacher, where))
        if not teacher.model:
            continue
        faults = component_problems("models", teacher.model, f"{where}.model")
        problems.extend(faults)
        if any(fault.where == f"{where}.model.name" for fault in faults):
            continue
        model = catalog.load("models", teacher.model["name"])
        accepted = {p.name for p in catalog.parameters("models", teacher.model["name"])}
        if teacher.tokenizer is not None and needs_checkpoint(teacher.model):
            what = "a checkpoint brings its own tokenizer"
            problems.append(Problem(f"{where}.tokenizer", what, "remove it"))
        if teacher.layers is not None and "layers" not in accepted:
            what = f"the model {teacher.model['name']!r} has no layers to choose from"
            problems.append(Problem(f"{where}.layers", what, "remove it"))
        if teacher.layers is not None and "layers" in teacher.model:
            problems.append(Problem(f"{where}.layers", "is also given in the model", "keep one"))
        if teacher.freeze_layers and not hasattr(model, "freeze_lower"):
            what = f"the model {teacher.model['name']!r} cannot freeze layers"
            problems.append(Problem(f"{where}.freeze_layers", what, "remove it"))
        if teacher.layers is not None and teacher.freeze_layers > teacher.layers:
            what = f"cannot freeze {teacher.freeze_layers} layers of {teacher.layers}"
            problems.append(Problem(f"{where}.freeze_layers", what, "freeze fewer"))
    return problems


def check_student(config: SweepConfig) -> list[Problem]:
    """Check the student's own values."""
    problems = student_problems(config.student, config, "student")
    return problems + _preparation_problems(config.student)


def check_references(config: SweepConfig) -> list[Problem]:
    """Check that the teachers the student refers to are there and have a checkpoint."""
    student = config.student
    names = [teacher.name for teacher in config.teachers]
    with_checkpoint = [t.name for t in config.teachers if t.model and needs_checkpoint(t.model)]
    problems = []
    wanted = student.embedding.teacher
    if student.embedding.kind == "teacher":
        place = "student.embedding.teacher"
        if wanted is not None and wanted not in names:
            what = f"there is no teacher {wanted!r}"
            problems.append(Problem(place, what, did_you_mean(wanted, names)))
        elif wanted is not None and wanted not in with_checkpoint:
            what = f"teacher {wanted!r} has no checkpoint to take vectors from"
            problems.append(Problem(place, what, did_you_mean(wanted, with_checkpoint)))
        elif not with_checkpoint:
            what = "no teacher has a checkpoint to take vectors from"
            problems.append(Problem("student.embedding.kind", what, "use random or file"))
    tokenizer = student.tokenizer
    if tokenizer.kind == "teacher" and tokenizer.checkpoint is None and not with_checkpoint:
        what = "no teacher has a checkpoint to take the tokenizer from"
        problems.append(
            Problem("student.tokenizer.kind", what, "add `checkpoint: ...`, or use word")
        )
    return problems


def check_searched_teachers(config: SweepConfig) -> list[Problem]:
    """Check that the teachers the space asks for are there."""
    names = [teacher.name for teacher in config.teachers]
    if len(set(names)) < len(names):
        return []  # reported with the teachers
    try:
        config.search_space()
    except SpaceError as error:
        return [space_problem(problem, SPACE) for problem in error.problems]
    return []


def check_space_keys(config: SweepConfig) -> list[Problem]:
    """Check that the space searches what can be searched."""
    known = _searchable()
    problems = []
    for key in config.search.space:
        where = key_path((*SPACE, key))
        if key == "student":
            cure = "the space holds keys of the student: write `alpha`, not student.alpha"
            problems.append(Problem(where, "unknown key 'student'", cure))
        elif key in _PREPARED:
            what = "cannot be searched, the data is tokenised once per sweep"
            cure = f"set student.{key}, and start one sweep per value"
            problems.append(Problem(where, what, cure))
        elif key not in known:
            problems.append(Problem(where, f"unknown key {key!r}", did_you_mean(key, known)))
    return problems


def check_space_values(config: SweepConfig) -> list[Problem]:
    """Check every option and both ends of every range as if they were the student's values."""
    searched = {
        key: domain
        for key, domain in config.search.space.items()
        if key in _searchable() and key not in TEACHER_KEYS
    }
    corners = Space.parse(searched).corners()
    own = {(p.where.strip("."), p.what) for p in student_problems(config.student, config, "")}
    return list(
        dict.fromkeys(
            Problem(place, problem.what, problem.cure)
            for corner in corners
            for location, problem in _corner_problems(config, corner)
            if (place := _place(corner, location)) and (key_path(location), problem.what) not in own
        )
    )


def _searchable() -> list[str]:
    return [*(key for key in StudentConfig.model_fields if key not in _PREPARED), *TEACHER_KEYS]


CHECKS: tuple[tuple[Callable[[SweepConfig], list[Problem]], tuple[str, ...]], ...] = (
    (check_data, ("data",)),
    (check_teachers, ("teachers",)),
    (check_student, ("student",)),
    (check_references, ("student", "teachers")),
    (check_searched_teachers, ("search", "teachers")),
    (check_space_keys, ("search",)),
    (check_space_values, ("search", "student")),
    (exported_problems, ("teachers", "student", "arms")),
    (check_label_spaces, ("data", "teachers", "student", "arms")),
    (check_arms, ("arms", "search", "confirm", "teachers", "student")),
)
"""The checks, each with the sections it reads."""


def _preparation_problems(student: StudentConfig) -> list[Problem]:
    """Check what the tokenizer and the embedding are made from."""
    problems = []
    embedding, tokenizer = student.embedding, student.tokenizer
    if embedding.kind == "file" and embedding.path is None:
        what = "kind file needs the file"
        problems.append(Problem("student.embedding.path", what, "add `path: vectors.txt`"))
    for key, kind in (("path", "file"), ("teacher", "teacher")):
        if getattr(embedding, key) is not None and embedding.kind != kind:
            what = f"is for kind {kind}, but the kind is {embedding.kind}"
            cure = f"write `kind: {kind}` or remove it"
            problems.append(Problem(f"student.embedding.{key}", what, cure))
    if tokenizer.checkpoint is not None and tokenizer.kind != "teacher":
        what = f"is for kind teacher, but the kind is {tokenizer.kind}"
        cure = "write `kind: teacher` or remove it"
        problems.append(Problem("student.tokenizer.checkpoint", what, cure))
    return problems


def _corner_problems(config: SweepConfig, corner: Corner) -> list[tuple[Location, Problem]]:
    """Return what is wrong with the student of one point, by the student's key."""
    base = config.student.model_dump(mode="json")
    values = apply_point(base, corner.value)
    found: list[tuple[Location, Problem]] = []
    try:
        student = StudentConfig.model_validate(values)
    except ValidationError as error:
        for location, problem in problems_of(error.errors(), StudentConfig):
            cure = problem.cure or _list_cure(config, location)
            found.append((location, Problem(problem.where, problem.what, cure)))
        sound = {str(location[0]): base[str(location[0])] for location, _ in found}
        student = StudentConfig.model_validate(values | sound)
    replaced = {location[0] for location, _ in found}
    for problem in student_problems(student, config, ""):
        where = tuple(problem.where.strip(".").split("."))
        if where[0] not in replaced:
            found.append((where, problem))
    return found


def _place(corner: Corner, location: Location) -> str | None:
    """Find where in the space a value of the student was written, or None if not there."""
    for length in range(len(location), 0, -1):
        where = corner.where.get(tuple(str(part) for part in location[:length]))
        if where is not None:
            rest = key_path(location[length:])
            separator = "" if not rest or rest.startswith("[") else "."
            return f"{key_path(SPACE)}{where}{separator}{rest}"
    return None


def _list_cure(config: SweepConfig, location: Location) -> str:
    """Explain what a plain list means where a single value is wanted."""
    written = config.search.space.get(str(location[0]))
    if not isinstance(written, Mapping) or not isinstance(written.get("fixed"), list):
        return ""
    return f"to search over it, write {{choice: {json.dumps(written['fixed'])}}}"
