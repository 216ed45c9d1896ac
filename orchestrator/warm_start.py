"""Warm start: begin with what was best in an earlier sweep of the same data.

The earlier students are tried again as this sweep would train them; their old scores are not told
to the sampler, because a student of other epochs or other teachers has other scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.errors import PreflightError, Problem
from orchestrator.history import load_sweep_config
from orchestrator.home import Home
from orchestrator.points import default_point
from orchestrator.records import Stage, TrialState
from orchestrator.rows import attributes, open_tables, state_of
from orchestrator.schema import SweepConfig
from search_spaces.space import Space

MOST_WARM = 3
_WHERE = "search.warm_start"


def check_warm_start(config: SweepConfig, home: Home, digest: str) -> None:
    """Check that the earlier sweep is there and has seen the same data.

    Args:
        config: The sweep that is about to start.
        home: Where both are.
        digest: Of this sweep's data.

    Raises:
        PreflightError: It is not, or has not.
    """
    name = config.search.warm_start
    if name is None:
        return
    known = [sweep for sweep in home.sweeps() if sweep != config.name]
    if name not in known:
        listed = ", ".join(known) or "none"
        text = f"there is no earlier sweep {name!r} in {home.path}"
        raise PreflightError([Problem(_WHERE, text, f"there are: {listed}; or leave it out")])
    theirs = home.read_state(name).get("data", {}).get("digest")
    if theirs != digest:
        text = f"sweep {name!r} was run on other data, or on another split of it"
        cure = "give both the same data section, or leave it out"
        raise PreflightError([Problem(_WHERE, text, cure)])


def warm_points(config: SweepConfig, home: Home, space: Space) -> list[dict[str, Any]]:
    """Return the best points of the earlier sweep that lie in this space, best first.

    What its points do not say, because it did not search that, has this sweep's default.

    Args:
        config: The sweep that is about to search.
        home: Where the earlier one is.
        space: To draw from, with the teachers that passed the gate.
    """
    if config.search.warm_start is None:
        return []
    default = default_point(config)
    found: list[dict[str, Any]] = []
    for earlier in _best_points(config, home):
        kept = {key: value for key, value in earlier.items() if key in default}
        point = {**default, **kept}
        if space.contains(point) and point not in found:
            found.append(point)
        if len(found) == MOST_WARM:
            break
    return found


def _best_points(config: SweepConfig, home: Home) -> Iterator[Mapping[str, Any]]:
    """Yield the points of the earlier sweep's complete students, the best on dev first."""
    name = config.search.warm_start
    assert name is not None
    study = home.read_state(name)["studies"].get(Stage.STUDENTS)
    if study is None:
        return
    metric, direction = next(iter(config.search.objectives.items()))
    sign = -1.0 if direction == "max" else 1.0
    engine = open_tables(home.ledger_url(load_sweep_config(home, name).ledger.url_env))
    scored = [
        (sign * outcome["metrics"][metric], number, described["point"])
        for number, described, outcome in attributes(engine, study)
        if outcome is not None
        and state_of(outcome) is TrialState.COMPLETE
        and described["point"].get("teachers")
        and outcome["metrics"].get(metric) is not None
    ]
    for _, _, point in sorted(scored, key=lambda entry: entry[:2]):
        yield point
