"""MLflow that is down, dies, is slow or refuses: training must not notice, and nothing is lost."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from orchestrator.records import Stage
from orchestrator.tracking.events import TrialReported

pytestmark = [
    pytest.mark.faults,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("shared_ray"),
]
# Long enough epochs that a driver which stands still would be seen between them.
CHANGES = {"student.loss": {"name": "stand_ins:Slow", "seconds": 0.1}, "student.epochs": 6}
TRIALS, EPOCHS = 4, 6


class Proxy:
    """Stands before a server and passes requests on: at once, late, or not at all.

    Attributes:
        delay: Seconds each request waits.
        refuse: Whether all are answered 403.
        requests: How many have come.
    """

    def __init__(self, target: str) -> None:
        self.delay = 0.0
        self.refuse = False
        self.requests = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                proxy.requests += 1
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else None
                time.sleep(proxy.delay)
                if proxy.refuse:
                    self._answer(403, b"Invalid Host header - possible DNS rebinding attack")
                    return
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                request = urllib.request.Request(
                    target + self.path, body, headers, method=self.command
                )
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        self._answer(answer.status, answer.read())
                except urllib.error.HTTPError as error:
                    self._answer(error.code, error.read())

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._web.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._web.server_port}"
        threading.Thread(target=self._web.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._web.shutdown()
        self._web.server_close()


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    made = Proxy(server.uri)
    yield made
    made.close()


def training_seconds(bench: Any) -> float:
    """Sum, over the students, the seconds from the first report to the last.

    It holds the epochs and whatever a report had to wait for, and not the start of processes.
    """
    times: dict[str, list[int]] = {}
    for event in bench.events(TrialReported):
        if event.stage is Stage.STUDENTS and not event.again:
            times.setdefault(event.key, []).append(event.time_ms)
    assert len(times) == TRIALS
    return sum(max(moments) - min(moments) for moments in times.values()) / 1000


def undelivered(bench: Any) -> int:
    return int(json.loads(bench.call("status", "--json").stdout)["undelivered"])


def expect_delivered(bench: Any, server: Any) -> int:
    """Check that MLflow holds every epoch of every trial once; returns the number of points."""
    counts = bench.counts(database=server.database)
    assert (counts.doubled, counts.open) == (0, 0)
    steps = bench.steps(database=server.database)
    assert sorted(steps) == sorted(r.key for r in bench.results())
    assert list(steps.values()) == [list(range(1, EPOCHS + 1))] * TRIALS
    return counts.points


@pytest.fixture(scope="module")
def healthy(make_bench: Any, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The training seconds of the same trials without any trouble: MLflow is a local file."""
    bench = make_bench(tmp_path_factory.mktemp("healthy"))
    bench.address = ray_address
    bench.sweep(bench.config(**CHANGES))
    return training_seconds(bench)


@pytest.mark.brief
def test_down_from_the_start(bench: Any, server: Any, healthy: float, figure: Any) -> None:
    text = bench.sweep(bench.config(**CHANGES, tracking={"uri": server.uri}))
    assert "events have not reached MLflow" in text
    assert "'orchestrator sync' delivers them" in text
    lag = undelivered(bench)
    assert lag > TRIALS * EPOCHS
    server.start()
    bench.call("sync")
    assert undelivered(bench) == 0
    points = expect_delivered(bench, server)
    bench.call("sync")
    assert expect_delivered(bench, server) == points
    slowdown = training_seconds(bench) / healthy
    figure(lag=lag, after_sync=0, points=points, doubled=0, slowdown=f"{slowdown:.3f}")
    assert slowdown < 1.1


def test_dies_midway(bench: Any, server: Any, healthy: float, figure: Any) -> None:
    server.start()
    config = bench.config(**CHANGES, tracking={"uri": server.uri})
    run = bench.start(config)
    run.wait_until(lambda: bench.reported() >= 3)
    server.kill()
    assert run.wait() == 0, run.text()
    lag = undelivered(bench)
    assert lag > 0
    assert "events have not reached MLflow" in run.text()
    server.start()
    bench.sweep(config)  # the next start delivers, and trains nothing
    assert undelivered(bench) == 0
    points = expect_delivered(bench, server)
    slowdown = training_seconds(bench) / healthy
    figure(lag=lag, after_the_next_start=0, points=points, slowdown=f"{slowdown:.3f}")
    assert slowdown < 1.1


def test_five_seconds_for_every_request(
    bench: Any, server: Any, proxy: Proxy, healthy: float, figure: Any
) -> None:
    server.start()
    proxy.delay = 5.0
    bench.sweep(bench.config(**CHANGES, tracking={"uri": proxy.uri}))
    lag, slow = undelivered(bench), proxy.requests
    proxy.delay = 0.0
    bench.call("sync")
    assert undelivered(bench) == 0
    points = expect_delivered(bench, server)
    slowdown = training_seconds(bench) / healthy
    figure(slow_requests=slow, lag=lag, points=points, slowdown=f"{slowdown:.3f}")
    assert slow > 0
    assert slowdown < 1.1


def test_every_request_is_refused(
    bench: Any, server: Any, proxy: Proxy, healthy: float, figure: Any
) -> None:
    server.start()
    proxy.refuse = True
    text = bench.sweep(bench.config(**CHANGES, tracking={"uri": proxy.uri}))
    assert "403" in text
    lag = undelivered(bench)
    assert lag > TRIALS * EPOCHS
    proxy.refuse = False
    bench.call("sync")
    assert undelivered(bench) == 0
    points = expect_delivered(bench, server)
    slowdown = training_seconds(bench) / healthy
    figure(refused=proxy.requests, lag=lag, points=points, slowdown=f"{slowdown:.3f}")
    assert slowdown < 1.1
