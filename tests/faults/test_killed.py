"""Processes that die: the driver, a trial's worker, a node, and what they leave behind."""

import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.leftovers import PREFIX
from orchestrator.tracking.events import TrialStarted

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(900)]
SLOW = {"name": "stand_ins:Slow", "seconds": 0.15}
STUDENTS = 6


def folders_of(pid: int) -> list[Path]:
    """List the temporary folders, of Tune and of Ray, that a process has claimed."""
    places = [*Path(tempfile.gettempdir()).glob(f"{PREFIX}*"), *Path("/tmp/ray").glob("session_2*")]
    owners = [folder / "orchestrator-owner.json" for folder in places]
    return [o.parent for o in owners if o.is_file() and f'"pid": {pid},' in o.read_text()]


def workers_of(driver: int) -> list[int]:
    """List the processes that run trials, of the session that a driver has started."""
    sessions = [folder.name for folder in folders_of(driver) if "session_" in folder.name]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::ResourceTrainable") and any(s in _files(entry) for s in sessions):
            found.append(int(entry.name))
    return found


def _files(process: Path) -> str:
    """Return the names of a process's open files: its logs lie in the folder of its session."""
    names = []
    for link in (process / "fd").glob("*"):
        try:
            names.append(os.readlink(link))
        except OSError:
            continue
    return " ".join(names)


@pytest.mark.brief
def test_driver_killed_twice_at_random_moments(fresh: Any, figure: Any) -> None:
    config = fresh.config(**{"student.loss": SLOW, "search.trials": STUDENTS})
    rng = random.Random()
    before, left = [], []
    for _ in range(2):
        run = fresh.start(config)
        run.wait_until(fresh.sign_of_life())
        time.sleep(rng.uniform(0, 1.5))
        run.kill(signal.SIGKILL)
        before.append(sum(fresh.trained().values()))
        left += folders_of(run.process.pid)
    fresh.sweep(config)
    counts = fresh.expect_whole(STUDENTS)
    figure(
        epochs_at_the_kills=before,
        trials=counts.trials,
        epochs=counts.epochs,
        trained_twice=counts.twice,
        points=counts.points,
        doubled=counts.doubled,
        still_running=counts.open,
        folders=f"{len(left)} left, {sum(folder.exists() for folder in left)} after",
    )
    assert counts.twice == 0
    assert len(left) >= 2
    assert not any(folder.exists() for folder in left)


def test_a_workers_death_costs_its_epoch_in_flight(bench: Any, figure: Any) -> None:
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    victims = workers_of(run.process.pid)
    assert len(victims) == 2
    os.kill(victims[0], signal.SIGKILL)
    assert run.wait() == 0, run.text()
    counts = bench.expect_whole(4)
    restarts = bench.starts() - len({(e.stage, e.key) for e in bench.events(TrialStarted)})
    figure(trials=counts.trials, epochs=counts.epochs, twice=counts.twice, restarts=restarts)
    assert counts.twice == 0
    assert restarts == 1


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch, ray_token: None) -> Iterator[Any]:
    """A cluster of two nodes with a CPU each, as processes of this machine."""
    # The default is half a minute of missed heartbeats; a dead node should be seen in seconds.
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    monkeypatch.setenv("RAY_health_check_failure_threshold", "4")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    yield cluster
    cluster.shutdown()


def test_a_node_that_is_gone(bench: Any, figure: Any, two_nodes: Any) -> None:
    second = two_nodes.add_node(num_cpus=1)
    two_nodes.wait_for_nodes()
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config, "--address", two_nodes.address)
    run.wait_until(lambda: bench.reported() >= 2)
    two_nodes.remove_node(second, allow_graceful=False)
    assert run.wait() == 0, run.text()
    counts = bench.expect_whole(4)
    figure(trials=counts.trials, epochs=counts.epochs, twice=counts.twice, starts=bench.starts())
    assert counts.twice == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(bench: Any, figure: Any, number: signal.Signals) -> None:
    """``docker stop`` and ``ray job stop`` send SIGTERM; Ctrl-C sends SIGINT."""
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    assert run.kill(number) == 130, run.text()
    assert "everything so far is kept and the same command continues" in run.text()
    assert "Traceback" not in run.text()
    assert bench.running_runs() == 0
    at_the_stop = sum(bench.trained().values())
    bench.sweep(config)
    counts = bench.expect_whole(4)
    figure(signal=number.name, epochs_at_the_stop=at_the_stop, epochs=counts.epochs)
    assert counts.twice == 0


def test_a_stop_that_is_followed_by_sigkill(bench: Any, figure: Any) -> None:
    """``ray job stop`` waits for three seconds only, and an epoch takes six here."""
    config = bench.config(**{"student.loss": {**SLOW, "seconds": 1.5}, "search.trials": 2})
    run = bench.start(config)
    run.wait_until(lambda: "students" in {str(e.stage) for e in bench.events(TrialStarted)})
    run.process.send_signal(signal.SIGTERM)
    time.sleep(3)
    run.end()
    bench.sweep(config)
    counts = bench.expect_whole(2)
    figure(trials=counts.trials, epochs=counts.epochs, twice=counts.twice)
    assert counts.twice == 0
