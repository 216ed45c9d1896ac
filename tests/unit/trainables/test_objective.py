"""How the objective adds up its parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.catalog import build
from trainables.objective import Objective, label_free

TEACHERS, EXAMPLES, CLASSES, FEATURES = 3, 8, 4, 6


class Untouchable:
    """A component that must not be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        raise AssertionError("called")


def _batch() -> tuple[Tensor, Tensor, Tensor]:
    """Student with gradient [B, C], labels [B], teachers [K, B, C]."""
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(EXAMPLES, CLASSES, generator=generator, dtype=torch.float64)
    shape = (TEACHERS, EXAMPLES, CLASSES)
    teachers = torch.randn(*shape, generator=generator, dtype=torch.float64) * 2
    return student.requires_grad_(), torch.arange(EXAMPLES) % CLASSES, teachers


def _objective(loss: str = "kd", weighting: str = "average", **kwargs: Any) -> Objective:
    return Objective(loss=build("losses", loss), weighting=build("weightings", weighting), **kwargs)


def test_is_the_weighted_sum_of_its_parts() -> None:
    student, targets, teachers = _batch()
    hint = build("hints", "logits_l2")
    value = _objective(weighting="confidence", hint=hint, ce_weight=0.5, alpha=2.0, beta=3.0)(
        student, targets, teachers
    )
    weights = build("weightings", "confidence")(student, teachers, targets)
    losses = torch.stack([build("losses", "kd")(student, z, targets) for z in teachers])
    distances = ((teachers - student) ** 2).sum(2)
    ce = torch.nn.functional.cross_entropy(student, targets)
    kd, hinted = ((weights * part).sum(0).mean() for part in (losses, distances))
    assert value.total.item() == pytest.approx((0.5 * ce + 2 * kd + 3 * hinted).item())
    assert {name: part.item() for name, part in value.parts.items()} == pytest.approx(
        {
            "ce": ce.item(),
            "kd": kd.item(),
            "hint": hinted.item(),
            "weight_mass": 1.0,
            "weight_entropy": torch.special.entr(weights).sum(0).mean().item(),
        }
    )
    assert not any(part.requires_grad for part in value.parts.values())


def test_official_mass_is_reported() -> None:
    student, targets, teachers = _batch()
    weighting = build("weightings", "confidence", normalize="official")
    value = Objective(loss=build("losses", "kd"), weighting=weighting)(student, targets, teachers)
    assert value.parts["weight_mass"].item() == pytest.approx(1 / TEACHERS)


@pytest.mark.parametrize("loss", ["kd", "dkd", "dist", "nkd", "rld", "wsld"])
def test_stacking_the_teachers_changes_nothing(loss: str) -> None:
    student, targets, teachers = _batch()
    value = _objective(loss, weighting="entropy")(student, targets, teachers)
    weights = build("weightings", "entropy")(student, teachers, targets)
    each = [build("losses", loss)(student, teacher, targets) for teacher in teachers]
    expected = sum(
        (weight * one).mean() if one.ndim else weight.mean() * one
        for weight, one in zip(weights, each, strict=True)
    )
    assert isinstance(expected, Tensor)
    assert value.parts["kd"].item() == pytest.approx(expected.item())


class TestPlainControl:
    def test_without_teachers_it_is_cross_entropy(self) -> None:
        student, targets, _ = _batch()
        value = Objective(loss=Untouchable(), weighting=Untouchable())(student, targets)  # type: ignore[arg-type]
        assert value.total.item() == torch.nn.functional.cross_entropy(student, targets).item()
        assert list(value.parts) == ["ce"]

    def test_without_weight_the_teachers_are_not_touched(self) -> None:
        student, targets, teachers = _batch()
        objective = Objective(loss=Untouchable(), weighting=Untouchable(), alpha=0.0)  # type: ignore[arg-type]
        assert not objective.uses_teachers
        assert list(objective(student, targets, teachers).parts) == ["ce"]

    def test_a_hint_alone_skips_the_loss(self) -> None:
        student, targets, teachers = _batch()
        objective = Objective(
            loss=Untouchable(),  # type: ignore[arg-type]
            weighting=build("weightings", "average"),
            hint=build("hints", "logits_l2"),
            alpha=0.0,
            beta=1.0,
        )
        assert "kd" not in objective(student, targets, teachers).parts


class TestRowsWithoutLabels:
    def test_count_in_the_label_free_terms_only(self) -> None:
        student, targets, teachers = _batch()
        targets = targets.clone()
        targets[3:] = -100
        value = _objective()(student, targets, teachers)
        ce = torch.nn.functional.cross_entropy(student[:3], targets[:3])
        assert value.parts["ce"].item() == pytest.approx(ce.item())
        full = _objective()(student, _batch()[1], teachers)
        assert value.parts["kd"].item() == full.parts["kd"].item()

    def test_only_such_rows_cost_no_cross_entropy(self) -> None:
        student, targets, teachers = _batch()
        value = _objective()(student, torch.full_like(targets, -100), teachers)
        assert value.parts["ce"].item() == 0.0
        value.total.backward()
        assert student.grad is not None
        assert bool(torch.isfinite(student.grad).all())

    @pytest.mark.parametrize(
        ("loss", "weighting", "hint", "named"),
        [
            ("dkd", "average", None, "DKD"),
            ("kd", "confidence", None, "Confidence"),
            ("kd", "average", "ca_mkd", "CAMKD"),
        ],
    )
    def test_are_refused_by_name(
        self, loss: str, weighting: str, hint: str | None, named: str
    ) -> None:
        student, targets, teachers = _batch()
        parts = build("hints", hint) if hint else None
        objective = _objective(loss, weighting, hint=parts, beta=1.0 if hint else 0.0)
        with pytest.raises(ValueError, match=f"{named} cannot use rows without a label"):
            objective(student, torch.full_like(targets, -100), teachers)

    def test_the_planner_can_ask_before(self) -> None:
        kd, dkd = build("losses", "kd"), build("losses", "dkd")
        average, confidence = build("weightings", "average"), build("weightings", "confidence")
        assert label_free(kd, average) == []
        assert label_free(dkd, confidence, build("hints", "ca_mkd")) == [
            "DKD",
            "Confidence",
            "CAMKD",
        ]
        lifted = build("losses", "superclass", variant="lifted", within="label")
        assert label_free(lifted, average, None) == ["Superclass"]


