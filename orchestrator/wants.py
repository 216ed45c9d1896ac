"""What a config may use, wherever it says so: the student, the search space and the arms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.schema import SweepConfig
from trainables import catalog
from trainables.protocols import Schedule, trait

_OPTIONS = ("choice", "grid", "fixed")


def components(config: SweepConfig, kind: str) -> list[dict[str, Any]]:
    """Return every component of a kind that a config may use, with its written parameters."""
    values: list[Any] = [getattr(config.student, kind), config.search.space.get(kind)]
    values += [arm.point.get(kind) for arm in config.arms]
    found: list[dict[str, Any]] = []
    while values:
        value = values.pop()
        if isinstance(value, str):
            found.append({"name": value})
        elif isinstance(value, list):
            values.extend(value)
        elif isinstance(value, Mapping):
            wrapped = [value[key] for key in _OPTIONS if key in value]
            if wrapped:
                values.extend(wrapped)
            elif "name" in value:
                found.append(dict(value))
    return found


def component_names(config: SweepConfig, kind: str) -> set[str]:
    """Return the names of the losses, weightings or hints a config may use."""
    return {str(value["name"]) for value in components(config, kind)}


def needs_features(config: SweepConfig) -> bool:
    """Tell whether any hint of the config compares features, fixed or searched."""
    hints = component_names(config, "hint")
    return any(catalog.load("hints", name).level == "features" for name in hints)


def anchors(config: SweepConfig) -> tuple[float, ...]:
    """Return the shares of teacher training, below 1, whose outputs a schedule may ask for."""
    wanted = {share for value in components(config, "schedule") for share in _anchors(value)}
    return tuple(sorted(wanted - {1.0}))


def schedule_anchors(schedule: Mapping[str, Any]) -> tuple[float, ...]:
    """Return the anchors of one schedule, the last is 1."""
    params = {name: value for name, value in schedule.items() if name != "name"}
    made = catalog.build("schedules", schedule["name"], **params)
    return tuple(trait(made, Schedule, "anchors"))


def _anchors(schedule: Mapping[str, Any]) -> Iterator[float]:
    written = schedule.get("anchors")
    if written is None:
        yield from schedule_anchors({"name": schedule["name"]})
        return
    pending = [written]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend(value[key] for key in _OPTIONS if key in value)
        elif isinstance(value, list | tuple):
            pending.extend(value)
        elif isinstance(value, int | float):
            yield float(value)
