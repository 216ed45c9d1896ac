"""What a policy has learned, by how hard the rows are for the teachers."""

import math
from typing import Any

import pytest
import torch

from trainables import student
from trainables.confirm import ConfirmSpec
from trainables.confirm import run as confirm
from trainables.difficulty import LEVELS, by_level, difficulty, terciles


def test_difficulty_is_the_mean_cross_entropy_of_the_teachers() -> None:
    sure, unsure = torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [2.0, 0.0]])
    values = difficulty(torch.stack([sure, unsure]), torch.tensor([0, 1]))
    wrong = math.log(1 + math.exp(2.0))
    assert values.tolist() == pytest.approx([math.log(2), (math.log(2) + wrong) / 2])


def test_terciles_are_of_one_size_and_by_rank() -> None:
    assert terciles(torch.tensor([5.0, 1.0, 100.0, 2.0, 4.0, 3.0])).tolist() == [2, 0, 2, 0, 1, 1]
    assert terciles(torch.zeros(7)).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_means_by_level() -> None:
    probabilities = torch.tensor([[0.1, 0.2, 0.3, 0.5, 0.9, 0.7], [0.5] * 6])
    found = by_level(probabilities, torch.arange(6.0), ["a", "b"])
    assert [found[level]["rows"] for level in LEVELS] == [2, 2, 2]
    assert [found[level]["difficulty"] for level in LEVELS] == [0.5, 2.5, 4.5]
    assert [found[level]["teachers"]["a"] for level in LEVELS] == pytest.approx([0.15, 0.4, 0.8])
    assert {found[level]["teachers"]["b"] for level in LEVELS} == {0.5}


def test_a_trained_policy_tells_what_it_selects(world: Any) -> None:
    spec = world.student(weighting={"name": "reinforced", "warmup": 0.0})
    *_, last = student.run(spec, world.store)
    saved = world.store.meta("student", spec.key)["selection"]
    assert set(saved) == set(LEVELS)
    assert sum(entry["rows"] for entry in saved.values()) == 90
    hardness = [saved[level]["difficulty"] for level in LEVELS]
    assert hardness == sorted(hardness)
    for level, entry in saved.items():
        assert list(entry["teachers"]) == ["small", "tiny"]
        for number, share in enumerate(entry["teachers"].values()):
            assert 0 < share < 1
            assert last["summary"][f"selection_{level}_{number}"] == share


def test_confirmed_students_keep_the_metrics(world: Any) -> None:
    spec = ConfirmSpec(world.student(weighting={"name": "reinforced", "warmup": 0.0}), "test")
    *_, last = confirm(spec, world.store)
    assert {f"selection_hard_{number}" for number in (0, 1)} <= last["summary"].keys()


@pytest.mark.parametrize(
    "weighting", [{"name": "average"}, {"name": "reinforced", "warmup": 1.0}], ids=str
)
def test_nothing_is_told_where_nothing_was_learned(world: Any, weighting: dict[str, Any]) -> None:
    spec = world.student(weighting=weighting, epochs=1)
    *_, last = student.run(spec, world.store)
    assert "selection" not in world.store.meta("student", spec.key)
    assert not [name for name in last["summary"] if name.startswith("selection_")]


def test_asking_changes_no_result(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = world.student(weighting={"name": "reinforced", "warmup": 0.0})
    *_, asked = student.run(spec, world.store)
    world.store.delete("student", spec.key)
    monkeypatch.setattr(student, "selection_by_difficulty", lambda *_: None)
    *_, silent = student.run(spec, world.store)
    assert silent["val_loss"] == asked["val_loss"]
    assert silent["train_loss"] == asked["train_loss"]
