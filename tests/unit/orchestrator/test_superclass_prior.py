"""``within: prior`` gets the frequencies of the classes from the data."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.specs import StudentFactory

LOSS = {"name": "superclass", "variant": "lifted", "within": "prior"}
COUNTS = {"train": (30, 20, 10)}


@pytest.fixture
def made(make_config: Any, make_factory: Any) -> Any:
    """Return the loss of the student that a config describes."""

    def made(loss: dict[str, Any]) -> dict[str, Any]:
        factory = make_factory(make_config(student={"loss": loss}))
        data = replace(factory.materials.data, class_counts=COUNTS)
        factory = StudentFactory(
            factory.config, replace(factory.materials, data=data), list(factory.teachers.values())
        )
        return dict(factory.spec({}).loss)

    return made


def test_it_is_filled_in(made: Any) -> None:
    assert made(LOSS)["prior"] == [30.0, 20.0, 10.0]


def test_one_that_is_given_stays(made: Any) -> None:
    assert made({**LOSS, "prior": [0.2, 0.3, 0.5]})["prior"] == [0.2, 0.3, 0.5]


@pytest.mark.parametrize("loss", [{"name": "superclass"}, {"name": "kd"}], ids=str)
def test_losses_without_it_keep_their_key(made: Any, loss: dict[str, Any]) -> None:
    assert "prior" not in made(loss)


def test_other_values_are_still_checked(make_config: Any) -> None:
    make_config(student={"loss": {**LOSS, "groups": [0, 1, 1]}})
    with pytest.raises(ConfigError, match="temperature must be a number > 0"):
        make_config(student={"loss": {**LOSS, "temperature": -1.0}})
    with pytest.raises(ConfigError, match="prior must hold one value per class"):
        make_config(student={"loss": {**LOSS, "groups": [0, 1, 1], "prior": [1.0]}})
