"""Every preset of a paper: its short form is valid too, and its numbers belong to something."""

import pytest

from orchestrator.points import apply_point
from orchestrator.reproduce import load_reproduction
from orchestrator.schema import StudentConfig
from search_spaces.loader import load_yaml, preset_names

NAMES = [name for name in preset_names() if "published" in load_yaml(name)]


def test_the_papers_are_found() -> None:
    assert set(NAMES) >= {
        "news-isomorphic",
        "news-heterogeneous",
        "rl-kd",
        "concept-kd",
        "spam-schemes",
        "student-ensemble",
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fast", [False, True])
def test_both_forms_are_valid(name: str, fast: bool) -> None:
    config = load_reproduction(name, [], fast=fast)
    assert config.name == (f"{name}-fast" if fast else name)
    assert config.confirm is not None
    assert config.confirm.seeds >= 3
    assert config.published is not None
    assert config.published.rows or config.published.order
    for arm in config.arms:
        point = {key: value for key, value in arm.point.items() if key != "teachers"}
        StudentConfig.model_validate(apply_point(config.student.model_dump(mode="json"), point))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_set_on_the_command_line_wins_over_the_short_form(name: str) -> None:
    config = load_reproduction(name, ["student.epochs=1", "data.max_length=17"], fast=True)
    assert config.student.epochs == 1
    assert config.data.max_length == 17


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_per_cent_and_not_written_down_with_a_sweep(name: str) -> None:
    config = load_reproduction(name, [], fast=False)
    assert config.published is not None
    assert all(1 < value < 100 for value in config.published.rows.values() if value is not None)
    assert not {"published", "fast"} & config.to_dict().keys()
