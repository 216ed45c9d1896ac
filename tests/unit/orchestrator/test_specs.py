from typing import Any

import pytest

from orchestrator.schema import SweepConfig
from orchestrator.specs import (
    AVERAGE,
    BEST_TEACHER,
    PLAIN,
    StudentFactory,
    component_names,
    confirm_proposals,
    flatten,
    needs_features,
    outputs_proposal,
    student_params,
    teacher_proposal,
)
from trainables.confirm import ConfirmSpec
from trainables.student import StudentSpec


def test_the_base_values_are_the_empty_point(factory: StudentFactory) -> None:
    spec = factory.spec({})
    assert spec.model == {"name": "textcnn", "filters": 8}
    assert [teacher.name for teacher in spec.teachers] == ["big", "weak"]
    assert (spec.epochs, spec.rows_per_epoch, spec.n_classes) == (3, 100, 3)
    assert (spec.train, spec.dev, spec.transfer) == (
        "encoded-train",
        "encoded-dev",
        "encoded-transfer",
    )


def test_a_point_overrides_and_parameters_of_another_component_do_not_carry_over(
    factory: StudentFactory,
) -> None:
    changed = factory.spec({"alpha": 2.0, "lr": 0.1, "loss": {"temperature": 7.0}})
    assert (changed.alpha, changed.optimizer.lr) == (2.0, 0.1)
    assert changed.loss == {"name": "kd", "temperature": 7.0}
    assert factory.spec({"loss": {"name": "mse_logits"}}).loss == {"name": "mse_logits"}


def test_a_teacher_gives_outputs_for_training_rows_only(factory: StudentFactory) -> None:
    (teacher,) = factory.spec({"teachers": ["weak"]}).teachers
    assert teacher.name == "weak"
    assert teacher.score == pytest.approx(0.8)
    assert teacher.outputs == [{"train": "weak-train", "transfer": "weak-transfer"}]


def test_without_transfer_rows_there_are_none(config: SweepConfig, make_factory: Any) -> None:
    spec = make_factory(config, transfer=0).spec({})
    assert spec.transfer is None
    assert spec.rows_per_epoch is None


def test_transfer_can_be_switched_off_for_one_point(factory: StudentFactory) -> None:
    assert factory.spec({"transfer": False}).transfer is None


def test_controls_differ_from_the_student_in_how_it_is_taught_only(factory: StudentFactory) -> None:
    point = {"lr": 0.01, "alpha": 3.0, "teachers": ["weak"], "weighting": {"name": "entropy"}}
    specs = {role: factory.spec(p) for role, p in factory.controls(point).items()}
    assert list(specs) == [PLAIN, BEST_TEACHER, AVERAGE]
    assert [t.name for t in specs[PLAIN].teachers] == []
    assert [t.name for t in specs[BEST_TEACHER].teachers] == ["big"]
    assert [t.name for t in specs[AVERAGE].teachers] == ["big", "weak"]
    assert {spec.optimizer.lr for spec in specs.values()} == {0.01}
    assert {spec.rows_per_epoch for spec in specs.values()} == {100}  # the same budget
    assert specs[AVERAGE].weighting == {"name": "average"}
    assert not specs[PLAIN].distils
    assert specs[BEST_TEACHER].distils


def test_the_plain_control_does_not_depend_on_the_loss(factory: StudentFactory) -> None:
    keys = {
        factory.proposal(factory.controls({"loss": loss})[PLAIN], PLAIN).key
        for loss in ({"name": "kd", "temperature": 2.0}, {"name": "mse_logits"})
    }
    assert len(keys) == 1


def test_what_changes_nothing_changes_no_key(factory: StudentFactory) -> None:
    key = factory.proposal({}, "default").key
    assert factory.proposal({"alpha": 1.0}, "search").key == key
    assert factory.proposal({"teachers": ["big", "weak"]}, "search").key == key
    assert factory.proposal({"alpha": 1.5}, "search").key != key
    assert factory.spec({}, seed=1).key != key


