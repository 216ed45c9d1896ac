import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainables.errors import StoreError
from trainables.lease import SWEEP_VARIABLE, Lease
from trainables.process import Process

KEY = "a" * 64


def lease(root: Path, **options: float) -> Lease:
    return Lease(root, "teacher", KEY, **options)


def file(root: Path) -> Path:
    return root / "leases" / f"teacher-{KEY}"


def of_another_host(root: Path, seconds_old: float, sweep: str | None = None) -> None:
    """Write the lease of a process that this host knows nothing about."""
    foreign = Process("elsewhere", "another kernel", 1, "0")
    file(root).parent.mkdir(parents=True, exist_ok=True)
    file(root).write_text(json.dumps({"token": "t", "sweep": sweep, **foreign.to_dict()}))
    when = time.time() - seconds_old
    os.utime(file(root), (when, when))


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = lease(tmp_path), lease(tmp_path)
    assert first.take() is None
    assert second.take() == str(Process.current())
    assert (first.held, second.held) == (True, False)
    first.close()
    assert not file(tmp_path).exists()
    assert second.take() is None
    second.close()
    second.close()


def test_other_artifacts_are_other_leases(tmp_path: Path) -> None:
    first, other = lease(tmp_path), Lease(tmp_path, "student", KEY)
    assert first.take() is other.take() is None
    first.close()
    other.close()


def test_a_dead_process_is_followed_at_once(tmp_path: Path) -> None:
    take = "import sys; from pathlib import Path; from trainables.lease import Lease; "
    take += "import os; Lease(Path(sys.argv[1]), 'teacher', sys.argv[2]).take(); os._exit(9)"
    subprocess.run([sys.executable, "-c", take, str(tmp_path), KEY], check=False)
    assert file(tmp_path).exists()
    mine = lease(tmp_path)
    assert mine.take() is None
    assert json.loads(file(tmp_path).read_text())["pid"] == os.getpid()
    mine.close()


@pytest.mark.parametrize(("age", "taken"), [(170, False), (190, True)])
def test_a_silent_host_is_followed_after_a_while(tmp_path: Path, age: float, taken: bool) -> None:
    of_another_host(tmp_path, age)
    mine = lease(tmp_path, expiry=180)
    assert mine.take() == (None if taken else "process 1 on elsewhere")
    mine.close()


@pytest.mark.parametrize(("sweep", "taken"), [("mine", True), ("another", False), (None, False)])
def test_a_trial_of_the_same_sweep_is_followed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: str | None, taken: bool
) -> None:
    monkeypatch.setenv(SWEEP_VARIABLE, "mine")
    of_another_host(tmp_path, 1.0, sweep)
    second = lease(tmp_path)
    assert (second.take() is None) is taken
    second.close()


def test_a_wrong_clock_of_this_host_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another_host(tmp_path, 5)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert lease(tmp_path).take() == "process 1 on elsewhere"


def test_a_holder_stays_fresh(tmp_path: Path) -> None:
    mine = lease(tmp_path, beat=0.05, expiry=10)
    mine.take()
    os.utime(file(tmp_path), (0, 0))
    deadline = time.monotonic() + 20
    while file(tmp_path).stat().st_mtime == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    mine.close()


def test_one_that_slept_too_long_leaves_its_successor_alone(tmp_path: Path) -> None:
    sleeper = lease(tmp_path)
    sleeper.take()
    file(tmp_path).unlink()
    successor = lease(tmp_path)
    assert successor.take() is None
    sleeper.close()
    assert json.loads(file(tmp_path).read_text())["token"] == successor._token
    assert lease(tmp_path).take() is not None
    successor.close()
    assert [p.name for p in (tmp_path / "leases").iterdir()] == []


def test_a_torn_lease_counts_by_its_age(tmp_path: Path) -> None:
    of_another_host(tmp_path, 5)
    file(tmp_path).write_bytes(b"")
    assert lease(tmp_path).take() == "another process"
    os.utime(file(tmp_path), (0, 0))
    mine = lease(tmp_path)
    assert mine.take() is None
    mine.close()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"cannot write a lease in .*start the same command"):
        lease(tmp_path / "file").take()


def test_rules_of_the_times(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0 < beat < expiry must hold, but got beat=5"):
        lease(tmp_path, beat=5, expiry=5)
