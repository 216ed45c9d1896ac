"""What every loss must do, whichever files are there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainables.catalog import build, names, parameters
from trainables.protocols import Loss, trait

LOSSES = names("losses")
# Losses that are zero with zero gradient where student and teacher agree.
VANISHING = ("kd", "mse_logits", "dkd", "lskd", "abkd", "superclass")
SHIFT_INVARIANT = [name for name in LOSSES if name != "mse_logits"]
EXAMPLES, CLASSES = 16, 5


def _batch(seed: int = 0, classes: int = CLASSES) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(EXAMPLES, classes, generator=generator, dtype=torch.float64) * 2
    teacher = torch.randn(EXAMPLES, classes, generator=generator, dtype=torch.float64) * 3
    return student, teacher, torch.randint(classes, (EXAMPLES,), generator=generator)


def _value(name: str, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
    result: Tensor = build("losses", name)(student, teacher, targets)
    return result.mean()


def test_all_losses_are_found() -> None:
    assert len(LOSSES) >= 12
    assert set(VANISHING) < set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_one_value_per_example_or_a_scalar(self, name: str) -> None:
        loss = build("losses", name)
        student, teacher, targets = _batch()
        result = loss(student.float(), teacher.float(), targets)
        assert result.shape == ((EXAMPLES,) if trait(loss, Loss, "per_sample") else ())
        assert result.dtype == torch.float32
        assert loss(student, teacher, targets).dtype == torch.float64

    def test_agrees_in_single_precision(self, name: str) -> None:
        student, teacher, targets = _batch()
        exact = _value(name, student, teacher, targets)
        single = _value(name, student.float(), teacher.float(), targets)
        assert single.item() == pytest.approx(exact.item(), rel=1e-4)

    def test_half_precision_is_computed_in_single(self, name: str) -> None:
        student, teacher, targets = (part for part in _batch())
        student, teacher = student.bfloat16(), teacher.bfloat16()
        result = build("losses", name)(student, teacher, targets)
        assert result.dtype == torch.float32
        expected = build("losses", name)(student.float(), teacher.float(), targets)
        assert torch.allclose(result, expected, rtol=1e-6)

    def test_gradient_reaches_the_student_only(self, name: str) -> None:
        student, teacher, targets = _batch()
        student.requires_grad_()
        teacher.requires_grad_()
        _value(name, student, teacher, targets).backward()
        assert teacher.grad is None
        assert student.grad is not None
        assert bool(torch.isfinite(student.grad).all())
        assert float(student.grad.abs().sum()) > 0

    def test_gradient_is_the_slope(self, name: str) -> None:
        student, teacher, targets = _batch()
        loss = build("losses", name)
        if name == "wsld":
            pytest.skip("omega is a constant in the gradient and a function in the value")
        student.requires_grad_()
        assert torch.autograd.gradcheck(lambda z: loss(z, teacher, targets).mean(), student)

    def test_permuting_the_classes_changes_nothing(self, name: str) -> None:
        student, teacher, targets = _batch()
        order = torch.tensor([3, 0, 4, 1, 2])
        moved = _value(name, student[:, order], teacher[:, order], order.argsort()[targets])
        assert moved.item() == pytest.approx(_value(name, student, teacher, targets).item())

    def test_doubling_the_batch_changes_nothing(self, name: str) -> None:
        parts = _batch()
        doubled = _value(name, *(torch.cat([part, part]) for part in parts))
        assert doubled.item() == pytest.approx(_value(name, *parts).item())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("agree", [True, False])
    def test_extreme_logits_stay_finite(self, name: str, dtype: torch.dtype, agree: bool) -> None:
        signs = torch.sign(_batch()[0])
        student = (signs * 1e4).to(dtype).requires_grad_()
        teacher = ((signs if agree else -signs) * 1e4).to(dtype)
        result = build("losses", name)(student, teacher, _batch()[2])
        assert bool(torch.isfinite(result).all())
        result.mean().backward()
        assert student.grad is not None
        assert bool(torch.isfinite(student.grad).all())

    def test_one_dominant_logit_stays_finite(self, name: str) -> None:
        student = torch.zeros(EXAMPLES, CLASSES)
        student[:, 0] = 1e4
        student.requires_grad_()
        teacher = torch.zeros(EXAMPLES, CLASSES)
        teacher[:, 1] = 1e4
        result = build("losses", name)(student, teacher, _batch()[2])
        result.mean().backward()
        assert student.grad is not None
        assert bool(torch.isfinite(result).all() and torch.isfinite(student.grad).all())

    def test_equal_logits_stay_finite(self, name: str) -> None:
        student = torch.zeros(EXAMPLES, CLASSES, requires_grad=True)
        _value(name, student, torch.zeros(EXAMPLES, CLASSES), _batch()[2]).backward()
        assert student.grad is not None
        assert bool(torch.isfinite(student.grad).all())

    def test_label_free_losses_ignore_the_labels(self, name: str) -> None:
        loss = build("losses", name)
        student, teacher, targets = _batch()
        if trait(loss, Loss, "needs_labels"):
            assert not torch.equal(
                loss(student, teacher, targets), loss(student, teacher, (targets + 1) % CLASSES)
            )
        else:
            unlabelled = torch.full_like(targets, -100)
            assert torch.equal(loss(student, teacher, targets), loss(student, teacher, unlabelled))

    def test_few_classes_are_degenerate_where_declared(self, name: str) -> None:
        loss = build("losses", name)
        student, teacher, targets = _batch(classes=2)
        student.requires_grad_()
        loss(student, teacher, targets).mean().backward()
        assert student.grad is not None
        if trait(loss, Loss, "min_classes") == 2:
            assert float(student.grad.abs().mean()) > 1e-6

    def test_stacked_rows_equal_single_calls(self, name: str) -> None:
        loss = build("losses", name)
        if not trait(loss, Loss, "supports_stacked"):
            pytest.skip("compares examples with each other")
        student, teacher, targets = _batch()
        rows = [loss(student[i : i + 1], teacher[i : i + 1], targets[i : i + 1]) for i in range(4)]
        assert torch.allclose(torch.cat(rows), loss(student, teacher, targets)[:4])

    def test_every_parameter_has_a_default(self, name: str) -> None:
        assert all(parameter.default is not ... for parameter in parameters("losses", name))

    def test_says_where_it_comes_from(self, name: str) -> None:
        document = type(build("losses", name)).__doc__ or ""
        assert "Source: " in document
        assert document.partition("\n")[0].endswith(".")


@pytest.mark.parametrize("name", VANISHING)
def test_agreement_costs_nothing(name: str) -> None:
    student, _, targets = _batch()
    student.requires_grad_()
    value = _value(name, student, student.detach().clone(), targets)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-12


def test_agreement_under_dist_costs_its_epsilon_only() -> None:
    student, _, targets = _batch()
    loss = build("losses", "dist", temperature=4.0)
    assert loss(student, student, targets).item() == pytest.approx(0, abs=1e-4)


def test_agreement_under_wsld_has_no_gradient_but_a_value() -> None:
    student, _, targets = _batch()
    student.requires_grad_()
    value = _value("wsld", student, student.detach().clone(), targets)
    value.backward()
    assert value.item() > 0.1
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
def test_a_constant_per_row_changes_nothing(name: str) -> None:
    student, teacher, targets = _batch()
    shift = torch.linspace(-7, 7, EXAMPLES, dtype=torch.float64).unsqueeze(1)
    plain = _value(name, student, teacher, targets).item()
    assert _value(name, student + shift, teacher, targets).item() == pytest.approx(plain)
    assert _value(name, student, teacher - shift, targets).item() == pytest.approx(plain)


def test_raw_logits_see_the_constant_unless_centred() -> None:
    student, teacher, targets = _batch()
    raw, centred = build("losses", "mse_logits"), build("losses", "mse_logits", center=True)
    shifted = student + 1.0
    assert not torch.allclose(raw(shifted, teacher, targets), raw(student, teacher, targets))
    assert torch.allclose(centred(shifted, teacher, targets), centred(student, teacher, targets))
    assert raw(student + 2, student, targets).tolist() == pytest.approx([4.0] * EXAMPLES)


class TestKD:
    def test_gradient_in_closed_form(self) -> None:
        student, teacher, targets = _batch()
        student.requires_grad_()
        build("losses", "kd", temperature=3.0)(student, teacher, targets).mean().backward()
        difference = torch.softmax(student / 3, 1) - torch.softmax(teacher / 3, 1)
        assert student.grad is not None
        assert torch.allclose(student.grad, 3 * difference.detach() / EXAMPLES, atol=1e-14)

    def test_high_temperature_matches_centred_logits(self) -> None:
        student, teacher, targets = _batch()
        hot = build("losses", "kd", temperature=1e4)(student, teacher, targets)
        matched = build("losses", "mse_logits", center=True)(student, teacher, targets)
        assert torch.allclose(hot, matched / 2, rtol=1e-2)

    @pytest.mark.parametrize("name", ["kd", "mse_logits"])
    def test_a_jointly_trained_teacher_gets_its_gradient(self, name: str) -> None:
        student, teacher, targets = _batch()
        teacher.requires_grad_()
        loss = build("losses", name, detach_teacher=False)
        assert torch.autograd.gradcheck(lambda z: loss(student, z, targets).mean(), teacher)
        loss(student, teacher, targets).mean().backward()
        assert teacher.grad is not None


def test_dkd_with_the_right_factor_is_kd() -> None:
    student, teacher, targets = _batch()
    target = build("losses", "dkd", alpha=1.0, beta=0.0, temperature=2.0)
    others = build("losses", "dkd", alpha=0.0, beta=1.0, temperature=2.0)
    rest = 1 - torch.softmax(teacher / 2, 1).gather(1, targets.unsqueeze(1)).squeeze(1)
    combined = target(student, teacher, targets) + rest * others(student, teacher, targets)
    assert torch.allclose(
        combined, build("losses", "kd", temperature=2.0)(student, teacher, targets)
    )


def test_ttm_is_a_teacher_temperature() -> None:
    student, teacher, targets = _batch()
    hot = torch.log_softmax(teacher * 0.2, 1)
    expected = (hot.exp() * (hot - torch.log_softmax(student, 1))).sum(1)
    assert torch.allclose(build("losses", "ttm", gamma=0.2)(student, teacher, targets), expected)


class TestABKD:
    def test_its_corners_are_the_two_kl_divergences(self) -> None:
        student, teacher, targets = _batch()
        kd = build("losses", "kd", temperature=1.0)
        forward = build("losses", "abkd", alpha=1.0, beta=0.0, temperature=1.0)
        reverse = build("losses", "abkd", alpha=0.0, beta=1.0, temperature=1.0)
        assert torch.allclose(forward(student, teacher, targets), kd(student, teacher, targets))
        assert torch.allclose(reverse(student, teacher, targets), kd(teacher, student, targets))

    @pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (0.7, 0.0)])
    def test_its_limits_are_continuous(self, alpha: float, beta: float) -> None:
        limit = build("losses", "abkd", alpha=alpha, beta=beta)
        near = build("losses", "abkd", alpha=alpha + 1e-5, beta=beta + 1e-5)
        assert torch.allclose(near(*_batch()), limit(*_batch()), rtol=1e-2, atol=1e-4)


class TestRLD:
    def test_a_label_ranked_last_leaves_nothing_to_imitate(self) -> None:
        student, teacher, _ = _batch()
        loss = build("losses", "rld", alpha=0.0)
        assert float(loss(student, teacher, teacher.argmin(dim=1)).abs().max()) == 0

    def test_classes_above_the_label_do_not_matter(self) -> None:
        student, teacher, targets = _batch()
        teacher = teacher.scatter(1, targets.unsqueeze(1), -0.5)
        above = teacher > -0.5
        loss = build("losses", "rld", alpha=0.0)
        disturbed = torch.where(above, teacher + 3.0, teacher)
        assert torch.allclose(loss(student, teacher, targets), loss(student, disturbed, targets))


class TestSuperclass:
    GROUPS = (0, 0, 1, 1, 2)

    def test_a_single_superclass_teaches_nothing(self) -> None:
        student, teacher, targets = _batch()
        loss = build("losses", "superclass", groups=[0] * CLASSES)
        assert float(loss(student, teacher[:, :1], targets).abs().max()) < 1e-12

    def test_permutation_within_a_superclass_changes_nothing(self) -> None:
        student, teacher, targets = _batch()
        loss = build("losses", "superclass", groups=self.GROUPS)
        swapped = student[:, [1, 0, 3, 2, 4]]
        plain = loss(student, teacher[:, :3], targets)
        assert torch.allclose(loss(swapped, teacher[:, :3], targets), plain)

    def test_size_of_a_superclass_does_not_matter_at_high_temperature(self) -> None:
        # Summing tempered probabilities would make the large groups likelier.
        flat = torch.zeros(1, CLASSES, dtype=torch.float64)
        teacher = torch.log(torch.tensor([[0.4, 0.4, 0.2]], dtype=torch.float64))
        loss = build("losses", "superclass", groups=self.GROUPS, temperature=100.0)
        assert loss(flat, teacher, torch.tensor([0])).item() == pytest.approx(0, abs=1e-12)

    def test_lifting_has_the_gradient_of_marginalising_at_temperature_one(self) -> None:
        _, teacher, targets = _batch()
        gradients = []
        for variant in ("marginal", "lifted"):
            student = _batch()[0].requires_grad_()
            loss = build(
                "losses", "superclass", groups=self.GROUPS, temperature=1.0, variant=variant
            )
            loss(student, teacher[:, :3], targets).mean().backward()
            assert student.grad is not None
            gradients.append(student.grad)
        assert torch.allclose(*gradients, atol=1e-14)

    def test_lifting_by_label_or_prior(self) -> None:
        student, teacher, targets = _batch()
        by_label = build(
            "losses", "superclass", groups=self.GROUPS, variant="lifted", within="label"
        )
        assert by_label.needs_labels
        assert not build("losses", "superclass", groups=self.GROUPS).needs_labels
        prior = [0.1, 0.3, 0.2, 0.2, 0.2]
        by_prior = build(
            "losses",
            "superclass",
            groups=self.GROUPS,
            variant="lifted",
            within="prior",
            prior=prior,
            temperature=1.0,
        )
        groups = torch.softmax(teacher[:, :3], 1)
        lifted = groups[:, [0, 0, 1, 1, 2]] * torch.tensor([0.25, 0.75, 0.5, 0.5, 1.0]).double()
        expected = (lifted * (lifted.log() - torch.log_softmax(student, 1))).sum(1)
        assert torch.allclose(by_prior(student, teacher[:, :3], targets), expected, rtol=1e-6)
        assert bool(torch.isfinite(by_label(student, teacher[:, :3], targets)).all())

    def test_the_student_in_the_teachers_space(self) -> None:
        student, _, targets = _batch()
        loss = build("losses", "superclass", groups=self.GROUPS)
        marginal, labels = loss.teacher_view(student, targets)
        sums = torch.softmax(student, 1) @ torch.eye(3).double()[list(self.GROUPS)]
        assert torch.allclose(marginal.exp(), sums)
        assert labels.tolist() == [self.GROUPS[label] for label in targets.tolist()]
        _, unlabelled = loss.teacher_view(student, torch.full_like(targets, -100))
        assert set(unlabelled.tolist()) == {-100}

    def test_the_teacher_must_know_as_many_superclasses(self) -> None:
        student, teacher, targets = _batch()
        with pytest.raises(ValueError, match="3 superclasses, but the student has 5 classes"):
            build("losses", "superclass", groups=self.GROUPS)(student, teacher, targets)
