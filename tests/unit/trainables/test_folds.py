from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from trainables import outputs, student, teacher
from trainables.errors import TrialFailed
from trainables.evaluation import open_encoded
from trainables.folds import fold_of, inside, outside
from trainables.outputs import OutputsSpec, load_outputs
from trainables.student import TeacherRef
from trainables.teacher import TeacherSpec

FOLDS = 3
MakeTeacher = Callable[..., TeacherSpec]


def out_of_fold(world: Any, make_teacher: MakeTeacher, **changes: Any) -> tuple[Any, OutputsSpec]:
    specs = [make_teacher("tiny", fold=(i, FOLDS), epochs=1) for i in range(FOLDS)]
    for spec in specs:
        list(teacher.run(spec, world.store))
    values = {"folds": [spec.key for spec in specs], "precision": "fp32", **changes}
    spec = OutputsSpec(world.teachers[1].key, "tiny", "train", "train", **values)
    (report,) = outputs.run(spec, world.store)
    return report, spec


def test_folds_are_even_and_follow_the_id() -> None:
    ids = torch.arange(9000) * 7 + 3
    folds = fold_of(ids, 5)
    counts = torch.bincount(folds, minlength=5)
    assert counts.sum() == 9000
    assert int(counts.min()) > 1650  # 1800 expected, 38 is one standard deviation
    order = torch.randperm(9000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fold_of(ids[order], 5), folds[order])


def test_inside_and_outside_divide_the_rows() -> None:
    ids = torch.arange(50)
    rows = torch.cat([inside(ids, 1, 4), outside(ids, 1, 4)])
    assert sorted(rows.tolist()) == list(range(50))
    with pytest.raises(ValueError, match="at least 2, but got 1"):
        fold_of(ids, 1)


def test_a_fold_teacher_has_its_own_key(make_teacher: MakeTeacher) -> None:
    whole = make_teacher("tiny")
    first, second = make_teacher("tiny", fold=(0, 3)), make_teacher("tiny", fold=(1, 3))
    assert len({whole.key, first.key, second.key}) == 3
    assert TeacherSpec.from_dict(first.to_dict()) == first
    assert replace(first, fold=None).key == whole.key


def test_it_does_not_see_its_fold(
    world: Any, make_teacher: MakeTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()

    def watched(encoded: Any, index: torch.Tensor, *rest: Any) -> Any:
        seen.update(encoded.ids[index].tolist())
        return original(encoded, index, *rest)

    original = teacher.gather
    monkeypatch.setattr(teacher, "gather", watched)
    list(teacher.run(make_teacher("tiny", fold=(1, FOLDS), epochs=1, seed=5), world.store))
    ids = open_encoded(world.store, "train").ids
    assert seen == set(ids[outside(ids, 1, FOLDS)].tolist())


def test_each_row_is_judged_by_the_teacher_that_has_not_seen_it(
    world: Any, make_teacher: MakeTeacher
) -> None:
    report, spec = out_of_fold(world, make_teacher)
    cached = load_outputs(world.store, spec.key)
    for fold, key in enumerate(spec.folds):
        alone = OutputsSpec(key, "fold", "train", "train", False, "fp32")
        list(outputs.run(alone, world.store))
        rows = inside(cached.ids, fold, FOLDS)
        theirs = load_outputs(world.store, alone.key).logits[rows]
        torch.testing.assert_close(cached.logits[rows], theirs, rtol=1e-5, atol=1e-5)
    assert {"train_loss", "train_entropy", "train_accuracy"} <= report["summary"].keys()


def test_features_stay_those_of_one_model(world: Any, make_teacher: MakeTeacher) -> None:
    _, spec = out_of_fold(world, make_teacher, features=True)
    cached = load_outputs(world.store, spec.key)
    whole = load_outputs(world.store, world.teachers[1].outputs[0]["train"])
    assert cached.features is not None
    assert whole.features is not None
    torch.testing.assert_close(cached.features, whole.features)
    assert not torch.allclose(cached.logits, whole.logits)


def test_folds_change_the_key_and_survive_json() -> None:
    plain = OutputsSpec("key", "a", "train", "rows")
    folded = replace(plain, folds=("x", "y"))
    assert plain.key != folded.key != replace(plain, folds=("y", "x")).key
    again = OutputsSpec.from_dict(folded.to_dict())
    assert again.key == folded.key


def test_a_student_learns_from_them_and_logs_the_weights(
    world: Any, make_teacher: MakeTeacher
) -> None:
    _, spec = out_of_fold(world, make_teacher)
    old = world.teachers[1]
    unseen = TeacherRef("tiny", old.key, old.score, [{**old.outputs[0], "train": spec.key}])
    chosen = world.student(
        teachers=[world.teachers[0], unseen], weighting={"name": "confidence"}, epochs=1
    )
    (report,) = student.run(chosen, world.store)
    assert 0 < report["train_weight_entropy"] < 0.7


def test_a_fold_of_everything_is_refused(world: Any, make_teacher: MakeTeacher) -> None:
    ids = open_encoded(world.store, "train").ids
    fold = int(fold_of(ids, 2)[0])
    with pytest.raises(TrialFailed, match="no training rows outside its fold"):
        list(teacher.run(make_teacher("tiny", rows=1, fold=(fold, 2)), world.store))


def test_outputs_of_an_anchor_cannot_be_made_later(world: Any) -> None:
    spec = OutputsSpec(world.teachers[0].key, "small", "train", "train", anchor=0.5)
    with pytest.raises(TrialFailed, match=r"after 0\.5 of its training are gone"):
        list(outputs.run(spec, world.store))
