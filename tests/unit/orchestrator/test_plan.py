import json
from pathlib import Path
from typing import Any

from orchestrator.home import Home
from orchestrator.plan import make_plan
from orchestrator.schema import SweepConfig
from orchestrator.specs import teacher_proposal


def plan_of(config: SweepConfig, materials: Any, home: Path) -> Any:
    return make_plan(config, materials, Home(home), lambda resources: 2, estimate=False)


def counts(plan: Any) -> dict[str, tuple[int, int]]:
    return {stage.stage: (stage.trials, stage.cached) for stage in plan.stages}


def test_a_fresh_home_has_everything_to_do(
    config: SweepConfig, make_materials: Any, tmp_path: Path
) -> None:
    plan = plan_of(config, make_materials(config), tmp_path)
    assert counts(plan) == {
        "teachers": (2, 0),
        "outputs": (6, 0),
        "students": (7, 0),  # three controls and four drawn ones
        "confirm": (18, 0),  # three chosen and three controls with three seeds
    }
    assert plan.seconds is None
    assert not list(tmp_path.iterdir())
    document = json.loads(json.dumps(plan.to_json()))
    assert document["sweep"] == "news"
    assert document["data"]["rows"] == {"train": 60, "dev": 30, "transfer": 40}


def test_what_the_store_holds_is_cached(
    config: SweepConfig, make_materials: Any, tmp_path: Path
) -> None:
    materials = make_materials(config)
    with Home(tmp_path).store.write("teacher", teacher_proposal(materials.teachers[0]).key):
        pass
    assert counts(plan_of(config, materials, tmp_path))["teachers"] == (2, 1)


def test_controls_that_are_the_same_student_are_counted_once(
    make_config: Any, make_materials: Any, tmp_path: Path
) -> None:
    one = [{"name": "big", "model": {"name": "linear"}}]
    config = make_config(teachers=one, search={"trials": 4, "space": {}})
    plan = plan_of(config, make_materials(config), tmp_path)
    assert counts(plan)["students"][0] == 6


def test_grids_are_complete_and_confirm_can_be_left_out(
    make_config: Any, make_materials: Any, tmp_path: Path
) -> None:
    grid = {"alpha": {"grid": [0.1, 1.0, 10.0]}, "epochs": {"grid": [1, 2]}}
    search = {"trials": 2, "controls": False, "space": grid}
    config = make_config(search=search, confirm=None)
    plan = plan_of(config, make_materials(config), tmp_path)
    assert counts(plan)["students"][0] >= 6
    assert counts(plan)["confirm"] == (0, 0)
