"""What every hint must do, whichever files are there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trainables.catalog import build, names, parameters

HINTS = names("hints")
EXAMPLES, CLASSES = 6, 4
STUDENT, TEACHERS = 8, (8, 5, 8)


def _inputs(hint: Any) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    widths = (STUDENT,) * 3 if hint.level == "logits" else TEACHERS
    student = torch.randn(EXAMPLES, STUDENT, generator=generator)
    teachers = [torch.randn(EXAMPLES, width, generator=generator) for width in widths]
    weights = torch.softmax(torch.randn(3, EXAMPLES, generator=generator), 0)
    return student, teachers, weights, torch.arange(EXAMPLES) % CLASSES


def _make(name: str, widths: tuple[int, ...] = TEACHERS, **params: Any) -> Any:
    torch.manual_seed(0)
    hint = build("hints", name, **params)
    heads = [(torch.randn(CLASSES, width), torch.randn(CLASSES)) for width in widths]
    hint.setup(STUDENT, widths, heads if hint.needs_heads else None)
    return hint


def test_all_hints_are_found() -> None:
    assert len(HINTS) >= 5


@pytest.mark.parametrize("name", HINTS)
class TestEveryHint:
    def test_one_value_per_example(self, name: str) -> None:
        hint = _make(name)
        result = hint(*_inputs(hint))
        assert result.shape == (EXAMPLES,)
        assert float(result.detach().min()) >= 0

    def test_gradient_reaches_student_and_maps_only(self, name: str) -> None:
        hint = _make(name)
        student, teachers, weights, targets = _inputs(hint)
        student.requires_grad_()
        weights.requires_grad_()
        for teacher in teachers:
            teacher.requires_grad_()
        hint(student, teachers, weights, targets).mean().backward()
        assert student.grad is not None
        assert float(student.grad.abs().sum()) > 0
        assert weights.grad is None
        assert all(teacher.grad is None for teacher in teachers)
        assert all(parameter.grad is not None for parameter in hint.parameters())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_extreme_values_stay_finite(self, name: str, dtype: torch.dtype) -> None:
        hint = _make(name)
        student, teachers, weights, targets = _inputs(hint)
        extreme = (torch.sign(student) * 1e4).to(dtype).requires_grad_()
        result = hint(extreme, [(-t * 1e4).to(dtype) for t in teachers], weights, targets)
        result.mean().backward()
        assert result.dtype == torch.float32
        assert extreme.grad is not None
        assert bool(torch.isfinite(result).all() and torch.isfinite(extreme.grad).all())

    def test_teachers_and_their_weights_may_be_reordered(self, name: str) -> None:
        hint = _make(name, widths=(STUDENT,) * 3)
        student, teachers, weights, targets = _inputs(hint)
        same = [teacher[:, :5].repeat(1, 2)[:, :STUDENT] for teacher in teachers]
        if any(True for _ in hint.parameters()):
            pytest.skip("each teacher has a map of its own")
        order = [2, 0, 1]
        moved = hint(student, [same[k] for k in order], weights[order], targets)
        assert torch.allclose(moved, hint(student, same, weights, targets))

    def test_wrong_shapes_are_named(self, name: str) -> None:
        hint = _make(name)
        student, teachers, weights, targets = _inputs(hint)
        with pytest.raises(ValueError, match=r"\d"):
            hint(student, [teacher[:, :3] for teacher in teachers], weights, targets)

    def test_says_where_it_comes_from(self, name: str) -> None:
        assert "Source: " in (type(_make(name)).__doc__ or "")
        assert all(parameter.default is not ... for parameter in parameters("hints", name))


@pytest.mark.parametrize("name", ["smooth_l1", "l2"])
def test_equal_widths_need_no_map(name: str) -> None:
    assert list(_make(name, widths=(STUDENT, STUDENT)).parameters()) == []
    assert len(list(_make(name).parameters())) == 2  # one linear layer, for the teacher of width 5


def test_fitnets_always_maps() -> None:
    assert len(list(_make("fitnets", widths=(STUDENT, STUDENT)).parameters())) == 4


def test_the_number_of_teachers_must_fit() -> None:
    hint = _make("smooth_l1", widths=(STUDENT, STUDENT))
    with pytest.raises(ValueError, match="set up for 2 teachers, but got features of 3"):
        hint(*_inputs(hint))


def test_smooth_l1_by_hand() -> None:
    # Both branches: 0.5 * 0.5^2 and 2 - 0.5, weighted 0.25 and 0.75 for two teachers.
    hint = build("hints", "smooth_l1")
    hint.setup(2, [2, 2])
    student = torch.tensor([[0.5, 2.0]])
    teachers = [torch.zeros(1, 2), torch.tensor([[0.5, 2.0]])]
    value = hint(student, teachers, torch.tensor([[0.25], [0.75]]), torch.tensor([0]))
    assert value.item() == pytest.approx(0.25 * (0.125 + 1.5) / 2)
    summed = build("hints", "smooth_l1", feat_reduction="sum")
    summed.setup(2, [2, 2])
    total = summed(student, teachers, torch.tensor([[0.25], [0.75]]), torch.tensor([0]))
    assert total.item() == pytest.approx(2 * value.item())


def test_logit_hint_by_hand() -> None:
    hint = build("hints", "logits_l2")
    student = torch.tensor([[1.0, 2.0, 3.0]])
    teachers = [torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 5.0]]), student]
    value = hint(student, teachers, torch.tensor([[0.5], [0.25], [0.25]]), torch.tensor([0]))
    assert value.item() == pytest.approx(0.5 * 14 + 0.25 * 4)


def test_l2_and_its_standardised_form() -> None:
    hint = _make("l2", widths=(STUDENT,) * 3)
    student, _, weights, targets = _inputs(hint)
    teachers = [student + 2] * 3
    assert hint(student, teachers, weights, targets).tolist() == pytest.approx([4.0] * EXAMPLES)
    angle = _make("l2", widths=(STUDENT,) * 3, standardise=True)
    scaled = [5 * student + 2] * 3
    assert float(angle(student, scaled, weights, targets).max()) < 1e-4


def test_half_sum_of_fitnets() -> None:
    mean, original = _make("fitnets"), _make("fitnets", feat_reduction="half_sum")
    hint_in = _inputs(mean)
    only = torch.tensor([[1.0], [0.0], [0.0]]).expand(3, EXAMPLES)
    student, teachers, _, targets = hint_in
    ratio = original(student, teachers, only, targets) / mean(student, teachers, only, targets)
    assert ratio.tolist() == pytest.approx([STUDENT / 2] * EXAMPLES, rel=1e-5)


class TestCAMKD:
    def test_its_weights_come_from_the_frozen_heads(self) -> None:
        hint = _make("ca_mkd", activation="none")
        student, teachers, weights, targets = _inputs(hint)
        value = hint(student, teachers, weights, targets)
        assert torch.equal(value, hint(student, teachers, weights.flip(0), targets))
        assert not any("weight_0" in key for key, _ in hint.named_parameters())
        assert "weight_0" in dict(hint.named_buffers())

    def test_weights_carry_no_gradient(self) -> None:
        student, _, _, targets = _inputs(_make("l2"))
        hint = build("hints", "ca_mkd")
        logits = torch.randn(3, EXAMPLES, CLASSES, requires_grad=True)
        mapped = [student.clone().requires_grad_() for _ in range(3)]
        hint.combine(mapped, logits, [student + 1] * 3, targets).mean().backward()
        assert logits.grad is None
        assert mapped[0].grad is not None

    def test_one_teacher_is_the_plain_distance(self) -> None:
        student, _, _, targets = _inputs(_make("l2"))
        logits = torch.randn(1, EXAMPLES, CLASSES)
        value = build("hints", "ca_mkd").combine([student], logits, [student + 3], targets)
        assert value.tolist() == pytest.approx([9.0] * EXAMPLES, rel=1e-5)

    def test_heads_must_be_given(self) -> None:
        with pytest.raises(ValueError, match="final linear layer of each teacher, but got 0"):
            build("hints", "ca_mkd").setup(STUDENT, TEACHERS)
