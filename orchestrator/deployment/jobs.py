"""Sweeps as jobs of a Ray cluster, over the Jobs API and its token.

A job runs on the head and goes on when the terminal that submitted it is closed. It ends with the
head, as Ray's own state does; what it has done is in store and ledger, and the next submission of
the same config continues there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from orchestrator.deployment import secrets
from orchestrator.deployment.packing import CONFIG
from orchestrator.deployment.release import Release
from orchestrator.errors import Interrupted, OrchestratorError, UsageError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
VARIABLE = "ORCHESTRATOR_CLUSTER"
_SWEEP = "sweep"  # a job's metadata; not secret
_RETRY_SECONDS = 2.0
_PROBE_SECONDS = 5.0
_MOST_NODES = 10_000  # what Ray lists at most; its default is a hundred


@dataclass(frozen=True)
class Job:
    """A submitted sweep.

    Attributes:
        id: Names it in ``logs`` and ``stop``.
        sweep: The config's name.
        status: Ray's word: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        exit_code: Of the driver; None while it runs, or if it was killed.
        started: Seconds since 1970.
        message: What Ray says about it.
    """

    id: str
    sweep: str
    status: str
    exit_code: int | None
    started: float
    message: str

    @property
    def finished(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in {"SUCCEEDED", "FAILED", "STOPPED"}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class NodeState:
    """An alive node of the cluster.

    Attributes:
        address: Its IP.
        head: Whether it is the head, which runs no trials.
        cpu: Logical CPUs.
        gpu: Logical GPUs.
        release: What is installed there.
    """

    address: str
    head: bool
    cpu: float
    gpu: float
    release: Release

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


class Cluster:
    """The Jobs API of one cluster.

    Args:
        address: Its dashboard, ``http://host:port``; None is the environment's, or this machine's.
        folder: The secrets, for the token.

    Raises:
        PreflightError: There is no token here.
        OrchestratorError: The cluster does not answer, or refuses the token.
    """

    def __init__(self, address: str | None, folder: Path) -> None:
        self.address = address or os.environ.get(VARIABLE) or DEFAULT_ADDRESS
        secrets.enter_ray(folder, os.environ)
        os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"  # what is named must arrive
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        # It tells of each connection it closes, and sets its own level when it is imported.
        logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.ERROR)
        try:
            self._client = JobSubmissionClient(self.address)
        except ConnectionError as error:
            raise OrchestratorError(self._no_answer()) from error
        except AuthenticationError as error:
            raise OrchestratorError(
                f"the cluster at {self.address} refuses the token in {folder}; take the one it "
                "was started with"
            ) from error

    def submit(self, sweep: str, folder: Path, arguments: Sequence[str] = ()) -> str:
        """Send a packed sweep and return the id of its job.

        Args:
            sweep: The name of the sweep.
            folder: What ``packing.pack`` wrote.
            arguments: Further arguments of ``orchestrator sweep``.

        Raises:
            UsageError: A job of this sweep is running.
        """
        for job in self.jobs():
            if job.sweep == sweep and not job.finished:
                raise UsageError(
                    f"sweep {sweep!r} is running as job {job.id}; follow it with 'orchestrator "
                    f"cluster logs {job.id}' or end it with 'cluster stop {job.id}'"
                )
        command = ["python", "-m", "orchestrator.deployment.job", CONFIG, *arguments]
        return str(
            self._client.submit_job(
                entrypoint=shlex.join(command),
                submission_id=f"{sweep}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}",
                runtime_env={"working_dir": str(folder)},
                metadata={_SWEEP: sweep},
            )
        )

    def jobs(self) -> list[Job]:
        """List the submitted sweeps, the latest last."""
        found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted((job for job in found if job.sweep), key=lambda job: job.started)

    def find(self, identifier: str | None) -> Job:
        """Return the job with an id, the latest job of the sweep of that name, or the latest.

        Raises:
            UsageError: There is none.
        """
        jobs = self.jobs()
        for job in reversed(jobs):
            if identifier in (None, job.id, job.sweep):
                return job
        known = ", ".join(job.id for job in jobs) or "none"
        raise UsageError(f"no job {identifier or ''!r} on {self.address}; there are: {known}")

    def stop(self, identifier: str, seconds: float = 180) -> Job:
        """Stop a job as Ctrl-C would stop its sweep, and wait until it has ended.

        Raises:
            OrchestratorError: It has not within ``seconds``.
        """
        self._client.stop_job(identifier)
        deadline = time.monotonic() + seconds
        while not (job := self.find(identifier)).finished:
            if time.monotonic() > deadline:
                raise OrchestratorError(
                    f"job {identifier} has not ended within {seconds:g} s; look at its logs with "
                    f"'orchestrator cluster logs {identifier}'"
                )
            time.sleep(0.5)
        return job

    def follow(self, identifier: str, write: Callable[[str], object], patience: float = 30) -> Job:
        """Pass on what a job prints, from its beginning, until it ends.

        Args:
            identifier: The job.
            write: Takes the next piece of text.
            patience: Seconds for which the cluster may be silent.

        Raises:
            OrchestratorError: The cluster is gone.
            Interrupted: Ctrl-C; the job goes on.
        """
        passed_on, lost = _PassOn(write), None
        try:
            while True:
                try:
                    self._probe()
                    asyncio.run(self._tail(identifier, passed_on))
                    job = self.find(identifier)
                except (OSError, RuntimeError, UsageError) as error:
                    lost = lost or time.monotonic()
                    if time.monotonic() - lost > patience:
                        raise OrchestratorError(self._gone(identifier)) from error
                else:
                    lost = None
                    if job.finished:
                        return job
                time.sleep(_RETRY_SECONDS)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"the sweep goes on; 'orchestrator cluster logs {identifier}' comes back to it, "
                f"'orchestrator cluster stop {identifier}' ends it"
            ) from error

    async def _tail(self, identifier: str, passed_on: _PassOn) -> None:
        passed_on.start_over()  # each connection tells the log from its beginning
        pieces = aiter(self._client.tail_job_logs(identifier))
        while True:
            following = asyncio.ensure_future(anext(pieces))
            # A head that lost power closes no connection: this one would wait for ever.
            while not (await asyncio.wait({following}, timeout=_PROBE_SECONDS))[0]:
                self._probe()
            try:
                passed_on(following.result())
            except StopAsyncIteration:
                return

    def _probe(self) -> None:
        """Look whether the cluster can be reached at all; an OSError says it cannot."""
        place = urlsplit(self.address)
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname, port), timeout=_PROBE_SECONDS).close()

    def nodes(self) -> list[NodeState]:
        """List the alive nodes, the head first.

        Raises:
            OrchestratorError: The cluster does not say.

        Source: ray 2.60, dashboard/state_aggregator.py, ``list_nodes``: it counts the dead nodes
        that the filter left out as missing output, on which the client would raise.
        """
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        alive = [("state", "=", "ALIVE")]
        try:
            found = list_nodes(
                address=self.address,
                detail=True,
                filters=alive,
                limit=_MOST_NODES,
                raise_on_missing_output=False,
            )
        except RayStateApiException as error:
            raise OrchestratorError(
                f"the cluster at {self.address} does not list its nodes; ask again in a moment"
            ) from error
        states = [
            NodeState(
                node.node_ip,
                bool(node.is_head_node),
                float(node.resources_total.get("CPU", 0)),
                float(node.resources_total.get("GPU", 0)),
                Release.of_labels(node.labels or {}),
            )
            for node in found
        ]
        return sorted(states, key=lambda node: (not node.head, node.address))

    def _no_answer(self) -> str:
        return (
            f"no cluster answers at {self.address}; start one with 'orchestrator cluster up', "
            "or name its dashboard with --address"
        )

    def _gone(self, identifier: str) -> str:
        return (
            f"job {identifier} is gone, as is everything Ray knew, if its head was lost; store and "
            "ledger are kept: submit the same config again and the sweep continues"
        )


class _PassOn:
    """Passes each character of a log on once, however often the log is told again."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._written = 0
        self._position = 0

    def start_over(self) -> None:
        self._position = 0

    def __call__(self, piece: str) -> None:
        new = piece[max(0, self._written - self._position) :]
        self._position += len(piece)
        if new:
            self._written = self._position
            self._write(new)


def exit_code(job: Job) -> int:
    """Return what the terminal should report for a finished job."""
    if job.status == "STOPPED":
        return Interrupted.exit_code
    if job.status == "SUCCEEDED":
        return 0
    # A driver that was killed has a negative code or none; a shell cannot report either.
    return job.exit_code if job.exit_code is not None and job.exit_code > 0 else 1


def _job(details: Any) -> Job:
    metadata: Mapping[str, str] = details.metadata or {}
    return Job(
        id=details.submission_id,
        sweep=metadata.get(_SWEEP, ""),
        status=str(details.status.value),
        exit_code=details.driver_exit_code,
        started=(details.start_time or 0) / 1000,
        message=(details.message or "").partition("\n")[0],
    )
