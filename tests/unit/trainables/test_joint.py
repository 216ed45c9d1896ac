from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables import confirm, joint
from trainables.checkpoint import Checkpoint
from trainables.confirm import ConfirmSpec
from trainables.errors import TrialFailed
from trainables.joint import JointSpec, build_divergence, joint_loss
from trainables.loop import OptimizerSpec
from trainables.models._io import load_model
from trainables.teacher import TeacherSpec

MakeTeacher = Callable[..., TeacherSpec]
SCHEMES = ("isolated", "coupled", "summed")
INPUTS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double()
TARGETS = torch.arange(7) % 3
ALPHA = 0.7


def pair() -> tuple[nn.Linear, nn.Linear]:
    torch.manual_seed(4)
    return nn.Linear(5, 3).double(), nn.Linear(5, 3).double()


def total(scheme: Any, teacher: nn.Linear, student: nn.Linear, alpha: float = ALPHA) -> Tensor:
    divergence = build_divergence({"name": "kd", "temperature": 2.0}, scheme)
    value, _ = joint_loss(
        student(INPUTS),
        teacher(INPUTS),
        TARGETS,
        divergence,
        scheme=scheme,
        ce_weight=1 - ALPHA,
        alpha=alpha,
    )
    return value


def gradient(scheme: Any, side: str, alpha: float = ALPHA) -> Tensor:
    teacher, student = pair()
    total(scheme, teacher, student, alpha).backward()
    weight = teacher.weight if side == "teacher" else student.weight
    assert weight.grad is not None
    return weight.grad


def differences(function: Callable[[], Tensor], weight: Tensor) -> Tensor:
    """The gradient by central differences, one weight at a time."""
    result, step = torch.zeros_like(weight), 1e-6
    with torch.no_grad():
        for place in range(weight.numel()):
            flat = weight.view(-1)
            before = flat[place].item()
            flat[place] = before + step
            up = function().item()
            flat[place] = before - step
            down = function().item()
            flat[place] = before
            result.view(-1)[place] = (up - down) / (2 * step)
    return result


def test_isolated_the_teacher_feels_its_labels_only() -> None:
    teacher, _ = pair()
    F.cross_entropy(teacher(INPUTS), TARGETS).backward()
    assert teacher.weight.grad is not None
    torch.testing.assert_close(gradient("isolated", "teacher"), teacher.weight.grad)
    without = gradient("isolated", "teacher", alpha=0.0)
    assert torch.equal(gradient("isolated", "teacher"), without)


