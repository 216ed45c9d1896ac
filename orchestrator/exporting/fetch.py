"""Registered students that are to teach or to answer: downloaded, once, into the home."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.home import Home
from orchestrator.schema import SweepConfig
from orchestrator.tracking.address import resolve_uri

REGISTERED = "models:/"

_FOLDER = "registered"  # below the home
_NAMED = re.compile(r"models:/(?P<name>[^/@]+)(@[^/@]+|/\d+)")


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
            folder = fetch(registry, teacher.registered, home.path / _FOLDER)
            changes = {"registered": None, "exported": str(folder)}
            teacher = teacher.model_copy(update=changes)
        teachers.append(teacher)
    return config.model_copy(update={"teachers": tuple(teachers)})


def fetch_model(home: Home, model: str) -> Path:
    """Return the folder of a registered student, downloading it once.

    It is looked for where the sweep of its name reports to, if that sweep is known here, else
    where ``MLFLOW_TRACKING_URI`` says, else in the home's own database.

    Args:
        home: Downloads are kept in it.
        model: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Raises:
        UsageError: It is written in another way.
        OrchestratorError: The registry does not answer, or does not have it.
    """
    found = _NAMED.fullmatch(model)
    if found is None:
        raise UsageError(
            f"cannot read {model!r}; write models:/NAME@ALIAS or models:/NAME/VERSION, "
            "e.g. models:/news@champion"
        )
    from orchestrator.exporting.registry import Registry, fetch

    name = found["name"]
    settings = home.read_state(name).get("config", {}).get("tracking") or {}
    uri = settings.get("uri") or os.environ.get("MLFLOW_TRACKING_URI")
    experiment = settings.get("experiment") or name
    return fetch(
        Registry(resolve_uri(home.path, uri), home.path, experiment), model, home.path / _FOLDER
    )
