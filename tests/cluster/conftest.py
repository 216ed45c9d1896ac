"""Hosts on one machine: network, process and mount namespaces, joined by a switch of their own.

A host that loses power has its link taken down before its processes are killed, so that its peers
hear nothing: no closed connection, no goodbye. That is what a vanished spot node looks like.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from orchestrator.deployment import secrets

SUBNET = "10.77.0"
BUCKET = "bucket"
PYTHON = sys.executable
# Each host has its own shared memory and its own /tmp/ray, as machines do.
_SETUP = 'mount -t tmpfs tmpfs /dev/shm && mount --bind "$HOST_TMP" /tmp/ray && exec "$@"'
_TOOLS = ("ip", "unshare", "setpriv", "psql")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _obstacle()
    for item in items:
        if reason and "hosts" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip(reason=reason))


def _obstacle() -> str:
    if os.getuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing or not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return f"needs apt-get install iproute2 util-linux postgresql ({', '.join(missing)})"
    probe = subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True)
    return "" if probe.returncode == 0 else "namespaces are not allowed here"


class Host:
    """One machine: an address of its own, and processes that die with it."""

    def __init__(self, namespace: str, name: str, number: int, folder: Path) -> None:
        self.name = name
        self.ip = f"{SUBNET}.{number}"
        self.namespace = namespace
        self.folder = folder / name
        self.secrets = self.folder / "secrets"
        (self.folder / "tmp").mkdir(parents=True)
        (self.folder / "home").mkdir()
        self.secrets.mkdir(mode=0o700)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._logs: list[IO[bytes]] = []

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Nothing of the test's own: a token in its home would let a stranger in."""
        return {
            "PYTHONPATH": str(Path(__file__).parents[2]),  # the checkout under test
            "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "HOST_TMP": str(self.folder / "tmp"),
            secrets.VARIABLE: str(self.secrets),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            **(more or {}),
        }

    def give(self, source: Path, *names: str) -> None:
        """Put secrets on this host, as compose mounts them."""
        for name in names:
            shutil.copy(source / name, self.secrets / name)
            (self.secrets / name).chmod(0o600)

    def start(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> Path:
        """Start a service whose processes end with the host; returns its log."""
        path = self.folder / f"{len(self._logs)}.log"
        log = path.open("wb")
        isolated = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        process = subprocess.Popen(
            [*self._inside(), *isolated, "bash", "-c", _SETUP, "bash", *command],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.environment(env),
            cwd=self.folder,
        )
        self._logs.append(log)
        self._processes.append(process)
        return path

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end."""
        return subprocess.run(
            [*self._inside(), *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=self.environment(env),
            cwd=self.folder,
        )

    def popen(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command on this host that the test waits for, or that ends with the host."""
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*self._inside(), *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.folder,
            )
        self._processes.append(process)
        return process

    def cut(self) -> None:
        """Lose power."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")
        self.close()

    def repair(self) -> None:
        """Have power and network again, with nothing running and no memory."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")
        (self.folder / "tmp").rename(self.folder / f"tmp-{len(self._logs)}")  # kept for its logs
        (self.folder / "tmp").mkdir()

    def close(self) -> None:
        """Kill every process of this host: its first one is gone, so the kernel ends the rest."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes.clear()

    def _inside(self) -> list[str]:
        return ["ip", "netns", "exec", self.namespace]


class Hosts:
    """All hosts and the switch between them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = f"kdo{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._hosts: dict[str, Host] = {}
        # The switch is a namespace too: the firewall of the machine has no say between the hosts.
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "br0", "up")

    def add(self, name: str) -> Host:
        """Plug in a new host."""
        number = len(self._hosts) + 10
        namespace = f"{self._prefix}-{name}"
        host = Host(namespace, name, number, self._folder)
        _ip("netns", "add", namespace)
        self._hosts[name] = host
        port = f"p{number}"
        peer = ["type", "veth", "peer", "name", "eth0", "netns", namespace]
        _ip("-n", self._switch, "link", "add", port, *peer)
        _ip("-n", self._switch, "link", "set", port, "master", "br0", "up")
        _ip("-n", namespace, "address", "add", f"{host.ip}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "lo", "up")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        return host

    def __contains__(self, name: str) -> bool:
        return name in self._hosts

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def close(self) -> None:
        """Stop everything and take the namespaces away."""
        for host in self._hosts.values():
            host.close()
        for namespace in (*(host.namespace for host in self._hosts.values()), self._switch):
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Stack:
    """The cluster of docker-compose.yml on hosts of its own, started by the same commands."""

    def __init__(self, hosts: Hosts, folder: Path, databases: Path) -> None:
        self.hosts = hosts
        self.home = folder / "store" / "home"
        self.home.mkdir(parents=True)
        self.folder = folder
        self.databases = databases
        self.secrets = folder / "secrets"
        secrets.make_secrets(self.secrets)
        self.services = hosts.add("services")
        self.head = hosts.add("head")
        self.desk = hosts.add("desk")
        self.stranger = hosts.add("stranger")
        self.dashboard = f"http://{self.head.ip}:8265"
        self.mlflow = f"http://{self.services.ip}:5000"
        self.aws = {
            "AWS_ENDPOINT_URL": f"http://{self.services.ip}:9000",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "5ecretOfTheTests",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start_services(self) -> None:
        """Start PostgreSQL and MLflow."""
        mine = self.databases / "secrets"
        shutil.copytree(self.secrets, mine)
        for path in (self.databases, mine, *mine.iterdir()):
            shutil.chown(path, "postgres", "postgres")
        script = Path(__file__).parents[2] / "deploy" / "postgres-start.sh"
        copy = shutil.copy(script, self.databases / "start.sh")
        as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        self.services.start(
            [*as_postgres, str(copy)],
            {
                "PGDATA": str(self.databases / "data"),
                "PGSOCKETS": str(self.databases),
                "HOME": pwd.getpwnam("postgres").pw_dir,
                secrets.VARIABLE: str(mine),
            },
        )
        wait(lambda: self.psql("mlflow", "SELECT 1").returncode == 0, 60, "PostgreSQL")
        self.services.give(
            self.secrets, secrets.MLFLOW_PASSFILE, secrets.MLFLOW_PASSWORD, secrets.MLFLOW_KEY
        )
        self.services.start(
            [
                *(PYTHON, "-m", "orchestrator.deployment.mlflow_server"),
                f"--database=postgresql+psycopg://mlflow@{self.services.ip}/mlflow",
                f"--artifacts={self.folder / 'artifacts'}",
                f"--allowed-hosts={self.services.ip}:5000",
            ]
        )

    def mlflow_is_up(self) -> bool:
        """Ask MLflow for its health, which needs no password."""
        program = "import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=5)"
        return self.desk.run("python", "-c", program, f"{self.mlflow}/health").returncode == 0

    def start_head(self) -> Path:
        """Start the head, also after it was lost."""
        self.head.give(
            self.secrets, secrets.RAY_TOKEN, secrets.LEDGER_PASSFILE, secrets.MLFLOW_PASSWORD
        )
        return self.head.start(
            _restarting("head", f"--node-ip {self.head.ip} --dashboard-host {self.head.ip}"),
            {
                "ORCHESTRATOR_HOME": str(self.home),
                "LEDGER_URL": f"postgresql+psycopg://ledger@{self.services.ip}/ledger",
                "ORCHESTRATOR_TRACKING_URI": self.mlflow,
                **self.aws,
            },
        )

    def add_worker(self, name: str, *, shared: bool = True) -> Path:
        """Start a worker of two CPUs and one logical GPU, with the store or an empty folder."""
        worker = self.hosts.add(name)
        worker.give(self.secrets, secrets.RAY_TOKEN)
        size = "--num-cpus 2 --num-gpus 1"
        where = f"--node-ip {worker.ip} --address {self.head.ip}:6379"
        command = _restarting("worker", f"{size} {where}")
        if not shared:
            hide = f'mount -t tmpfs tmpfs {self.home.parent} && exec "$@"'
            command = ["bash", "-c", hide, "bash", *command]
        return worker.start(command, self.aws)

    def start_s3(self) -> None:
        """Start a server that speaks S3, with one empty bucket."""
        server = Path(__file__).parents[1] / "s3_server.py"
        # It ends with its standard input, which is empty: give it one that stays open.
        serve = f"sleep infinity | {PYTHON} {server} {self.services.ip} 9000"
        self.services.start(["bash", "-c", serve])
        make = f"import s3fs; s3fs.S3FileSystem().mkdir('{BUCKET}')"
        wait(lambda: self.desk.run(PYTHON, "-c", make, env=self.aws).returncode == 0, 60, "S3")

    def psql(self, name: str, query: str) -> subprocess.CompletedProcess[str]:
        """Ask one of the two databases."""
        command = ["psql", "-w", "-At", "-h", self.services.ip, "-U", name, "-c", query, name]
        passfile = str(self.secrets / f"{name}_passfile")
        return self.services.run(*command, env={"PGPASSFILE": passfile})

    def orchestrator(self, *arguments: str, timeout: float = 120) -> Any:
        """Run a verb of ``orchestrator cluster`` at the desk, which has the token only."""
        where = ["--address", self.dashboard]
        command = [PYTHON, "-m", "orchestrator", "cluster", *arguments, *where]
        return self.desk.run(*command, timeout=timeout)

    def alive(self) -> set[str]:
        """Return the addresses of the alive nodes, as the desk sees them."""
        done = self.orchestrator("status", "--json")
        if done.returncode:
            return set()
        return {node["address"] for node in json.loads(done.stdout)["nodes"]}


def _restarting(role: str, options: str) -> list[str]:
    """Return a command that starts a node again whenever it ends, as Docker would."""
    node = f"{PYTHON} -m orchestrator.deployment.node {role} {options}"
    return ["bash", "-c", f"while true; do {node}; sleep 1; done"]


def wait(ready: Any, seconds: float, what: str) -> float:
    """Wait until ``ready()`` and return how long it took."""
    started = time.monotonic()
    while not ready():
        assert time.monotonic() - started < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(0.5)
    return time.monotonic() - started


@pytest.fixture(scope="session")
def figures() -> Iterator[dict[str, Any]]:
    """What the tests measure, printed at the end."""
    figures: dict[str, Any] = {}
    yield figures
    print(json.dumps(figures, indent=1))


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    Path("/tmp/ray").mkdir(exist_ok=True)  # where each host mounts its own
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    try:
        yield hosts
    finally:
        hosts.close()


@pytest.fixture(scope="session")
def stack(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A cluster of a head and two workers; PostgreSQL's folder is where its user may go."""
    databases = Path(tempfile.mkdtemp(prefix="kdo-databases-"))
    stack = Stack(hosts, tmp_path_factory.mktemp("stack"), databases)
    try:
        stack.desk.give(stack.secrets, secrets.RAY_TOKEN)
        stack.start_services()
        stack.start_head()
        stack.add_worker("worker1")
        stack.add_worker("worker2")
        wait(lambda: len(stack.alive()) == 3, 400, "the cluster")
        wait(stack.mlflow_is_up, 180, "MLflow")
        yield stack
    finally:
        for name in ("services", "head", "worker1", "worker2"):
            if name in hosts:
                hosts[name].close()
        shutil.rmtree(databases)
