"""A loss of one's own, exactly as the README shows it: its file and its commands are run."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_config
from orchestrator.errors import ConfigError

README = Path(__file__).parents[2] / "README.md"
NAME = "my_package.cosine:Cosine"


def fenced(text: str, language: str) -> list[str]:
    blocks = re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
    return [content for name, content in blocks if name == language]


@pytest.fixture(scope="module")
def section() -> str:
    text = README.read_text(encoding="utf-8")
    return text.partition("## Adding a method\n")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def commands(section: str) -> dict[str, list[str]]:
    """The arguments of each command by its verb."""
    (block,) = fenced(section, "")
    setting, *lines = block.strip().splitlines()
    assert setting == "export PYTHONPATH=."
    found = [shlex.split(line) for line in lines]
    assert all(words[0] == "orchestrator" for words in found)
    return {words[1]: words[1:] for words in found}


@pytest.fixture
def folder(section: str, tmp_path: Path) -> Path:
    (code,) = fenced(section, "python")
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "cosine.py").write_text(code, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(orchestrator: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    def run(arguments: list[str]) -> Any:
        options = ("--home", folder / "home", "--json")
        done = orchestrator(*arguments, *options, cwd=folder, env={"PYTHONPATH": "."})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_it_is_described_like_the_others(run: Any, commands: dict[str, list[str]]) -> None:
    (entry,) = run(commands["ls"])["own"]
    assert entry == {
        "name": NAME,
        "summary": "One minus the cosine of the softened probabilities.",
        "source": "our own; an example",
    }


@pytest.mark.slow
def test_it_can_be_planned(run: Any, commands: dict[str, list[str]]) -> None:
    plan = run([*commands["plan"], "--no-estimate"])
    assert {"teachers", "students"} <= {stage["stage"] for stage in plan["stages"]}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_sweep_searches_it(run: Any, commands: dict[str, list[str]]) -> None:
    report = run([*commands["sweep"], "--cpus", "2"])
    searched = [s for s in report["students"] if not s["role"].startswith("control")]
    assert len(searched) == 4
    assert {s["params"]["loss"] for s in searched} == {NAME}
    assert len({s["params"]["loss.temperature"] for s in searched}) > 1
    assert all(s["state"] in {"complete", "pruned"} for s in searched)


def test_a_misspelt_class_and_parameter_are_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    for loss, message in (
        ("my_package.cosine:Cosin", "did you mean 'Cosine'"),
        ("my_package.cosyne:Cosine", "cannot import 'my_package.cosyne'"),
        (f"{{name: {NAME}, temprature: 2.0}}", "temprature"),
        (f"{{name: {NAME}, temperature: -1.0}}", "temperature must be > 0, got -1.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config("smoke", [f"student.loss={loss}"])
