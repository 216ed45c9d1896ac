"""Other clocks and other places: all of it must simply work."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking.events import TrialReported

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(900)]
SLOW = {"name": "stand_ins:Slow", "seconds": 0.15}
CHECKOUT = Path(__file__).parents[2]


# Python runs a module of this name before all others, in the driver and in each of its workers.
# libfaketime would reach further, but makes time.sleep fail: EINVAL from clock_nanosleep.
A_YEAR_AGO = """
import time

def _set_back(clock, year):
    return lambda: clock() - year

time.time = _set_back(time.time, 365 * 86400)
time.time_ns = _set_back(time.time_ns, 365 * 86400 * 10**9)
"""


def test_the_clock_is_set_back_between_two_starts(bench: Any, figure: Any, tmp_path: Path) -> None:
    """The second driver, with all its workers, lives a year before the first."""
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    run.kill()
    before = sum(bench.trained().values())
    told = max(event.time_ms for event in bench.events(TrialReported))
    past = tmp_path / "past"
    past.mkdir()
    (past / "sitecustomize.py").write_text(A_YEAR_AGO)
    bench.sweep(config, PYTHONPATH=os.pathsep.join([str(past), str(Path(__file__).parent)]))
    counts = bench.expect_whole(4)
    later = [event.time_ms for event in bench.events(TrialReported) if event.time_ms < told - 10**9]
    figure(epochs_before=before, epochs=counts.epochs, in_the_past=len(later), twice=counts.twice)
    assert counts.twice == 0
    assert later, "the clock was not set back"


@pytest.mark.usefixtures("shared_ray")
def test_a_home_that_is_moved(bench: Any, figure: Any, tmp_path: Path) -> None:
    bench.sweep(bench.config(**{"search.trials": 2}))
    before = bench.trained()
    target = tmp_path / "elsewhere" / "home"
    target.parent.mkdir()
    bench.home = Path(shutil.move(bench.home, target))
    bench.sweep(bench.config())
    counts = bench.expect_whole(4)
    new = bench.trained() - before
    figure(trials_before=2, trials=4, epochs_again=sum((before & new).values()))
    assert {key for _, key, _ in new}.isdisjoint({key for _, key, _ in before})
    assert counts.twice == 0
    assert not (tmp_path / "home").exists()


def test_a_read_only_checkout(bench: Any, figure: Any) -> None:
    """The code lies on a file system that nobody can write, root included."""
    prefix = (
        *("unshare", "--mount", "sh", "-c"),
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"',
        str(CHECKOUT),
    )
    allowed = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if allowed.returncode:
        pytest.skip(f"mounting is not permitted here: {allowed.stderr.strip()}")
    refused = subprocess.run(
        [*prefix, "touch", str(CHECKOUT / "written")], capture_output=True, check=False
    )
    assert refused.returncode != 0
    bench.sweep(bench.config(), prefix=prefix)
    counts = bench.expect_whole(4)
    figure(trials=counts.trials, points=counts.points)
    assert os.access(CHECKOUT, os.W_OK)