def test_given_weights_stay_with_their_teachers(make_config: Any, make_factory: Any) -> None:
    config = make_config(
        teachers=[{"name": name, "model": {"name": "linear"}} for name in ("a", "b", "c")]
    )
    factory = make_factory(config)
    point = {"weighting": {"name": "fixed", "weights": [0.5, 0.3, 0.2]}}
    assert factory.spec(point).weighting["weights"] == [0.5, 0.3, 0.2]
    two = factory.spec(point | {"teachers": ["a", "c"]})
    assert two.weighting["weights"] == [0.5, 0.2]
    del factory.teachers["b"]  # excluded, because it learned nothing
    assert factory.spec(point).weighting["weights"] == [0.5, 0.2]


def test_a_spec_survives_json(factory: StudentFactory) -> None:
    spec = factory.spec({"teachers": ["big"]})
    assert StudentSpec.from_dict(spec.to_dict()).to_dict() == spec.to_dict()
    assert StudentSpec.from_dict(spec.to_dict()).key == spec.key


def test_parameters_are_flat_and_without_what_has_no_effect(factory: StudentFactory) -> None:
    params = student_params(factory.spec({"teachers": ["weak"], "loss": {"temperature": 2.0}}))
    assert params["model"] == "textcnn"
    assert params["model.filters"] == 8
    assert (params["loss"], params["loss.temperature"]) == ("kd", 2.0)
    assert (params["teachers"], params["n_teachers"]) == ("weak", 1)
    assert "momentum" not in params
    assert "hint" not in params
    plain = student_params(factory.spec({"teachers": []}))
    assert (plain["loss"], plain["teachers"], plain["alpha"]) == ("none", "none", 0.0)
    assert "loss.temperature" not in plain
    assert plain["transfer"] is False


def test_confirmation_repeats_a_student_with_each_seed(factory: StudentFactory) -> None:
    student = factory.proposal({"alpha": 2.0}, "candidate")
    control = factory.proposal(factory.controls()[PLAIN], PLAIN)
    runs = confirm_proposals(student, [0, 1], "test-key")
    assert [(p.role, p.seed, p.group) for p in runs] == [
        ("candidate", 0, student.key),
        ("candidate", 1, student.key),
    ]
    assert [p.role for p in confirm_proposals(control, [0], None)] == [PLAIN]
    spec = ConfirmSpec.from_dict(runs[1].spec)
    assert (spec.test, spec.student.seed, spec.student.alpha) == ("test-key", 1, 2.0)
    assert len({p.key for p in runs}) == 2


def test_only_confirm_can_name_a_test_split(factory: StudentFactory) -> None:
    assert "test" not in StudentSpec.__dataclass_fields__
    assert factory.materials.data.test_key not in str(factory.spec({}).to_dict())


def test_a_teacher_is_named_by_what_it_learns(config: SweepConfig, make_materials: Any) -> None:
    first, second = make_materials(config).teachers
    proposal = teacher_proposal(first)
    assert (proposal.task, proposal.role, proposal.key) == ("teacher", "big", first.spec.key)
    assert proposal.params["teacher"] == "big"
    assert proposal.params["model"] == "linear"
    assert teacher_proposal(second).key != proposal.key
    outputs = [outputs_proposal(first, s, f"encoded-{s}", features=False) for s in ("train", "dev")]
    assert len({p.key for p in outputs}) == 2
    assert outputs[0].params == {"teacher": "big", "split": "train", "features": False}


def test_methods_of_a_config_are_found_wherever_they_are_written(make_config: Any) -> None:
    space = {
        "loss": {"choice": ["mse_logits", {"name": "dkd", "beta": {"uniform": [1, 8]}}]},
        "weighting": {"grid": ["entropy", "confidence"]},
        "hint": {"choice": [None, "smooth_l1"]},
    }
    config = make_config(search={"space": space})
    assert component_names(config, "loss") == {"kd", "mse_logits", "dkd"}
    assert component_names(config, "weighting") == {"average", "entropy", "confidence"}
    assert needs_features(config)
    assert not needs_features(make_config())


def test_flattening_keeps_names_and_joins_lists() -> None:
    nested = {"model": {"name": "textcnn", "kernels": [2, 3]}, "lr": 0.1, "hint": None}
    assert flatten(nested) == {
        "model": "textcnn",
        "model.kernels": "2,3",
        "lr": 0.1,
        "hint": None,
    }
