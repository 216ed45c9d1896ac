"""Planning from the command line: load, prepare, count; nothing is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator import preflight
from orchestrator.exporting.fetch import fetch_registered
from orchestrator.home import Home
from orchestrator.materials import prepare_data, prepare_materials
from orchestrator.plan import Plan, make_plan
from orchestrator.schema import SweepConfig
from orchestrator.sweep import Options, as_preflight
from orchestrator.warm_start import check_warm_start
from trainables.errors import TrainableError


def plan_sweep(
    config: SweepConfig,
    home: Path | None,
    *,
    store: str | None = None,
    cpus: int | None,
    gpus: int | None,
    estimate: bool,
    tell: Callable[[str], None],
) -> Plan:
    """Return the plan of a config; data and tokens it prepares stay in the store.

    Raises:
        PreflightError: The sweep could not be started as it is; lists every problem.
    """
    place = Home(home, store=store)
    options = Options(cpus=cpus, gpus=gpus)
    preflight.check_home(place)
    preflight.check_resources(config, options)
    try:
        config = fetch_registered(config, place, tell)
        data = prepare_data(config, place.store, tell)
        preflight.check_methods(config, data)
        check_warm_start(config, place, data.digest)
        materials = prepare_materials(config, data, place.store, tell)
    except TrainableError as error:
        raise as_preflight(error) from error
    if estimate:
        tell("timing a few steps of each model")
    return make_plan(
        config,
        materials,
        place,
        lambda resources: preflight.expected_slots(resources, options),
        estimate=estimate,
    )
