from collections.abc import Callable
from typing import Any

import pytest
import torch

from trainables import student, teacher
from trainables.catalog import build
from trainables.errors import DataError
from trainables.evaluation import open_encoded
from trainables.hierarchy import coarse, coarsened, shuffled_groups, superclass_counts
from trainables.metrics import classification_metrics
from trainables.outputs import OutputsSpec, load_outputs
from trainables.outputs import run as run_outputs
from trainables.student import TeacherRef
from trainables.teacher import TeacherSpec

GROUPS = (0, 1, 1)  # three classes in two superclasses
MakeTeacher = Callable[..., TeacherSpec]


@pytest.fixture
def coarse_teacher(world: Any, make_teacher: MakeTeacher) -> TeacherRef:
    """A teacher that knows superclasses only, with its outputs on train."""
    spec = make_teacher("tiny", n_classes=2, groups=GROUPS, epochs=2)
    *_, last = teacher.run(spec, world.store)
    outputs = OutputsSpec(spec.key, "coarse", "train", "train", True, "fp32")
    list(run_outputs(outputs, world.store))
    score = last["summary"]["val_f1_macro"]
    return TeacherRef("coarse", spec.key, score, [{"train": outputs.key}])


def test_labels_become_superclasses_and_missing_ones_stay_missing() -> None:
    labels = torch.tensor([2, 0, -100, 1])
    assert coarse(labels, GROUPS).tolist() == [1, 0, -100, 1]


def test_without_groups_nothing_changes(world: Any) -> None:
    rows = open_encoded(world.store, "train")
    assert coarsened(rows, None) is rows
    assert coarsened(rows, GROUPS).tokens is rows.tokens


def test_counts_by_superclass() -> None:
    assert superclass_counts([5, 2, 3], GROUPS) == [5, 5]


def test_a_shuffled_hierarchy_is_another_one_of_the_same_sizes() -> None:
    groups = [0, 0, 0, 1, 1, 2]
    shuffled = shuffled_groups(groups, seed=1)
    assert sorted(shuffled) == groups
    assert shuffled == shuffled_groups(groups, seed=1)
    pairs = {(a, b) for a in range(6) for b in range(6) if groups[a] == groups[b]}
    assert {(a, b) for a in range(6) for b in range(6) if shuffled[a] == shuffled[b]} != pairs


def test_a_hierarchy_of_single_classes_cannot_be_shuffled() -> None:
    with pytest.raises(DataError, match="cannot be shuffled"):
        shuffled_groups([0, 1, 2], seed=0)


def test_the_teacher_learns_and_is_judged_on_superclasses(
    world: Any, coarse_teacher: TeacherRef
) -> None:
    outputs = load_outputs(world.store, coarse_teacher.outputs[0]["train"])
    assert outputs.logits.shape == (90, 2)
    labels = coarse(open_encoded(world.store, "train").labels, GROUPS)
    expected = classification_metrics(outputs.logits, labels, "train_")
    found = world.store.read("outputs", coarse_teacher.outputs[0]["train"]).meta["metrics"]
    assert found["train_accuracy"] == pytest.approx(expected["train_accuracy"])
    assert coarse_teacher.score > 0.5


@pytest.mark.parametrize("variant", ["marginal", "lifted", "label"])
def test_a_student_of_classes_learns_from_it(
    world: Any, coarse_teacher: TeacherRef, variant: str
) -> None:
    loss = {"name": "superclass", "groups": list(GROUPS), "variant": variant}
    spec = world.student(teachers=[coarse_teacher], loss=loss, epochs=1)
    (report,) = student.run(spec, world.store)
    assert report["train_kd"] > 0
    assert world.store.read("student", spec.key).meta["metrics"]["val_accuracy"] > 0


def test_an_auxiliary_head_learns_the_superclasses(world: Any, coarse_teacher: TeacherRef) -> None:
    spec = world.student(
        teachers=[coarse_teacher], alpha=0.0, beta=1.0, hint={"name": "auxiliary_head"}
    )
    reports = list(student.run(spec, world.store))
    assert reports[-1]["train_hint"] < reports[0]["train_hint"]
    described = world.store.read("student", spec.key).meta["metrics"]
    plain = world.student(teachers=[])
    list(student.run(plain, world.store))
    # The head is gone at inference.
    assert (
        described["parameters"]
        == world.store.read("student", plain.key).meta["metrics"]["parameters"]
    )


def test_the_auxiliary_head_by_hand() -> None:
    hint = build("hints", "auxiliary_head", temperature=2.0)
    weight = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    hint.setup(2, [2], [(weight, torch.zeros(2))])
    with torch.no_grad():
        hint.heads[0].weight.zero_()
        hint.heads[0].bias.zero_()
    features = torch.tensor([[1.0, 0.0]])
    value = hint(torch.ones(1, 2), [features], torch.ones(1, 1), torch.tensor([0]))
    p = torch.softmax(torch.tensor([1.0, 0.0]), 0)  # logits (2, 0) at T = 2
    by_hand = 4 * (p * (p.log() - torch.tensor(0.5).log())).sum()
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_label_variant_needs_no_teacher_but_labels() -> None:
    loss = build("losses", "superclass", groups=list(GROUPS), variant="label")
    assert loss.needs_labels
    logits = torch.tensor([[0.0, 0.0, 0.0]])
    value = loss(logits, torch.randn(1, 2), torch.tensor([2]))
    assert value.item() == pytest.approx(torch.tensor(1.5).log().item())  # -log 2/3
