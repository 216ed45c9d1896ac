"""A lease in a store behind a URL: one holder, whoever asks and from wherever."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from trainables.errors import StoreError
from trainables.lease import SWEEP_VARIABLE, Lease
from trainables.process import Process
from trainables.remote import Remote
from trainables.remote_lease import RemoteSpot

KEY = "a" * 64
NAME = f"teacher-{KEY}"
PLACE = f"leases/{NAME}"


@pytest.fixture
def remote(s3: str) -> Iterator[Remote]:
    yield Remote(s3)


def lease(remote: Remote, **options: float) -> Lease:
    return Lease(Path("unused"), "teacher", KEY, remote=remote, **options)


def of_another_host(remote: Remote, sweep: str | None = None) -> None:
    foreign = Process("elsewhere", "another kernel", 1, "0")
    text = json.dumps({"token": "t", "sweep": sweep, **foreign.to_dict()})
    remote.write(PLACE, text.encode())


def make_older(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let all that is there look as if it had been written some time ago."""
    honest = Remote.modified

    def modified(self: Remote, name: str) -> object:
        when = honest(self, name)
        old = when is not None and "probe" not in name
        return when - timedelta(seconds=seconds) if when is not None and old else when

    monkeypatch.setattr(Remote, "modified", modified)


def test_one_holder_at_a_time(remote: Remote) -> None:
    first, second = lease(remote), lease(remote)
    assert first.take() is None
    assert second.take() == str(Process.current())
    assert (first.held, second.held) == (True, False)
    first.close()
    assert remote.names("leases") == []
    assert second.take() is None
    second.close()
    second.close()
    assert remote.names("leases") == []


def test_of_many_processes_one_gets_it(remote: Remote) -> None:
    code = (
        "import sys, time; from pathlib import Path; from trainables.lease import Lease\n"
        "from trainables.remote import Remote\n"
        "mine = Lease(Path('unused'), 'teacher', sys.argv[2], remote=Remote(sys.argv[1]))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(mine.take() is None, flush=True); sys.stdin.readline()\n"
    )
    command = [sys.executable, "-c", code, remote.url, KEY]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    answers = []
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in both:
        assert process.stdout is not None
        answers.append(process.stdout.readline().strip())
    for process in both:
        process.communicate("end\n", timeout=30)
    assert sorted(answers) == ["False", "True"]


def test_a_dead_process_is_followed_at_once(remote: Remote) -> None:
    code = (
        "import os, sys; from pathlib import Path; from trainables.lease import Lease\n"
        "from trainables.remote import Remote\n"
        "Lease(Path('x'), 'teacher', sys.argv[2], remote=Remote(sys.argv[1])).take(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, remote.url, KEY], check=False)
    assert remote.names("leases") == [PLACE]
    mine = lease(remote)
    assert mine.take() is None
    assert json.loads(remote.read(PLACE) or b"")["token"] == mine._token
    mine.close()
    assert remote.names("leases") == []


@pytest.mark.parametrize(("age", "taken"), [(100, False), (300, True)])
def test_a_silent_host_is_followed_after_a_while(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, age: float, taken: bool
) -> None:
    of_another_host(remote)
    make_older(monkeypatch, age)
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a wrong clock of this host
    mine = lease(remote, expiry=180)
    assert mine.take() == (None if taken else "process 1 on elsewhere")
    mine.close()


@pytest.mark.parametrize(("sweep", "taken"), [("mine", True), ("another", False), (None, False)])
def test_a_trial_of_the_same_sweep_is_followed_at_once(
    remote: Remote, monkeypatch: pytest.MonkeyPatch, sweep: str | None, taken: bool
) -> None:
    monkeypatch.setenv(SWEEP_VARIABLE, "mine")
    of_another_host(remote, sweep)
    second = lease(remote)
    assert (second.take() is None) is taken
    second.close()


def test_the_slower_follower_leaves_the_faster_alone(remote: Remote) -> None:
    of_another_host(remote)
    spot = RemoteSpot(remote, NAME, 180)
    assert spot.follow("t", b'{"token": "fast"}')
    assert not spot.follow("t", b'{"token": "slow"}')
    assert remote.read(PLACE) == b'{"token": "fast"}'
    assert remote.names("leases") == [PLACE]


def test_a_follower_that_died_is_followed(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    of_another_host(remote)
    remote.write(f"{PLACE}.after-t", b"{}")
    spot = RemoteSpot(remote, NAME, 180)
    assert not spot.follow("t", b'{"token": "mine"}')
    assert len(remote.names("leases")) == 2
    make_older(monkeypatch, 300)
    assert not spot.follow("t", b'{"token": "mine"}')  # clears its mark
    assert spot.follow("t", b'{"token": "mine"}')
    assert remote.names("leases") == [PLACE]


def test_a_holder_stays_fresh_and_leaves_a_successor_alone(remote: Remote) -> None:
    mine = lease(remote, beat=0.05, expiry=10)
    writes: list[str] = []
    honest = remote.write
    remote.write = lambda name, content: (writes.append(name), honest(name, content))[1]  # type: ignore[method-assign]
    mine.take()
    deadline = time.monotonic() + 30
    while len(writes) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    honest(PLACE, b'{"token": "successor"}')
    mine._spot.beat(mine._content)
    mine.close()
    assert remote.read(PLACE) == b'{"token": "successor"}'


def test_a_torn_lease_counts_by_its_age(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    remote.write(PLACE, b"")
    assert lease(remote).take() == "another process"
    make_older(monkeypatch, 300)
    mine = lease(remote)
    assert mine.take() is None
    mine.close()


def test_a_service_that_refuses(s3: str) -> None:
    with pytest.raises(StoreError, match="cannot write s3://no-such-bucket/x/leases"):
        lease(Remote("s3://no-such-bucket/x")).take()
