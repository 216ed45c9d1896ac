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


def faketime() -> Path:
    found = list(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (apt-get install libfaketime)")
    return found[0]


def test_the_clock_is_set_back_between_two_starts(bench: Any, figure: Any) -> None:
    """The second driver, with all its workers, lives a year before the first."""
    library = faketime()
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    run.kill()
    before = sum(bench.trained().values())
    told = max(event.time_ms for event in bench.events(TrialReported))
    bench.sweep(
        config,
        LD_PRELOAD=str(library),
        FAKETIME="-365d",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        DONT_FAKE_MONOTONIC="1",
    )
    counts = bench.expect_whole(4)
    later = [event.time_ms for event in bench.events(TrialReported) if event.time_ms < told - 10**9]
    figure(epochs_before=before, epochs=counts.epochs, in_the_past=len(later), twice=counts.twice)
    assert counts.twice == 0
    assert later, "the clock was not set back"


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
