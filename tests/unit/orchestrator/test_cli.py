"""The command line as a user meets it: exit codes, messages, one JSON document, no traceback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from orchestrator import cli, preflight
from orchestrator.home import Home
from trainables.testing import tiny_encoder

pytestmark = [
    pytest.mark.timeout(120),
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
HEAVY = ("torch", "ray", "mlflow", "optuna", "transformers", "pandas", "sklearn", "scipy")


class Result(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Run the command line in this process, in an empty folder, with a home beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
            sys.exit(0)
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return call


def config_file(folder: Path, rows: Path, **changes: Any) -> Path:
    """Write a config with a small teacher and student; ``data__label=...`` sets a nested key."""
    config: dict[str, Any] = {
        "name": "news",
        "data": {"path": str(rows), "dev": 0.2, "max_length": 8},
        "teachers": [{"name": "big", "model": {"name": "linear"}, "epochs": 1}],
        "student": {"model": {"name": "textcnn", "filters": 8}, "epochs": 1},
        "search": {"trials": 1, "space": {}},
        "confirm": None,
    }
    for path, value in changes.items():
        target: Any = config
        *parents, last = path.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    path = folder / "news.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def complaints(result: Result) -> list[str]:
    """Return the errors that were printed; there must be no traceback."""
    assert "Traceback" not in result.err
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert lines, result.err
    return [line.removeprefix("error: ") for line in lines]


def left_behind(home: Path) -> list[str]:
    """List what a refused sweep has left that could be taken for a result."""
    wanted = ("manifest.json", "sweep.json", "state.pt", "mlflow.db")
    return [str(path) for path in home.rglob("*") if path.name in wanted]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = f"""
import sys, time
from orchestrator.cli import app
sys.argv = ["orchestrator", "--help"]
try:
    app()
except SystemExit as end:
    assert not end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(heavy, time.process_time(), file=sys.stderr)
"""
    best = 9.0
    for _ in range(3):  # the first may have to compile modules
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "sweep" in done.stdout
        heavy, _, seconds = done.stderr.strip().splitlines()[-1].rpartition(" ")
        assert heavy == "[]"
        best = min(best, float(seconds))
    assert best < 0.5


@pytest.mark.parametrize("verb", ["ls", "status", "report", "init", "plan"])
def test_only_a_sweep_imports_ray(verb: str, tmp_path: Path, rows_file: Path) -> None:
    config = config_file(tmp_path, rows_file)
    arguments = {"plan": [str(config), "--no-estimate"], "init": ["smoke"]}.get(verb, [])
    code = f"""
