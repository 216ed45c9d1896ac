"""From a finished sweep to a student that others run: alone, registered, served."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.config import parse_config
from orchestrator.errors import OrchestratorError
from orchestrator.exporting.fetch import fetch_registered
from orchestrator.exporting.registry import Registry, register
from orchestrator.home import Home
from orchestrator.tracking.address import ENVIRONMENT, resolve_uri

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TEXTS = ["rain and wind over the hills", "", "goal in the last match", "[PAD]"]


@pytest.fixture(scope="module")
def home(smoke: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished sweep's home, which may be changed."""
    target = tmp_path_factory.mktemp("exporting") / "home"
    shutil.copytree(smoke.home, target)
    return target


@pytest.fixture(scope="module")
def exported(
    home: Path, orchestrator: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What ``export --json`` printed; it ran in an empty folder and left only its output."""
    folder = tmp_path_factory.mktemp("work")
    done = orchestrator(
        *("export", "smoke", "--home", home, "--output", "student", "--json"), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in folder.iterdir()] == ["student"]
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def answers(exported: dict[str, Any], home: Path, orchestrator: Callable[..., Any]) -> list[Any]:
    """What ``predict`` of this project says about the texts."""
    done = orchestrator("predict", *TEXTS, "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_the_export_is_the_confirmed_student(exported: dict[str, Any], smoke: Any) -> None:
    chosen = next(row for row in smoke.report["confirm"] if row["chosen"])
    assert exported["trial"] in chosen["keys"]
    assert exported["verdict"] == smoke.report["verdict"]
    assert exported["equality"]["fp32"]["label_agreement"] == 1
    assert exported["teacher"]["name"] in {t["name"] for t in smoke.report["teachers"]}


def test_it_runs_without_this_project(
    exported: dict[str, Any], answers: list[Any], tmp_path: Path
) -> None:
    """Copied to another place, in an environment with onnxruntime and tokenizers alone."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    wanted = [f"{name}=={exported['versions'][name]}" for name in ("onnxruntime", "tokenizers")]
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *wanted], check=True)
    script = Path(shutil.copytree(exported["folder"], tmp_path / "student")) / "predict.py"
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [python, script, *TEXTS],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment,
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == [one["label"] for one in answers]
    assert [line[2] for line in lines] == TEXTS
    missing = subprocess.run([python, "-c", "import torch"], capture_output=True, check=False)
    assert missing.returncode != 0


