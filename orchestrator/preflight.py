"""Checks made before anything is spent; each says what is wrong and how to mend it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import PreflightError, Problem
from orchestrator.home import Home
from orchestrator.records import Stage
from orchestrator.schema import StageResources, SweepConfig
from orchestrator.specs import component_names
from trainables import catalog
from trainables.dataset import PreparedData

if TYPE_CHECKING:
    from orchestrator.cluster import Node

MIN_FREE_BYTES = 500 * 2**20


class LocalOptions(Protocol):
    """The part of the options that says what a local cluster has."""

    address: str | None
    cpus: int | None
    gpus: int | None


def check_home(home: Home) -> None:
    """Check that the home can be written and that its disk has room.

    Raises:
        PreflightError: It cannot, or has not.
    """
    probe = home.path / f".probe-{os.getpid()}"
    try:
        home.path.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"orchestrator")
        probe.unlink()
        free = shutil.disk_usage(home.path).free
    except OSError as error:
        problem = Problem(
            str(home.path), f"cannot be written ({error.strerror})", "name another --home"
        )
        raise PreflightError([problem]) from error
    if free < MIN_FREE_BYTES:
        text = (
            f"only {free / 2**20:.0f} MB are free on its disk, {MIN_FREE_BYTES / 2**20:.0f} needed"
        )
        raise PreflightError([Problem(str(home.path), text, "free space or name another --home")])


def check_methods(config: SweepConfig, data: PreparedData) -> None:
    """Check that every method the config may use can work with this data.

    Raises:
        PreflightError: Some cannot; lists every one with its reason.
    """
    problems = []
    n_classes = len(data.classes)
    for name in sorted(component_names(config, "loss")):
        least = getattr(catalog.load("losses", name), "min_classes", 2)
        if n_classes < least:
            problems.append(
                Problem(
                    f"loss {name!r}",
                    f"is degenerate with {n_classes} classes, it needs {least}",
                    "use kd, ttm, wttm, wsld or abkd",
                )
            )
    if data.rows.get("transfer") and _uses_transfer(config):
        problems += [
            Problem(
                f"{kind} {name!r}",
                "needs labels, but the transfer rows have none",
                "take it out of student and search.space, or set student.transfer to false",
            )
            for kind, folder in (("loss", "losses"), ("weighting", "weightings"), ("hint", "hints"))
            for name in sorted(component_names(config, kind))
            if getattr(catalog.load(folder, name), "needs_labels", False)
        ]
    if problems:
        raise PreflightError(problems)


def _uses_transfer(config: SweepConfig) -> bool:
    if config.arms:
        return False  # each arm says for itself, and has been checked with the config
    return config.student.transfer or "transfer" in config.search.space


def check_resources(config: SweepConfig, options: LocalOptions) -> None:
    """Check that a trial of each stage fits on this machine; a cluster is asked when connected.

    Raises:
        PreflightError: A trial would wait for ever.
    """
    if options.address is not None:
        return
    cpus = options.cpus or os.cpu_count() or 1
    problems = []
    for stage in ("teacher", "outputs", "student", "confirm"):
        wanted: StageResources = getattr(config.resources, stage)
        if wanted.cpu > cpus:
            problems.append(
                Problem(
                    f"resources.{stage}.cpu",
                    f"{wanted.cpu:g} CPUs are asked for, but this machine has {cpus}",
                    f"set it to {cpus} or less, or run on a cluster with --address",
                )
            )
        if options.gpus and wanted.gpu > options.gpus:
            problems.append(
                Problem(
                    f"resources.{stage}.gpu",
                    f"{wanted.gpu:g} GPUs are asked for, but this machine has {options.gpus}",
                    f"set it to {options.gpus} or less",
                )
            )
    if problems:
        raise PreflightError(problems)


def expected_slots(resources: StageResources, options: LocalOptions) -> int:
    """Return how many trials this machine will run at once, for the estimate of the time left."""
    if options.address is not None:
        return 1
    cpus = options.cpus or os.cpu_count() or 1
    by_cpu = int(cpus / resources.cpu) if resources.cpu else cpus
    if options.gpus and resources.gpu:
        return max(1, min(by_cpu, int(options.gpus / resources.gpu)))
    return max(1, by_cpu)


def does_not_fit(stage: Stage, wanted: Mapping[str, float], nodes: Sequence[Node]) -> Problem:
    """Describe a trial that no node can hold: Ray would leave it pending for ever."""
    offers = ", ".join(f"{node.name} {node.cpu:g} CPU {node.gpu:g} GPU" for node in nodes)
    return Problem(
        f"resources ({stage})",
        f"a trial wants {wanted.get('cpu', 0):g} CPU and {wanted.get('gpu', 0):g} GPU, "
        f"but no node has that: {offers or 'there is no node'}",
        "lower the resources of this stage or add a node",
    )
