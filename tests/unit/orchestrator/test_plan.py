import json
from pathlib import Path
from typing import Any

from orchestrator.home import Home
from orchestrator.ledger import Objectives, Outcome, StageLedger, open_storage
from orchestrator.plan import make_plan
from orchestrator.records import Stage, TrialState
from orchestrator.reuse import search_identity
from orchestrator.schema import SweepConfig
from orchestrator.show import _reuse_lines
from orchestrator.specs import StudentFactory, teacher_proposal, trained_teacher
from search_spaces.space import Space
from trainables.store import content_key


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


def stage(plan: Any, name: str) -> Any:
    return next(stage for stage in plan.stages if stage.stage == name)


def test_the_plan_says_which_trials_are_there_and_which_are_new(
    config: SweepConfig, make_materials: Any, tmp_path: Path
) -> None:
    materials = make_materials(config)
    first = teacher_proposal(materials.teachers[0])
    with Home(tmp_path).store.write("teacher", first.key):
        pass
    plan = plan_of(config, materials, tmp_path)
    teachers, students = stage(plan, "teachers"), stage(plan, "students")
    assert (teachers.reused, teachers.new) == (("big",), ("weak",))
    assert stage(plan, "outputs").new[0] == "big on train"
    assert students.reused == ()
    assert students.new == (
        *("control:plain", "control:best_teacher", "control:average"),
        "default",
    )


def test_students_of_an_earlier_start_are_counted_once_their_teachers_are_there(
    config: SweepConfig, make_materials: Any, tmp_path: Path
) -> None:
    materials = make_materials(config)
    home = Home(tmp_path)
    for number, teacher in enumerate(materials.teachers):
        with home.store.write("teacher", teacher_proposal(teacher).key) as draft:
            draft.meta.update(metrics={"val_f1_macro": 0.9 - number / 10})
    expected = [
        trained_teacher(config, teacher, 0.9 - number / 10)
        for number, teacher in enumerate(materials.teachers)
    ]
    factory = StudentFactory(config, materials, expected)
    space = Space.parse(config.search.space).with_teachers(["big", "weak"])
    identity = content_key(search_identity(config, space, factory))[:12]
    study = f"news/students/{identity}"
    ledger = StageLedger(
        open_storage(home.ledger_url()), study, Stage.STUDENTS, Objectives({"val_f1_macro": "max"})
    )
    plain = factory.proposal(factory.controls()["control:plain"], "control:plain")
    drawn = [factory.proposal({"alpha": alpha, "n_teachers": 2}, "search") for alpha in (1, 2, 3)]
    states = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE)
    for proposal, state in zip((plain, *drawn), states, strict=True):
        entered = ledger.enter(proposal)
        ledger.finish(entered, Outcome(state, {"val_f1_macro": 0.5}))
        if proposal is not drawn[2]:  # its artifact was removed, so it must be made again
            with home.store.write("student", proposal.key):
                pass
    data = {"classes": [], "rows": {}}
    home.write_state(
        "news",
        {
            "config": {**config.to_dict(), "seed": 7},
            "studies": {"students": study},
            "data": data,
            "objective": ["val_f1_macro", "max"],
        },
    )
    plan = plan_of(config, materials, tmp_path)
    students = stage(plan, "students")
    assert students.reused == ("control:plain", "2 drawn before")
    assert students.new == ("control:best_teacher", "control:average")  # the default is the latter
    assert students.cached == 3
    assert plan.changed == {"seed": ("7", "0")}
    assert "changed since the last start: seed 7 -> 0" in list(_reuse_lines(plan))
    other = plan_of(config.model_copy(update={"seed": 1}), make_materials(config), tmp_path)
    assert stage(other, "students").reused == ()