def test_a_file_is_classified(
    exported: dict[str, Any],
    answers: list[Any],
    home: Path,
    tmp_path: Path,
    orchestrator: Callable[..., Any],
) -> None:
    pd.DataFrame({"headline": TEXTS}).to_csv(tmp_path / "in.csv", index=False)
    done = orchestrator(
        *("predict", "--model", exported["folder"], "--input", tmp_path / "in.csv"),
        *("--text-column", "headline", "--output", tmp_path / "out.csv", "--home", home, "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == len(TEXTS)
    written = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert written["headline"].tolist() == TEXTS
    assert written["label"].tolist() == [one["label"] for one in answers]


def test_an_inconclusive_student_is_a_candidate(exported: dict[str, Any], home: Path) -> None:
    assert exported["verdict"] != "BEATS"
    assert exported["registered"]["uri"] == "models:/smoke@candidate"
    version = client_of(home).get_model_version_by_alias("smoke", "candidate")
    assert version.tags["trial_key"] == exported["trial"]
    run = client_of(home).get_run(version.run_id)
    assert run.data.tags["trial_key"] == exported["trial"]


def test_the_registry_shows_the_model_card(exported: dict[str, Any], home: Path) -> None:
    shown = client_of(home).get_model_version_by_alias("smoke", "candidate").description
    card = (Path(exported["folder"]) / "README.md").read_text(encoding="utf-8")
    assert shown.startswith("# smoke\n") and card.startswith(shown.rstrip())


def test_a_registered_student_answers_by_its_alias(
    exported: dict[str, Any],
    answers: list[Any],
    home: Path,
    orchestrator: Callable[..., Any],
) -> None:
    uri = exported["registered"]["uri"]
    done = orchestrator("predict", *TEXTS, "--model", uri, "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == answers
    done = orchestrator("predict", "x", "--model", "models:/smoke@nobody", "--home", home)
    assert done.returncode == 1
    assert "nobody not found" in done.stderr and "Traceback" not in done.stderr


def test_the_same_files_are_registered_once(exported: dict[str, Any], home: Path) -> None:
    registry = Registry(resolve_uri(home), home, "smoke")
    tags = {"trial_key": exported["trial"]}
    again = register(registry, Path(exported["folder"]), "smoke", alias="champion", tags=tags)
    assert (again.version, again.new) == (exported["registered"]["version"], False)
    champion = client_of(home).get_model_version_by_alias("smoke", "champion")
    assert str(champion.version) == again.version


def test_a_registered_student_can_be_fetched_to_teach(exported: dict[str, Any], home: Path) -> None:
    teachers = [{"name": "old", "registered": exported["registered"]["uri"]}]
    values = {"name": "smoke", "data": {"path": "train.csv"}, "teachers": teachers}
    heard: list[str] = []
    config = fetch_registered(parse_config(values), Home(home), heard.append)
    (teacher,) = config.teachers
    assert (teacher.registered, heard) == (None, ["fetching models:/smoke@candidate"])
    for name in ("model.safetensors", "tokenizer.json", "export.json"):
        fetched, written = (Path(str(f)) / name for f in (teacher.exported, exported["folder"]))
        assert fetched.read_bytes() == written.read_bytes()
    assert fetch_registered(parse_config(values), Home(home), heard.append) == config
    values["teachers"] = [{"name": "old", "registered": "models:/smoke@nobody"}]
    with pytest.raises(OrchestratorError, match="nobody"):
        fetch_registered(parse_config(values), Home(home), heard.append)


def client_of(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(resolve_uri(home), resolve_uri(home))


@pytest.fixture(scope="module")
def server(exported: dict[str, Any], home: Path, tmp_path_factory: Any) -> Iterator[str]:
    """``mlflow models serve``, in a process that cannot import this project."""
    folder = tmp_path_factory.mktemp("server")
    blocked = folder / "blocked"
    for name in ("orchestrator", "trainables", "search_spaces", "torch"):
        (blocked / name).mkdir(parents=True)
        (blocked / name / "__init__.py").write_text("raise ImportError('not here')\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", exported["registered"]["uri"], "-p", str(port), "-h", "127.0.0.1"]
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "MLFLOW_TRACKING_URI": resolve_uri(home),
        "PYTHONPATH": str(blocked),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = folder / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/ping", process, log)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
    assert sorted(path.name for path in folder.iterdir()) == ["blocked", "log"]


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(log.read_text())


def test_the_registered_student_is_served(server: str, answers: list[Any]) -> None:
    body = json.dumps({"dataframe_split": {"columns": ["text"], "data": [[t] for t in TEXTS]}})
    request = urllib.request.Request(
        f"{server}/invocations", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        found = json.load(response)["predictions"]
    assert [one["label"] for one in found] == [one["label"] for one in answers]
    for one, wanted in zip(found, answers, strict=True):
        assert one["probability"] == pytest.approx(wanted["probability"], abs=0.02)


def test_a_registry_that_is_down_keeps_the_export(
    home: Path, tmp_path: Path, orchestrator: Callable[..., Any]
) -> None:
    other = tmp_path / "home"
    shutil.copytree(home, other)
    state = other / "sweeps" / "smoke" / "sweep.json"
    text = state.read_text()
    state.write_text(re.sub(r'"uri": null', '"uri": "http://127.0.0.1:9"', text))
    done = orchestrator("export", "smoke", "--home", other, "--output", tmp_path / "student")
    assert done.returncode == 1
    assert "exported, but not registered: http://127.0.0.1:9 does not answer" in done.stderr
    assert (tmp_path / "student" / "model.int8.onnx").is_file()
