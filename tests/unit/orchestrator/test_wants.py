from typing import Any

from orchestrator.specs import StudentFactory
from orchestrator.wants import anchors, component_names, needs_features, schedule_anchors

ROUTE = {"name": "rco", "anchors": [0.3, 1.0]}


def test_schedules_are_found_wherever_they_are(make_config: Any) -> None:
    assert anchors(make_config()) == ()
    student = {"model": {"name": "textcnn"}, "schedule": "rco"}
    assert anchors(make_config(student=student)) == (0.1, 0.25, 0.5)
    searched = {"space": {"schedule": {"choice": ["constant", ROUTE]}}}
    assert anchors(make_config(search=searched)) == (0.3,)
    arms = [{"name": "route", "point": {"schedule": ROUTE}}]
    assert anchors(make_config(search={}, arms=arms)) == (0.3,)


def test_hints_of_arms_ask_for_features(make_config: Any) -> None:
    arms = [{"name": "x", "point": {"hint": "auxiliary_head", "beta": 1.0}}]
    config = make_config(search={}, arms=arms)
    assert component_names(config, "hint") == {"auxiliary_head"}
    assert needs_features(config)
    assert not needs_features(make_config())


def test_a_schedule_without_parameters_has_its_own_anchors() -> None:
    assert schedule_anchors({"name": "constant"}) == (1.0,)
    assert schedule_anchors(ROUTE) == (0.3, 1.0)


def test_a_constant_schedule_refers_to_the_finished_teacher_only(factory: StudentFactory) -> None:
    (outputs,) = factory.spec({}).teachers[0].outputs
    assert "dev" not in outputs