import os, sys
from typer.testing import CliRunner
from orchestrator.cli import app
CliRunner().invoke(app, {[verb, *arguments]!r}, catch_exceptions=True)
print([name for name in ("ray", "mlflow") if name in sys.modules])
"""
    environment = {**os.environ, "ORCHESTRATOR_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]", done.stderr


BAD_FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "header only": ("text,label\n", "no rows"),
    "wrong column": ("words,label\na,b\n", "text"),
    "one class": ("text,label\n" + "".join(f"w{n},same\n" for n in range(40)), "single class"),
    "not utf-8": (b"text,label\n" + b"caf\xe9 ol\xe9,a\nplain,b\n" * 20, "UTF-8|utf-8"),
    "empty texts": ("text,label\n" + " ,a\n ,b\n" * 20, "empty"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_bad_file_is_refused(run: Cli, tmp_path: Path, kind: str) -> None:
    content, words = BAD_FILES[kind]
    rows = write(tmp_path, "bad.csv", content)
    result = run("plan", config_file(tmp_path, rows), "--no-estimate")
    assert result.code in {2, 3}
    text = " ".join(complaints(result))
    assert any(word in text for word in words.split("|")), text
    assert "bad.csv" in text or "train" in text
    assert not left_behind(tmp_path / "home")


def test_a_missing_file_is_refused(run: Cli, tmp_path: Path) -> None:
    result = run("plan", config_file(tmp_path, tmp_path / "gone.csv"), "--no-estimate")
    assert result.code in {2, 3}
    assert any("gone.csv" in line for line in complaints(result))


def test_a_class_absent_from_dev_is_refused(run: Cli, tmp_path: Path, rows_file: Path) -> None:
    dev = write(tmp_path, "dev.csv", "text,label\ngoal one,sport\nrain two,weather\n")
    result = run("plan", config_file(tmp_path, rows_file, data__dev=str(dev)), "--no-estimate")
    assert result.code == 3
    (line,) = complaints(result)
    assert "food" in line
    assert "dev" in line


def test_a_label_that_only_test_has_is_refused(run: Cli, tmp_path: Path, rows_file: Path) -> None:
    lines = "goal one,sport\nrain two,weather\nbread three,food\nvote four,politics\n"
    test = write(tmp_path, "test.csv", "text,label\n" + lines)
    result = run("plan", config_file(tmp_path, rows_file, data__test=str(test)), "--no-estimate")
    assert result.code == 3
    (line,) = complaints(result)
    assert "politics" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"student__model": {"name": "textcn"}}, ["student.model", "did you mean 'textcnn'"]),
        ({"student__model": {"name": "textcnn", "filter": 8}}, ["filter", "did you mean"]),
        ({"student__loss": "kdd"}, ["student.loss", "'kd'"]),
        ({"student__epoch": 3}, ["student.epoch", "did you mean 'epochs'"]),
        ({"name": "No Such"}, ["name: must be"]),
    ],
)
def test_unknown_components_and_parameters_are_refused(
    run: Cli, tmp_path: Path, rows_file: Path, changes: dict[str, Any], words: list[str]
) -> None:
    result = run("sweep", config_file(tmp_path, rows_file, **changes))
    assert result.code == 2
    text = " ".join(complaints(result))
    assert all(word in text for word in words), text
    assert not (tmp_path / "home").exists()


def test_every_problem_of_a_config_is_listed(run: Cli, tmp_path: Path, rows_file: Path) -> None:
    config = config_file(tmp_path, rows_file, student__epochs=0, search__trials=-1, seed="x")
    result = run("plan", config)
    assert result.code == 2
    assert len(complaints(result)) == 3


@pytest.mark.parametrize("verb", ["plan", "sweep"])
def test_resources_no_machine_has_are_refused(
    run: Cli, tmp_path: Path, rows_file: Path, verb: str
) -> None:
    config = config_file(tmp_path, rows_file, resources={"teacher": {"cpu": 4096}})
    result = run(verb, config)
    assert result.code == 3
    assert "resources.teacher.cpu: 4096 CPUs are asked for" in complaints(result)[0]
    assert not left_behind(tmp_path / "home")


def test_a_checkpoint_that_is_no_encoder_is_refused(
    run: Cli, tmp_path: Path, rows_file: Path
) -> None:
    folder = tiny_encoder(tmp_path / "encoder", layers=1)
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(settings))
    teachers = [{"name": "big", "model": {"name": "bert", "checkpoint": str(folder)}}]
    result = run("plan", config_file(tmp_path, rows_file, teachers=teachers), "--no-estimate")
    assert result.code in {2, 3}
    assert any("encoder" in line for line in complaints(result))


def test_a_checkpoint_that_is_not_there_is_refused(
    run: Cli, tmp_path: Path, rows_file: Path
) -> None:
    teachers = [{"name": "big", "model": {"name": "bert", "checkpoint": "./nowhere"}}]
    result = run("plan", config_file(tmp_path, rows_file, teachers=teachers), "--no-estimate")
    assert result.code in {2, 3}
    assert any("nowhere" in line for line in complaints(result))


def test_a_full_disk_is_refused_before_anything_is_written(
    run: Cli, tmp_path: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "MIN_FREE_BYTES", 2**62)
    result = run("sweep", config_file(tmp_path, rows_file))
    assert result.code == 3
    (line,) = complaints(result)
    assert "MB are free on its disk" in line
    assert "name another --home" in line
    assert not left_behind(tmp_path / "home")


def test_bad_data_ends_a_sweep_without_a_trace(run: Cli, tmp_path: Path) -> None:
    rows = write(tmp_path, "bad.csv", "words,label\na,b\n")
    result = run("sweep", config_file(tmp_path, rows))
    assert result.code == 3
    assert complaints(result)
    home = Home(tmp_path / "home")
    assert not left_behind(home.path)
    assert home.sweeps() == []
    assert run("status").code == 2


def test_a_sweep_without_a_config_file_names_the_presets(run: Cli) -> None:
    result = run("sweep", "nothing.yaml")
    assert result.code == 2
    assert "nothing.yaml" in complaints(result)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "news"),
        ("report",),
        ("sync", "news"),
        ("ls", "losess"),
        ("init", "nothing"),
        ("report", "--format", "docx"),
        ("sweep", "--trials", "0"),
        ("frobnicate",),
    ],
)
def test_wrong_use_is_exit_code_2(run: Cli, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_init_writes_a_preset_once(run: Cli, tmp_path: Path) -> None:
    assert run("init", "smoke", "--output", "mine.yaml").code == 0
    written = tmp_path / "here" / "mine.yaml"
    before = written.read_bytes()
    again = run("init", "smoke", "--output", "mine.yaml")
    assert again.code == 2
    assert "exists" in complaints(again)[0]
    assert written.read_bytes() == before
    assert run("plan", "mine.yaml", "--no-estimate", "--json").code == 0


def test_ls_names_components_presets_and_sweeps(run: Cli) -> None:
    listed = json.loads(run("ls", "--json").out)
    assert {"losses", "weightings", "models", "presets", "sweeps"} <= listed.keys()
    assert "smoke" in [entry["name"] for entry in listed["presets"]]
    assert all(entry["summary"] for entry in listed["losses"])
    assert json.loads(run("ls", "losses", "--json").out).keys() == {"losses"}
    assert "textcnn" in run("ls", "models").out


def test_plan_is_one_document_and_trains_nothing(run: Cli, tmp_path: Path, rows_file: Path) -> None:
    config = config_file(tmp_path, rows_file)
    plan = json.loads(run("plan", config, "--no-estimate", "--json").out)
    assert plan["sweep"] == "news"
    assert {stage["stage"]: stage["trials"] for stage in plan["stages"]}["teachers"] == 1
    assert not list((tmp_path / "home").rglob("store/teacher/*"))
    text = run("plan", config, "--no-estimate").out
    assert "biggest class" in text
    overridden = run("plan", config, "--no-estimate", "--json", "--set", "search.trials=9")
    assert json.loads(overridden.out)["stages"][2]["trials"] > plan["stages"][2]["trials"]


@pytest.fixture
def failed_at_once(run: Cli, tmp_path: Path, rows_file: Path) -> Iterator[Home]:
    """A sweep that was announced and then interrupted before its first stage."""
    from orchestrator.config import load_config
    from orchestrator.materials import prepare_data, prepare_materials
    from orchestrator.state import SweepState

    config = load_config(config_file(tmp_path, rows_file))
    home = Home(tmp_path / "home")
    data = prepare_data(config, home.store, str)
    SweepState(config, home).begin(prepare_materials(config, data, home.store, str))
    yield home


@pytest.mark.parametrize("verb", ["status", "report"])
def test_a_sweep_that_has_only_begun_can_be_looked_at(
    run: Cli, failed_at_once: Home, verb: str
) -> None:
    assert failed_at_once.sweeps() == ["news"]
    document = run(verb, "--json")
    assert document.code == 0, document.err
    assert json.loads(document.out)["sweep"] == "news"
    assert run(verb).code == 0


def test_a_report_that_cannot_be_written_says_so(run: Cli, failed_at_once: Home) -> None:
    result = run("report", "--format", "csv", "--output", "/dev/null/report.csv")
    assert result.code == 2
    assert "/dev/null/report.csv" in complaints(result)[0]


def test_a_ledger_that_is_gone_is_explained(run: Cli, failed_at_once: Home) -> None:
    state = failed_at_once.read_state("news")
    failed_at_once.write_state("news", {**state, "studies": {"students": "news/students/1"}})
    result = run("report")
    assert result.code == 1
    assert "the ledger has no students of sweep 'news'" in complaints(result)[0]


def test_a_state_of_another_version_is_explained(run: Cli, failed_at_once: Home) -> None:
    state = failed_at_once.read_state("news")
    failed_at_once.write_state("news", {**state, "config": {"name": "news", "flavour": 1}})
    for verb in ("report", "status"):
        result = run(verb)
        assert result.code == 1
        assert "does not fit this version" in complaints(result)[0]


def test_doctor_looks_at_the_machine(run: Cli, tmp_path: Path) -> None:
    checks = json.loads(run("doctor", "--json").out)
    assert {"python", "torch", "CPU", "home", "ledger.db"} <= {check["name"] for check in checks}
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "ledger.db").write_bytes(b"not a database" * 100)
    result = run("doctor")
    assert result.code == 3
    assert "unreadable" in result.out


def test_the_real_program_reports_errors_without_a_traceback(tmp_path: Path) -> None:
    program = shutil.which("orchestrator", path=str(Path(sys.executable).parent))
    assert program is not None
    done = subprocess.run(
        [program, "status", "--home", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no sweep has been started in")
    assert done.stdout == ""