@pytest.mark.parametrize("scheme", ["coupled", "summed"])
def test_coupled_the_teacher_feels_the_divergence(scheme: str) -> None:
    teacher, student = pair()
    expected = differences(lambda: total(scheme, teacher, student), teacher.weight)
    torch.testing.assert_close(gradient(scheme, "teacher"), expected, rtol=1e-5, atol=1e-8)
    assert not torch.allclose(gradient(scheme, "teacher"), gradient("isolated", "teacher"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_student_feels_the_same_in_all_schemes(scheme: str) -> None:
    teacher, student = pair()
    expected = differences(lambda: total(scheme, teacher, student), student.weight)
    torch.testing.assert_close(gradient(scheme, "student"), expected, rtol=1e-5, atol=1e-8)


def test_the_divergence_alone_gives_the_teacher_its_closed_form() -> None:
    """dD/dz_t = T p_t ((log p_t - log p_s) - KL) / B, METHODS 9."""
    temperature = 2.0
    z_t = (INPUTS @ torch.randn(5, 3, dtype=torch.float64)).requires_grad_()
    z_s = INPUTS @ torch.randn(5, 3, dtype=torch.float64)
    loss = build_divergence({"name": "kd", "temperature": temperature}, "coupled")
    loss(z_s, z_t, TARGETS).mean().backward()
    log_t, log_s = (torch.log_softmax(z / temperature, 1) for z in (z_t.detach(), z_s))
    kl = (log_t.exp() * (log_t - log_s)).sum(1, keepdim=True)
    expected = temperature * log_t.exp() * ((log_t - log_s) - kl) / len(INPUTS)
    torch.testing.assert_close(z_t.grad, expected)


def test_a_loss_that_stops_the_gradient_is_refused() -> None:
    with pytest.raises(TrialFailed, match="'dkd' stops the gradient"):
        build_divergence({"name": "dkd"}, "coupled")
    build_divergence({"name": "dkd"}, "isolated")


def spec_of(world: Any, make_teacher: MakeTeacher, scheme: Any, **changes: Any) -> JointSpec:
    return JointSpec(scheme, make_teacher("tiny"), world.student(teachers=[], **changes))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_both_learn_and_the_student_is_stored(
    world: Any, make_teacher: MakeTeacher, scheme: str
) -> None:
    spec = spec_of(world, make_teacher, scheme, epochs=3)
    reports = list(joint.run(spec, world.store))
    assert reports[-1]["train_teacher_ce"] < reports[0]["train_teacher_ce"]
    assert reports[-1]["train_kd"] > 0
    artifact = world.store.read("joint", spec.key)
    assert "teacher_val_f1_macro" in artifact.meta["metrics"]
    model = load_model(artifact.file("model"))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert artifact.meta["metrics"]["parameters"] == count


def test_the_schemes_differ_in_key_and_result(world: Any, make_teacher: MakeTeacher) -> None:
    dev = {}
    for scheme in SCHEMES:
        spec = spec_of(world, make_teacher, scheme, epochs=1)
        list(joint.run(spec, world.store))
        dev[spec.key] = load_file(world.store.read("joint", spec.key).file("dev.safetensors"))
    first, second, third = (values["logits"] for values in dev.values())
    assert len(dev) == 3
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_gradients_are_clipped_apart_unless_summed(world: Any, make_teacher: MakeTeacher) -> None:
    """With the teacher's gradients clipped to nothing, only the summed student stands still."""

    def learned(scheme: Any) -> bool:
        spec = spec_of(world, make_teacher, scheme, epochs=6, alpha=0.0)
        still = OptimizerSpec(name="sgd", lr=1e-2, max_grad_norm=1e-9, weight_decay=0.0)
        teacher = replace(spec.teacher, optimizer=still)
        free = OptimizerSpec(lr=1e-2)
        spec = replace(spec, teacher=teacher, student=replace(spec.student, optimizer=free))
        reports = list(joint.run(spec, world.store))
        return bool(reports[-1]["train_ce"] < reports[0]["train_ce"] - 0.05)

    assert learned("isolated")
    assert not learned("summed")


def test_it_continues_after_a_crash(world: Any, make_teacher: MakeTeacher) -> None:
    spec = spec_of(world, make_teacher, "coupled", epochs=3)
    list(joint.run(spec, world.store))
    whole = load_file(world.store.read("joint", spec.key).file("dev.safetensors"))["logits"]
    world.store.delete("joint", spec.key)
    checkpoint = Checkpoint(world.store.root, spec.key)
    next(joint.run(spec, world.store, checkpoint))
    rest = list(joint.run(spec, world.store, checkpoint))
    assert [report["epoch"] for report in rest] == [2, 3]
    again = load_file(world.store.read("joint", spec.key).file("dev.safetensors"))["logits"]
    assert torch.equal(whole, again)


def test_it_can_be_confirmed(world: Any, make_teacher: MakeTeacher) -> None:
    spec = ConfirmSpec(spec_of(world, make_teacher, "isolated"), "test")
    assert ConfirmSpec.from_dict(spec.to_dict()).key == spec.key
    *_, last = confirm.run(spec, world.store)
    assert "test_accuracy" in last["summary"]
    assert world.store.read("confirm", spec.key).meta["task"] == "joint"
