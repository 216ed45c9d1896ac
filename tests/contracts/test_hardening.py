"""What no module may do, whoever adds it: run code that came as data, or tell strangers of us."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import search_spaces.yaml
from orchestrator.config import parse_config
from orchestrator.errors import ConfigError
from orchestrator.home import Home

ROOT = Path(__file__).parents[2]
PACKAGES = ("orchestrator", "trainables", "search_spaces")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

# Each of these runs what a file says, or writes where an archive says.
FORBIDDEN_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "os.system", "os.popen"),
    *("torch.load", "numpy.load", "np.load"),
    *("yaml.unsafe_load", "yaml.full_load"),
    *("shutil.unpack_archive", "pandas.read_pickle", "pd.read_pickle"),
}
FORBIDDEN_METHODS = {"extractall", "extract"}
# numpy refuses pickles by default and these say so.
SAFE_KEYWORDS = {"allow_pickle": False, "weights_only": True}


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _is_safe(call: ast.Call) -> bool:
    given = {k.arg: getattr(k.value, "value", None) for k in call.keywords}
    return any(given.get(name) is value for name, value in SAFE_KEYWORDS.items())


def _offences(source: str) -> list[str]:
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [name for name in names if name.partition(".")[0] in FORBIDDEN_IMPORTS]
    for name, call in _calls(tree):
        if name in FORBIDDEN_CALLS and not _is_safe(call):
            found.append(name)
        if name.rpartition(".")[2] in FORBIDDEN_METHODS and "archive" in name.lower():
            found.append(name)
        for keyword in call.keywords:
            value = getattr(keyword.value, "value", None)
            if (keyword.arg, value) in {("trust_remote_code", True), ("shell", True)}:
                found.append(f"{name}({keyword.arg}=True)")
    return found


def test_there_are_files_to_look_at() -> None:
    assert len(FILES) > 150


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_module_runs_what_came_as_data(file: Path) -> None:
    assert _offences(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "archive.extractall(folder)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_look_finds_offences(source: str) -> None:
    assert _offences(source)


def test_yaml_makes_plain_values_only() -> None:
    assert issubclass(search_spaces.yaml._Loader, yaml.SafeLoader)


@pytest.mark.parametrize("name", ["../up", "a/b", "/etc", "", "x" * 65, "A B", "..", "n\n"])
def test_a_sweep_cannot_be_named_out_of_its_home(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        parse_config(
            {
                "name": name,
                "data": {"path": "x.csv"},
                "teachers": [{"name": "t", "model": {"name": "linear"}}],
            }
        )


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", ".."])
def test_a_verb_finds_no_sweep_outside_of_its_home(tmp_path: Path, name: str) -> None:
    from orchestrator.errors import UsageError

    home = Home(tmp_path / "home")
    home.write_state("news", {})
    with pytest.raises(UsageError, match="no sweep"):
        home.find_sweep(name)


def test_nothing_reports_home_once_ray_is_there() -> None:
    names = ["RAY_USAGE_STATS_ENABLED", "MLFLOW_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"]
    program = "import os, sys, orchestrator.cluster; print([os.environ[n] for n in sys.argv[1:]])"
    environment = {k: v for k, v in os.environ.items() if k not in names}
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.stdout.strip() == "['0', 'true', '1']"
