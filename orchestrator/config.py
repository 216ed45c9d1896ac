"""Loads a config: from a file or preset and ``--set`` overrides to a checked `SweepConfig`.

Whatever is wrong is collected and reported at once: values of the wrong kind, unknown keys,
domains of the search space, components and their parameters, and references between sections.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import ConfigError, Problem
from orchestrator.paths import resolve_paths
from orchestrator.schema import (
    BudgetConfig,
    ConfirmConfig,
    DataConfig,
    EarlyStoppingConfig,
    EmbeddingConfig,
    LedgerConfig,
    ResourcesConfig,
    SearchConfig,
    StageResources,
    StudentConfig,
    SweepConfig,
    TeacherConfig,
    TokenizerConfig,
    TrackingConfig,
)
from orchestrator.wording import Location, key_path, problems_of
from search_spaces.errors import ConfigFileError, OverrideError
from search_spaces.loader import apply_overrides, load_yaml, locate

__all__ = [
    "BudgetConfig",
    "ConfirmConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "EmbeddingConfig",
    "LedgerConfig",
    "ResourcesConfig",
    "SearchConfig",
    "StageResources",
    "StudentConfig",
    "SweepConfig",
    "TeacherConfig",
    "TokenizerConfig",
    "TrackingConfig",
    "load_config",
    "parse_config",
]

_MODEL = {"name": "linear"}
_STAND_INS: Mapping[str, Any] = {
    "name": "stand-in",
    "data": {"path": "stand-in.csv"},
    "teachers": [{"name": "stand-in", "model": _MODEL}],
    "model": _MODEL,
}
_ROUNDS = 6


def load_config(source: str | Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Load, override and check a config.

    Args:
        source: A YAML file, or the name of a preset.
        overrides: ``key.path=value``, applied in order. Paths in them are relative to the working
            directory, paths in the file to the file.

    Raises:
        ConfigError: Lists every problem.
    """
    try:
        folder = locate(source).absolute().parent
        mapping = resolve_paths(load_yaml(source), [folder])
        mapping = apply_overrides(mapping, overrides)
    except (ConfigFileError, OverrideError) as error:
        raise ConfigError([Problem("", str(error))]) from error
    return parse_config(resolve_paths(mapping, [Path.cwd(), folder], final=True))


def parse_config(mapping: Mapping[str, Any]) -> SweepConfig:
    """Check a config given as plain data.

    Raises:
        ConfigError: Lists every problem.
    """
    # Imports the components, and with them torch: not paid by those who only read the schema.
    from orchestrator.checks import CHECKS

    config, found = _validate(mapping)
    problems = [problem for _, problem in found]
    bad = [location for location, _ in found]
    readable = config or _salvage(mapping, bad)
    if readable is not None:
        for check, sections in CHECKS:
            if not any(_unreadable(location, sections) for location in bad):
                problems.extend(p for p in check(readable) if not _below(p.where, bad))
    if problems or config is None:
        raise ConfigError(list(dict.fromkeys(problems)))
    return config


def _validate(
    mapping: Mapping[str, Any],
) -> tuple[SweepConfig | None, list[tuple[Location, Problem]]]:
    try:
        return SweepConfig.model_validate(mapping), []
    except ValidationError as error:
        return None, problems_of(error.errors())


def _salvage(mapping: Mapping[str, Any], bad: Sequence[Location]) -> SweepConfig | None:
    """Return the config without its bad values, so that the rest of it can be checked too."""
    values = copy.deepcopy(dict(mapping))
    for _ in range(_ROUNDS):
        for location in sorted(set(bad), key=len, reverse=True):
            _replace(values, location)
        config, found = _validate(values)
        if config is not None:
            return config
        bad = [location for location, _ in found]
    return None


def _replace(values: Any, location: Location) -> None:
    """Take the value at ``location`` out; put a stand-in where one is required."""
    *parents, last = location
    for parent in parents:
        if not isinstance(values, (dict, list)):
            return
        values = values[parent]  # type: ignore[index]
    if isinstance(last, int):
        values[last] = {"name": f"stand-in-{last}", "model": _MODEL}
    elif isinstance(values, dict) and values.pop(last, None) is None and last in _STAND_INS:
        values[last] = copy.deepcopy(_STAND_INS[last])


def _unreadable(location: Location, sections: Sequence[str]) -> bool:
    """Tell whether a section as a whole, or a teacher's identity, could not be read."""
    if location[0] not in sections:
        return False
    whole = len(location) == 1 or location[-1] == "name"
    return whole or (location[0] == "teachers" and len(location) == 2)


def _below(where: str, bad: Sequence[Location]) -> bool:
    """Tell whether a place is one that is reported already."""
    return any((where + ".").startswith((f"{key_path(b)}.", f"{key_path(b)}[")) for b in bad)
