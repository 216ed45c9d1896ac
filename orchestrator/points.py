"""From a point of the search space to a student: merging, defaults and what to try first."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from orchestrator.schema import StudentConfig, SweepConfig
from search_spaces.node import Leaf
from trainables import catalog
from trainables.errors import ComponentError

TEACHER_KEYS = ("teachers", "n_teachers")
KINDS = {
    "loss": "losses",
    "weighting": "weightings",
    "hint": "hints",
    "schedule": "schedules",
    "model": "models",
}
"""The catalog kind behind each component key of a student."""

# A mapping that names something else than the base does replaces it; parameters do not carry over.
_NAMING = ("name", "kind")


def apply_point(student: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """Return the student's values overridden by a point; the point's teachers are left out.

    ``{"loss": {"temperature": 2}}`` changes the temperature of the student's loss, and
    ``{"loss": {"name": "dkd"}}`` replaces the loss unless it is already ``dkd``.
    """
    values = {key: value for key, value in point.items() if key not in TEACHER_KEYS}
    return _merged(student, values)


def student_at(config: SweepConfig, point: Mapping[str, Any]) -> StudentConfig:
    """Return the student of a point, validated."""
    base = config.student.model_dump(mode="json")
    return StudentConfig.model_validate(apply_point(base, point))


def teachers_at(config: SweepConfig, point: Mapping[str, Any]) -> list[str]:
    """Return the names of a point's teachers; all of them if it does not say."""
    return list(point.get("teachers") or [teacher.name for teacher in config.teachers])


def default_point(config: SweepConfig) -> dict[str, Any]:
    """Return the point a search tries first: the student's own values where the space has them."""
    return config.search_space().default_point(preferred(config))


def grid_points(config: SweepConfig) -> list[dict[str, Any]]:
    """Return every combination of the space's grids, the rest as in `default_point`."""
    return config.search_space().grid_points(preferred(config))


def preferred(config: SweepConfig) -> dict[str, Any]:
    """Map paths of ranges to the student's own value, or else the component's default.

    This is what `Space.default_point` and `Space.grid_points` take to start from.
    """
    student = config.student.model_dump(mode="json")
    result = {}
    for leaf in config.search_space().leaves():
        value = _own_value(student, leaf)
        if value is not None:
            result[leaf.path] = value
    return result


def _own_value(student: Mapping[str, Any], leaf: Leaf) -> Any:
    value: Any = student
    for part in leaf.key:
        if not isinstance(value, Mapping):
            return None
        if part == leaf.key[-1] and leaf.owner not in (None, value.get("name")):
            return _component_default(leaf)
        value = value.get(part)
    return _component_default(leaf) if value is None else value


def _component_default(leaf: Leaf) -> Any:
    """Return the default of a component's parameter; None if there is none to be found."""
    kind = KINDS.get(leaf.key[0])
    if kind is None or leaf.owner is None or len(leaf.key) != 2:
        return None
    try:
        parameters = catalog.parameters(kind, leaf.owner)
    except ComponentError:
        return None
    found = {parameter.name: parameter.default for parameter in parameters}.get(leaf.key[1])
    return found if isinstance(found, (int, float)) else None


def _merged(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(dict(base))
    for key, value in new.items():
        current = result.get(key)
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            replaces = any(
                value.get(naming, current.get(naming)) != current.get(naming) for naming in _NAMING
            )
            result[key] = copy.deepcopy(dict(value)) if replaces else _merged(current, value)
        else:
            result[key] = copy.deepcopy(value)
    return result
