"""Every preset that is shipped validates, says what it is, and can be searched."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.points import default_point, grid_points, student_at
from search_spaces.loader import preset_names, preset_path
from search_spaces.space import Space

NAMES = preset_names()


def test_presets_are_found() -> None:
    assert {"quickstart", "smoke"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_valid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(name)
    assert config.name == name
    space = config.search_space()
    assert Space.from_json(space.to_json()) == space
    for point in (default_point(config), *grid_points(config)):
        assert space.contains(point)
        student_at(config, point)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_introduces_itself(name: str) -> None:
    lines = preset_path(name).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(f"# {name}: ")
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_can_be_extended_from_the_command_line(name: str) -> None:
    assert load_config(name, ["search.trials=3"]).search.trials == 3


def test_the_smoke_data_is_what_its_recipe_says() -> None:
    with preset_path("smoke").with_name("smoke.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    counts = Counter(row["label"] for row in rows)
    assert len({row["text"] for row in rows}) == len(rows) == 400
    assert set(counts) == {"food", "sport", "weather"}
    assert max(counts.values()) - min(counts.values()) <= 1
