"""Registered students that are to teach: downloaded before anything else needs them."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.home import Home
from orchestrator.schema import SweepConfig
from orchestrator.tracking.address import resolve_uri


def fetch_registered(config: SweepConfig, home: Home, tell: Callable[[str], None]) -> SweepConfig:
    """Return the config with a local folder in place of every registered teacher.

    An alias may point to another student tomorrow: the teacher is then another one, with outputs
    of its own.

    Raises:
        OrchestratorError: The registry does not answer, or does not have it.
    """
    if not any(teacher.registered for teacher in config.teachers):
        return config
    from orchestrator.exporting.registry import Registry, fetch

    registry = Registry(
        resolve_uri(home.path, config.tracking.uri),
        home.path,
        config.tracking.experiment or config.name,
    )
    teachers = []
    for teacher in config.teachers:
        if teacher.registered is not None:
            tell(f"fetching {teacher.registered}")
            folder = fetch(registry, teacher.registered, home.path / "registered")
            changes = {"registered": None, "exported": str(folder)}
            teacher = teacher.model_copy(update=changes)
        teachers.append(teacher)
    return config.model_copy(update={"teachers": tuple(teachers)})
