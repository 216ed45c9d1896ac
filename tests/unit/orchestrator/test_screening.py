"""Which ways of teaching a search begins with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.schema import SweepConfig
from orchestrator.screening import TEMPERATURES, Screened, choose, screen
from orchestrator.specs import TrainedTeacher
from search_spaces.space import Space
from trainables.encoded import FILE as ENCODED_FILE
from trainables.outputs import FILE as OUTPUTS_FILE
from trainables.store import Store

NAMES = ("good", "fair", "bad")
LABELS = torch.tensor([0, 1, 2] * 10)


@pytest.fixture
def config(make_config: Any) -> SweepConfig:
    config: SweepConfig = make_config(
        teachers=[{"name": name, "model": {"name": "linear"}} for name in NAMES],
        search={
            "trials": 20,
            "space": {
                "loss": {
                    "choice": [
                        {"name": "kd", "temperature": {"log_uniform": [1, 16]}},
                        "mse_logits",
                    ]
                },
                "alpha": {"log_uniform": [0.5, 20]},
                "weighting": {"choice": ["average", "entropy", "gradient"]},
                "n_teachers": {"int": [1, 3]},
            },
        },
    )
    return config


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with 30 encoded dev rows."""
    store = Store(tmp_path / "store")
    tensors = {
        "tokens": torch.ones(30, dtype=torch.int32),
        "offsets": torch.arange(31),
        "ids": torch.arange(30),
        "labels": LABELS,
    }
    with store.write("encoded", "encoded-dev") as draft:
        save_file(tensors, draft.path / ENCODED_FILE, metadata={"pad_id": "0"})
    return store


@pytest.fixture
def teachers(config: SweepConfig, make_materials: Any, store: Store) -> dict[str, TrainedTeacher]:
    """``good`` is right 9 times of 10, ``fair`` 6 times, ``bad`` never and sure of it."""
    found = {}
    for teacher, right, scale in zip(
        make_materials(config).teachers, (27, 18, 0), (3.0, 3.0, 9.0), strict=True
    ):
        said = torch.where(torch.arange(30) < right, LABELS, (LABELS + 1) % 3)
        logits = torch.nn.functional.one_hot(said, 3) * scale
        # Cached in another order than the rows: they belong together by their ids.
        order = torch.randperm(30, generator=torch.Generator().manual_seed(right))
        key = f"outputs-{teacher.config.name}"
        with store.write("outputs", key) as draft:
            save_file({"ids": order, "logits": logits[order]}, draft.path / OUTPUTS_FILE)
        found[teacher.config.name] = TrainedTeacher(teacher, right / 30, {"dev": key})
    return found


@pytest.fixture
def space(config: SweepConfig) -> Space:
    return Space.parse(config.search.space).with_teachers(NAMES)


def test_every_teaching_of_the_space_is_scored_once(
    config: SweepConfig, space: Space, teachers: dict[str, TrainedTeacher], store: Store
) -> None:
    ways = screen(config, space, teachers, store)
    # 7 subsets of 3 teachers; gradient has no weights before there is a student.
    assert len(ways) == 7 * 2 * TEMPERATURES
    assert len({(way.teachers, way.weighting, way.temperature) for way in ways}) == len(ways)
    assert sorted({way.temperature for way in ways}) == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0])
    assert all(space.contains(way.point) for way in ways)
    assert [way.log_loss for way in ways] == sorted(way.log_loss for way in ways)


def test_the_good_teacher_comes_first_and_the_bad_one_last(
    config: SweepConfig, space: Space, teachers: dict[str, TrainedTeacher], store: Store
) -> None:
    ways = screen(config, space, teachers, store)
    assert ways[0].teachers == ("good",)
    assert ways[-1].teachers == ("bad",)
    # Right 27 times of 30 with logits 3, 0, 0 at T = 1: the log loss by hand.
    sure = torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64).log_softmax(0)
    by_hand = -(27 * sure[0] + 3 * sure[1]) / 30
    single = {w.temperature: w.log_loss for w in ways if w.teachers == ("good",)}
    assert single[1.0] == pytest.approx(float(by_hand), abs=1e-6)


def test_the_first_suggestions_differ_in_their_teachers(
    config: SweepConfig, space: Space, teachers: dict[str, TrainedTeacher], store: Store
) -> None:
    ways = screen(config, space, teachers, store)
    chosen = choose(ways, 3)
    assert chosen[0] == ways[0]
    assert len({way.teachers for way in chosen}) == 3


def test_what_is_not_about_teaching_keeps_its_default(
    config: SweepConfig, space: Space, teachers: dict[str, TrainedTeacher], store: Store
) -> None:
    for way in screen(config, space, teachers, store):
        assert way.point["loss"]["name"] == "kd"
        assert way.point["alpha"] == config.student.alpha


def test_teachers_of_superclasses_are_left_out(
    config: SweepConfig, space: Space, teachers: dict[str, TrainedTeacher], store: Store
) -> None:
    good = teachers["good"]
    materials = replace(good.materials, spec=replace(good.materials.spec, groups=(0, 0, 1)))
    coarse = teachers | {"good": replace(good, materials=materials)}
    ways = screen(config, space, coarse, store)
    assert ways
    assert all("good" not in way.teachers for way in ways)


def test_a_space_with_one_way_to_teach_has_nothing_to_choose() -> None:
    only = Screened({}, ("good",), "average", 4.0, 0.5)
    assert choose([only], 3) == []
    assert choose([], 3) == []