class TestHintsOnFeatures:
    def test_use_the_features(self) -> None:
        student, targets, teachers = _batch()
        hint = build("hints", "smooth_l1")
        hint.setup(FEATURES, [FEATURES] * TEACHERS)
        mine = torch.randn(EXAMPLES, FEATURES, requires_grad=True)
        theirs = [mine.detach() + 0.5] * TEACHERS
        value = _objective(hint=hint, beta=4.0)(student, targets, teachers, mine, theirs)
        assert value.parts["hint"].item() == pytest.approx(0.125)
        value.total.backward()
        assert mine.grad is not None

    def test_say_that_features_are_missing(self) -> None:
        student, targets, teachers = _batch()
        hint = build("hints", "smooth_l1")
        hint.setup(FEATURES, [FEATURES] * TEACHERS)
        with pytest.raises(ValueError, match="SmoothL1 compares features, but the batch has none"):
            _objective(hint=hint, beta=1.0)(student, targets, teachers)

    def test_their_maps_are_trained_with_the_student(self) -> None:
        hint = build("hints", "fitnets")
        hint.setup(FEATURES, [FEATURES, 3])
        assert len(list(_objective(hint=hint, beta=1.0).parameters())) == 4
        assert list(_objective(weighting="reinforced").parameters()) == []


class TestSuperclassTeachers:
    GROUPS = (0, 0, 1, 1)

    def test_weightings_see_the_student_and_labels_as_superclasses(self) -> None:
        student, targets, teachers = _batch()
        loss = build("losses", "superclass", groups=self.GROUPS)
        confidence = build("weightings", "confidence")
        groups = torch.tensor(self.GROUPS)[targets]
        value = Objective(loss=loss, weighting=confidence)(student, targets, teachers[..., :2])
        weights = confidence(student[:, :2], teachers[..., :2], groups)
        losses = torch.stack([loss(student, z, targets) for z in teachers[..., :2]])
        assert value.parts["kd"].item() == pytest.approx((weights * losses).sum(0).mean().item())

    def test_feedback_too(self) -> None:
        student, targets, teachers = _batch()
        loss = build("losses", "superclass", groups=self.GROUPS)
        objective = Objective(loss=loss, weighting=build("weightings", "reinforced"))
        objective(student, targets, teachers[..., :2])
        objective.feedback(student, teachers[..., :2], targets)
        assert objective.weighting.state_dict()["baseline"] is not None


def test_embeddings_reach_a_weighting_that_wants_them() -> None:
    student, targets, teachers = _batch()
    for given, width in (({}, 0), ({"student_features": torch.randn(EXAMPLES, 5)}, 5)):
        objective = _objective(weighting="reinforced")
        objective(student, targets, teachers, **given)
        weight = objective.weighting.state_dict()["policy"]["weight"]
        assert weight.shape[1] == width + TEACHERS * (CLASSES + 1)
    objective = _objective(weighting="reinforced")
    objective(student, targets, teachers, torch.randn(EXAMPLES, 5), None, torch.randn(EXAMPLES, 7))
    assert objective.weighting.state_dict()["policy"]["weight"].shape[1] == 7 + 3 * (CLASSES + 1)


def test_a_degenerate_number_of_classes_is_refused() -> None:
    student, targets, teachers = _batch()
    with pytest.raises(ValueError, match="DKD is degenerate below 3 classes, but got 2"):
        _objective("dkd")(student[:, :2], targets % 2, teachers[..., :2])


@pytest.mark.parametrize("name", ["ce_weight", "alpha", "beta"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_coefficients_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number >= 0"):
        _objective(hint=build("hints", "logits_l2"), **{name: value})


def test_beta_without_a_hint_is_not_used() -> None:
    student, targets, teachers = _batch()
    assert "hint" not in _objective(beta=5.0)(student, targets, teachers).parts


@pytest.mark.parametrize("loss", ["kd", "dkd", "dist", "mse_logits"])
def test_autocast_does_not_lower_the_precision(loss: str) -> None:
    student, targets, teachers = (
        part.float() if part.is_floating_point() else part for part in _batch()
    )
    objective = _objective(loss, weighting="gradient")
    plain = objective(student, targets, teachers)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = objective(student, targets, teachers)
    assert lowered.total.dtype == torch.float32
    assert lowered.total.item() == plain.total.item()


def test_half_precision_logits_are_accepted() -> None:
    student, targets, teachers = _batch()
    value = _objective(weighting="entropy")(student.bfloat16(), targets, teachers.bfloat16())
    exact = _objective(weighting="entropy")(student, targets, teachers)
    assert value.total.dtype == torch.float32
    assert value.total.item() == pytest.approx(exact.total.item(), rel=1e-2)
