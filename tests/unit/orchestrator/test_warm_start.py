"""Beginning with the best of an earlier sweep."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import PreflightError
from orchestrator.home import Home
from orchestrator.ledger import Objectives, Outcome, Proposal, StageLedger, open_storage
from orchestrator.records import Stage, TrialState
from orchestrator.schema import SweepConfig
from orchestrator.warm_start import check_warm_start, warm_points
from search_spaces.space import Space

EARLIER = (
    ({"alpha": 1.0, "teachers": ["big"]}, 0.5),
    ({"alpha": 2.0, "teachers": ["big", "weak"]}, 0.9),
    ({"alpha": 3.0, "teachers": []}, 0.99),  # the plain control
    ({"alpha": 99.0, "teachers": ["big"]}, 0.8),  # outside of the new space
    ({"alpha": 4.0, "teachers": ["big"], "lr": 0.5}, 0.7),  # also searched the learning rate
    ({"alpha": 5.0, "teachers": ["big"]}, None),  # failed
)


@pytest.fixture
def home(tmp_path: Path, make_config: Any) -> Home:
    """A home with a finished sweep ``old``."""
    home = Home(tmp_path / "home")
    home.path.mkdir()
    ledger = StageLedger(
        open_storage(home.ledger_url()),
        "old/students/1",
        Stage.STUDENTS,
        Objectives({"val_f1_macro": "max"}),
    )
    for number, (point, score) in enumerate(EARLIER):
        trial = ledger.enter(Proposal("student", f"key{number}", "search", {}, point=point))
        state = TrialState.FAILED if score is None else TrialState.COMPLETE
        ledger.finish(trial, Outcome(state, {} if score is None else {"val_f1_macro": score}))
    home.write_state(
        "old",
        {
            "config": make_config(name="old").to_dict(),
            "data": {"digest": "d"},
            "studies": {"students": "old/students/1"},
        },
    )
    return home


def _warm(make_config: Any, name: str | None = "old") -> SweepConfig:
    config: SweepConfig = make_config(
        name="new",
        search={
            "space": {"alpha": {"log_uniform": [0.1, 10.0]}, "n_teachers": {"int": [1, 2]}},
            "warm_start": name,
        },
    )
    return config


def test_the_best_points_of_this_space_come_first(home: Home, make_config: Any) -> None:
    config = _warm(make_config)
    space = Space.parse(config.search.space).with_teachers(["big", "weak"])
    assert warm_points(config, home, space) == [
        {"alpha": 2.0, "teachers": ["big", "weak"]},
        {"alpha": 4.0, "teachers": ["big"]},
        {"alpha": 1.0, "teachers": ["big"]},
    ]


def test_teachers_that_are_excluded_now_are_not_asked_for(home: Home, make_config: Any) -> None:
    config = _warm(make_config)
    space = Space.parse(config.search.space).with_teachers(["big", "weak"], ["weak"])
    assert [p["teachers"] for p in warm_points(config, home, space)] == [["big"], ["big"]]


def test_without_an_earlier_sweep_there_is_nothing(home: Home, make_config: Any) -> None:
    config = _warm(make_config, None)
    check_warm_start(config, home, "d")
    assert warm_points(config, home, Space.parse(config.search.space)) == []


@pytest.mark.parametrize(
    ("name", "digest", "message"),
    [
        ("other", "d", "no earlier sweep 'other'.*there are: old"),
        ("new", "d", "no earlier sweep 'new'"),
        ("old", "e", "other data, or on another split"),
    ],
)
def test_what_cannot_be_started_from_is_refused(
    home: Home, make_config: Any, name: str, digest: str, message: str
) -> None:
    with pytest.raises(PreflightError, match=message):
        check_warm_start(_warm(make_config, name), home, digest)


def test_the_same_data_is_accepted(home: Home, make_config: Any) -> None:
    check_warm_start(_warm(make_config), home, "d")
