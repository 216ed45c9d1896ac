import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import PreflightError, SweepLocked, UsageError
from orchestrator.home import Home
from orchestrator.status import _is_held

HOLD = """
import sys, time
from orchestrator.home import Home
with Home(sys.argv[1]).lock("news"):
    print("held", flush=True)
    time.sleep(120)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_driver_is_refused_until_the_first_is_gone(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    home = Home(tmp_path)
    assert _is_held(home, "news")
    with (
        pytest.raises(SweepLocked, match="another driver is running sweep 'news'"),
        home.lock("news"),
    ):
        pytest.fail("the lock was given twice")
    with home.lock("other"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with home.lock("news"):
        pass
    assert not _is_held(home, "news")


def test_a_look_at_the_status_does_not_refuse_a_driver(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with home.lock("news"):
        pass
    looker = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("120", "0.1"), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        with home.lock("news"):
            pass


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_a_problem_with_a_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PreflightError, match="name another --home"), Home(tmp_path).lock("news"):
        pass


def test_a_home_below_a_file_is_a_problem_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    home = Home(tmp_path / "file")
    with pytest.raises(PreflightError, match="cannot be written"), home.lock("news"):
        pass


def test_the_environment_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "there"))
    assert Home().path == tmp_path / "there"
    monkeypatch.delenv("ORCHESTRATOR_HOME")
    monkeypatch.chdir(tmp_path)
    assert Home().path == tmp_path / ".orchestrator"
    assert not Home().path.exists()


def test_the_latest_sweep_is_the_default(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with pytest.raises(UsageError, match="no sweep has been started"):
        home.find_sweep(None)
    for age, name in enumerate(("new", "old")):
        home.write_state(name, {"config": {}})
        moment = time.time() - age
        os.utime(home.sweep(name) / "sweep.json", (moment, moment))
    assert home.sweeps() == ["old", "new"]
    assert home.find_sweep(None) == "new"
    assert home.find_sweep("old") == "old"
    with pytest.raises(UsageError, match=r"no sweep 'newest' .* there are: old, new"):
        home.find_sweep("newest")


def test_the_state_of_an_unknown_sweep_is_empty(tmp_path: Path) -> None:
    assert Home(tmp_path).read_state("news") == {}


def test_a_database_url_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    assert home.ledger_url() == f"sqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.delenv("NEWS_LEDGER", raising=False)
    with pytest.raises(PreflightError, match="the environment variable NEWS_LEDGER is not set"):
        home.ledger_url("NEWS_LEDGER")
    monkeypatch.setenv("NEWS_LEDGER", "postgresql://host/db")
    assert home.ledger_url("NEWS_LEDGER") == "postgresql://host/db"


URL = "memory://bucket/prefix"


def test_the_store_is_a_folder_or_what_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_STORE", raising=False)
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    assert Home(tmp_path).store.address == str(tmp_path / "store")
    assert Home(tmp_path, store=f"{URL}/").store.address == URL
    monkeypatch.setenv("ORCHESTRATOR_STORE", URL)
    assert Home(tmp_path).store.address == URL
    assert Home(tmp_path).store.root.is_relative_to(tmp_path / "cache")
    assert Home(tmp_path, store="memory://other").store.address == "memory://other"


def test_a_home_remembers_its_store_once_a_sweep_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_STORE", raising=False)
    with Home(tmp_path, store=URL).lock("news"):
        pass
    assert Home(tmp_path).store.remote is None  # it may have been refused for its address
    Home(tmp_path, store=URL).write_state("news", {"config": {}})
    for home in (Home(tmp_path), Home(tmp_path, store=f"{URL}/")):
        assert home.store.address == URL
    with pytest.raises(UsageError, match=r"artifacts in memory://bucket/prefix; name another"):
        _ = Home(tmp_path, store="memory://other").store


def test_a_home_with_sweeps_stays_with_its_folder(tmp_path: Path) -> None:
    Home(tmp_path).write_state("news", {"config": {}})
    with pytest.raises(UsageError, match=r"in its folder store/; name another --home"):
        _ = Home(tmp_path, store=URL).store
    assert Home(tmp_path).store.remote is None


def test_a_folder_is_no_name_of_a_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be a URL such as s3://.*got '/mnt/store'"):
        _ = Home(tmp_path, store="/mnt/store").store
