"""The verbs of ``orchestrator cluster``: parse, call, print, exit code."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.errors import OrchestratorError

if TYPE_CHECKING:
    from orchestrator.deployment.jobs import Cluster

app = typer.Typer(
    help="Run sweeps on a Ray cluster with MLflow and PostgreSQL.", no_args_is_help=True
)

Secrets = Annotated[
    Path | None,
    typer.Option("--secrets", help="Folder of the secrets.", envvar="ORCHESTRATOR_SECRETS"),
]
Project = Annotated[Path, typer.Option(help="Folder of docker-compose.yml.")]
Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard, http://host:port.", envvar="ORCHESTRATOR_CLUSTER"),
]
JobId = Annotated[
    str | None, typer.Argument(help="A job or the name of its sweep; without it, the latest.")
]


@app.command()
def init(secrets: Secrets = None) -> None:
    """Make the token and the passwords, each in a file only you can read. Keeps those there are.

    Example: orchestrator cluster init
    """
    from orchestrator.deployment.secrets import NAMES, folder_of, make_secrets

    folder = folder_of(secrets)
    made = make_secrets(folder)
    _tell(f"{folder}: made {len(made)} secrets, kept {len(NAMES) - len(made)}")


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="How many workers.")] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="Workers that reserve the GPUs.")] = False,
    build: Annotated[
        bool, typer.Option("--build", help="Build the images again; needed for edits only.")
    ] = False,
    project: Project = Path(),
    secrets: Secrets = None,
    address: Address = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the workers.")] = 300,
) -> None:
    """Start head, workers, MLflow and PostgreSQL in containers on this machine.

    Example: orchestrator cluster up --workers 2
    """
    from orchestrator.deployment.compose import Compose
    from orchestrator.deployment.secrets import folder_of

    init(secrets)
    folder = folder_of(secrets)
    Compose(project.absolute(), folder).up(workers, gpu=gpu, build=build)
    _await_workers(address, folder, workers, wait)
    status(address, secrets)


@app.command()
def status(
    address: Address = None,
    secrets: Secrets = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the nodes of the cluster and its jobs.

    Example: orchestrator cluster status
    """
    from orchestrator.deployment.secrets import MLFLOW_PASSWORD, folder_of

    folder = folder_of(secrets)
    cluster = _cluster(address, folder)
    nodes, jobs = cluster.nodes(), cluster.jobs()
    if as_json:
        document = {"nodes": [n.to_json() for n in nodes], "jobs": [j.to_json() for j in jobs]}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return
    for node in nodes:
        what = "head" if node.head else f"worker  {node.cpu:g} CPU  {node.gpu:g} GPU"
        typer.echo(f"{node.address:15}  {node.release}  {what}")
    for job in jobs:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started))
        typer.echo(f"{job.id}  {job.status}  since {when}")
    typer.echo(f"MLflow: http://127.0.0.1:5000, user admin, password in {folder / MLFLOW_PASSWORD}")


@app.command()
def submit(
    config: Annotated[str, typer.Argument(help="A config file, or the name of a preset.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the config."),
    ] = None,
    extras: Annotated[
        list[Path] | None,
        typer.Option("--with", help="A file or package of yours to take along."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    address: Address = None,
    secrets: Secrets = None,
) -> None:
    """Run a sweep on the cluster and show its progress; submitted again, it continues.

    Closing the terminal does not stop it.

    Example: orchestrator cluster submit my.yaml --set search.trials=100
    """
    from orchestrator.config import load_config
    from orchestrator.deployment.packing import pack
    from orchestrator.deployment.secrets import folder_of

    settings = load_config(config, list(overrides or []))
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as folder:
        pack(settings, extras or [], Path(folder))
        cluster = _cluster(address, folder_of(secrets))
        identifier = cluster.submit(settings.name, Path(folder))
    _tell(f"submitted {identifier}; come back with: orchestrator cluster logs {identifier}")
    if not detach:
        _follow(cluster, identifier)


@app.command()
def logs(job: JobId = None, address: Address = None, secrets: Secrets = None) -> None:
    """Show what a job has printed and go on until it ends; exits as the sweep does.

    Example: orchestrator cluster logs my
    """
    from orchestrator.deployment.secrets import folder_of

    cluster = _cluster(address, folder_of(secrets))
    _follow(cluster, cluster.find(job).id)


@app.command()
def stop(job: JobId = None, address: Address = None, secrets: Secrets = None) -> None:
    """Stop a job as Ctrl-C stops a sweep: running epochs end, and it can be continued.

    Example: orchestrator cluster stop my
    """
    from orchestrator.deployment.secrets import folder_of

    cluster = _cluster(address, folder_of(secrets))
    ended = cluster.stop(cluster.find(job).id)
    _tell(f"{ended.id} has ended ({ended.status}); submit its config again to continue")


@app.command()
def down(
    volumes: Annotated[
        bool, typer.Option("--volumes", help="Also delete store, ledger and MLflow's runs.")
    ] = False,
    project: Project = Path(),
    secrets: Secrets = None,
) -> None:
    """Stop the containers of this machine. What the sweeps made is kept.

    Example: orchestrator cluster down
    """
    from orchestrator.deployment.compose import Compose
    from orchestrator.deployment.secrets import folder_of

    Compose(project.absolute(), folder_of(secrets)).down(volumes=volumes)


def _cluster(address: str | None, folder: Path) -> Cluster:
    from orchestrator.deployment.jobs import Cluster

    return Cluster(address, folder)


def _await_workers(address: str | None, folder: Path, workers: int, seconds: float) -> None:
    """Wait until head and workers are one cluster.

    Raises:
        OrchestratorError: They are not within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            there = sum(not node.head for node in _cluster(address, folder).nodes())
            if there >= workers:
                return
            reason = f"{there} of {workers} workers have joined"
        except OrchestratorError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise OrchestratorError(
                f"the cluster is not complete after {seconds:g} s ({reason}); look at it with "
                "'docker compose logs'"
            )
        time.sleep(2)


def _follow(cluster: Cluster, identifier: str) -> None:
    from orchestrator.deployment.jobs import exit_code

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    job = cluster.follow(identifier, write)
    code = exit_code(job)
    if code:
        _tell(f"{job.id}: {job.status} {job.message}")
    sys.exit(code)


def _tell(text: str) -> None:
    typer.secho(text, err=True, fg="bright_black")
