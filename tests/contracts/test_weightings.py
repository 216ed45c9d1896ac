"""What every weighting must do, whichever files are there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainables.catalog import build, names, parameters
from trainables.objective import Objective
from trainables.protocols import Weighting, trait
from trainables.weightings._policy import Policy, log_probability, policy_loss
from trainables.weightings._simplex import capped_minimum

WEIGHTINGS = names("weightings")
TEACHERS, EXAMPLES, CLASSES = 3, 12, 5
SCORES = [0.7, 0.9, 0.5]
# Weightings that cannot guess what they need for several teachers.
GIVEN: dict[str, dict[str, Any]] = {"fixed": {"weights": [2.0, 1.0, 1.0]}}
RANDOM = ("switch", "reinforced")


def _batch(teachers: int = TEACHERS, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(EXAMPLES, CLASSES, generator=generator, dtype=torch.float64) * 2
    shape = (teachers, EXAMPLES, CLASSES)
    logits = torch.randn(*shape, generator=generator, dtype=torch.float64) * 3
    return student, logits, torch.randint(CLASSES, (EXAMPLES,), generator=generator)


def _make(name: str, teachers: int = TEACHERS, **params: Any) -> Any:
    given = GIVEN.get(name, {}) if teachers == TEACHERS else {}
    weighting = build("weightings", name, **given, **params)
    weighting.configure(scores=(SCORES * 3)[:teachers], generator_seed=1)
    return weighting


def test_all_weightings_are_found() -> None:
    assert len(WEIGHTINGS) >= 11


@pytest.mark.parametrize("name", WEIGHTINGS)
class TestEveryWeighting:
    def test_weights_are_a_distribution_over_teachers(self, name: str) -> None:
        weights = _make(name)(*_batch())
        assert weights.shape == (TEACHERS, EXAMPLES)
        assert float(weights.min()) >= 0
        assert torch.allclose(weights.sum(dim=0), torch.ones(EXAMPLES, dtype=torch.float64))

    def test_one_teacher_has_all_the_weight(self, name: str) -> None:
        for params in _normalisations(name):
            weights = _make(name, teachers=1, **params)(*_batch(teachers=1))
            assert torch.equal(weights, torch.ones(1, EXAMPLES, dtype=torch.float64))

    def test_one_teacher_is_plain_kd(self, name: str) -> None:
        student, teachers, targets = _batch(teachers=1)
        loss = build("losses", "kd")
        value = Objective(loss=loss, weighting=_make(name, teachers=1))(student, targets, teachers)
        plain = loss(student, teachers[0], targets).mean()
        assert value.parts["kd"].item() == pytest.approx(plain.item())

    def test_identical_teachers_are_plain_kd(self, name: str) -> None:
        student, teachers, targets = _batch()
        loss = build("losses", "kd")
        same = teachers[:1].expand_as(teachers)
        value = Objective(loss=loss, weighting=_make(name))(student, targets, same)
        plain = loss(student, teachers[0], targets).mean()
        assert value.parts["kd"].item() == pytest.approx(plain.item())

    def test_no_gradient_flows(self, name: str) -> None:
        student, teachers, targets = _batch()
        weights = _make(name)(student.requires_grad_(), teachers.requires_grad_(), targets)
        assert not weights.requires_grad

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_extreme_logits_stay_finite(self, name: str, dtype: torch.dtype) -> None:
        student, teachers, targets = _batch()
        extreme = (torch.sign(teachers) * 1e4).to(dtype)
        weights = _make(name)((torch.sign(student) * 1e4).to(dtype), extreme, targets)
        assert weights.dtype == torch.float32
        assert torch.allclose(weights.sum(dim=0), torch.ones(EXAMPLES))
        assert float(weights.min()) >= 0

    def test_permuting_the_teachers_permutes_the_weights(self, name: str) -> None:
        if name in RANDOM or name in GIVEN:
            pytest.skip("drawn by position, or given by position")
        student, teachers, targets = _batch()
        order = [2, 0, 1]
        weighting = _make(name)
        plain = weighting(student, teachers, targets)
        moved = build("weightings", name)
        moved.configure(scores=[SCORES[k] for k in order], generator_seed=1)
        assert torch.allclose(moved(student, teachers[order], targets), plain[order], atol=1e-9)

    def test_a_constant_per_row_changes_nothing(self, name: str) -> None:
        student, teachers, targets = _batch()
        shift = torch.linspace(-5, 5, EXAMPLES, dtype=torch.float64).unsqueeze(1)
        plain = _make(name)(student, teachers, targets)
        moved = _make(name)(student - shift, teachers + shift, targets)
        assert torch.allclose(moved, plain, atol=1e-6)

    def test_label_free_weightings_accept_unlabelled_rows(self, name: str) -> None:
        weighting = _make(name)
        if trait(weighting, Weighting, "needs_labels"):
            pytest.skip("needs labels")
        student, teachers, targets = _batch()
        weights = _make(name)(student, teachers, targets)
        unlabelled = weighting(student, teachers, torch.full_like(targets, -100))
        assert torch.equal(weights, unlabelled)

    def test_a_checkpoint_continues_the_weights(self, name: str) -> None:
        first, second = _make(name), _make(name)
        parts = _batch()
        for _ in range(3):
            _step(first, *parts)
        second.load_state_dict(first.state_dict())
        assert second.load_state_dict(second.state_dict()) is None
        for _ in range(3):
            assert torch.equal(_step(first, *parts), _step(second, *parts))

    def test_merged_teachers_are_one(self, name: str) -> None:
        weighting = _make(name)
        teachers = _batch()[1]
        if not trait(weighting, Weighting, "merges"):
            with pytest.raises(NotImplementedError):
                weighting.merge(teachers, 2.0)
            return
        assert weighting.merge(teachers, 2.0).shape == (1, EXAMPLES, CLASSES)
        same = weighting.merge(teachers[:1], 2.0)[0] - teachers[0]
        assert torch.allclose(same, same[:, :1].expand_as(same))  # up to a constant per row

    def test_nothing_is_counted_as_broken(self, name: str) -> None:
        weighting = _make(name)
        weighting(*_batch())
        assert weighting.fallbacks == 0

    def test_hooks_and_origin(self, name: str) -> None:
        weighting = _make(name)
        weighting.begin_epoch(0, 1)
        weighting(*_batch())
        assert all(isinstance(value, float) for value in weighting.end_epoch().values())
        assert "Source: " in (type(weighting).__doc__ or "")
        assert all(parameter.default is not ... for parameter in parameters("weightings", name))


def _normalisations(name: str) -> list[dict[str, str]]:
    accepted = {parameter.name for parameter in parameters("weightings", name)}
    return [{}, {"normalize": "official"}] if "normalize" in accepted else [{}]


def _step(weighting: Any, student: Tensor, teachers: Tensor, targets: Tensor) -> Tensor:
    weights: Tensor = weighting(student, teachers, targets)
    weighting.feedback(student * 1.1, teachers, targets)
    return weights


class TestConfidence:
    def test_is_not_the_softmax_of_minus_the_loss(self) -> None:
        student, teachers, targets = _batch()
        loss = -torch.log_softmax(teachers, 2).gather(2, targets.expand(3, -1).unsqueeze(2))[..., 0]
        weights = build("weightings", "confidence")(student, teachers, targets)
        assert torch.allclose(weights, (1 - torch.softmax(loss, 0)) / 2)
        assert float((weights - torch.softmax(-loss, 0)).abs().max()) > 0.2
        assert float((weights - torch.softmax(loss, 0)).abs().max()) > 0.2
        assert float(weights.max()) <= 0.5

    def test_a_teacher_of_random_labels_loses_weight(self) -> None:
        student, _, targets = _batch()
        right = torch.nn.functional.one_hot(targets, CLASSES).double() * 6
        wrong = torch.nn.functional.one_hot((targets + 1) % CLASSES, CLASSES).double() * 6
        weights = build("weightings", "confidence")(student, torch.stack([right, wrong]), targets)
        assert float(weights[0].min()) > 0.99

    def test_official_mass(self) -> None:
        weights = build("weightings", "confidence", normalize="official")(*_batch())
        assert weights.sum(dim=0).tolist() == pytest.approx([1 / 3] * EXAMPLES)


class TestEntropy:
    def test_forms(self) -> None:
        student, teachers, targets = _batch()
        p = torch.softmax(teachers, 2)
        entropy = -(p * p.log()).sum(2)
        expected = {
            "one_minus_ratio": (1 - entropy / entropy.sum(0)) / 2,
            "softmax_neg": torch.softmax(-entropy, 0),
            "inverse": (1 / entropy) / (1 / entropy).sum(0),
        }
        for form, weights in expected.items():
            made = build("weightings", "entropy", form=form)
            assert torch.allclose(made(student, teachers, targets), weights)

    def test_certain_teachers_share_and_are_counted(self) -> None:
        student, teachers, targets = _batch()
        for form in ("one_minus_ratio", "inverse"):
            weighting = build("weightings", "entropy", form=form)
            certain = torch.sign(teachers[..., :1] + 10) * torch.tensor([2e4, 0, 0, 0, 0]).double()
            weights = weighting(student, certain, targets)
            assert torch.allclose(weights, torch.full_like(weights, 1 / 3))
            assert weighting.fallbacks == EXAMPLES

    def test_epsilon_calms_saturated_teachers(self) -> None:
        student, _, targets = _batch()
        scale = torch.tensor([9.0, 14.0, 19.0]).double().view(3, 1, 1)
        teachers = torch.nn.functional.one_hot(targets, CLASSES).double() * scale
        jumpy = build("weightings", "entropy", form="inverse")(student, teachers, targets)
        calm = build("weightings", "entropy", form="inverse", epsilon=0.1)
        assert float(jumpy.max()) > 0.9
        assert float(calm(student, teachers, targets).max()) < 0.4

    def test_official_mass(self) -> None:
        weights = build("weightings", "entropy", normalize="official")(*_batch())
        assert weights.sum(dim=0).tolist() == pytest.approx([2 / 3] * EXAMPLES)


class TestAverages:
    def test_mean_probability_has_the_gradient_of_the_mean_loss(self) -> None:
        gradients, values = {}, {}
        for name in ("average", "average_prob", "average_logit"):
            student, teachers, targets = _batch()
            objective = Objective(
                loss=build("losses", "kd"), weighting=build("weightings", name), ce_weight=0.0
            )
            value = objective(student.requires_grad_(), targets, teachers)
            value.total.backward()
            gradients[name], values[name] = student.grad, value.total.item()
        assert torch.allclose(gradients["average"], gradients["average_prob"], atol=1e-14)
        assert values["average"] > values["average_prob"] + 0.1
        assert not torch.allclose(gradients["average"], gradients["average_logit"], atol=1e-3)

    def test_merged_probabilities(self) -> None:
        teachers = _batch()[1]
        merged = build("weightings", "average_prob").merge(teachers, 3.0)
        assert torch.allclose(
            torch.softmax(merged[0] / 3, 1), torch.softmax(teachers / 3, 2).mean(0)
        )
        mean = build("weightings", "average_logit").merge(teachers, 3.0)
        assert torch.allclose(mean[0], teachers.mean(0))


class TestChosenTeacher:
    def test_by_dev_score(self) -> None:
        best, worst = _make("best_teacher")(*_batch()), _make("worst_teacher")(*_batch())
        assert best[:, 0].tolist() == [0, 1, 0]
        assert worst[:, 0].tolist() == [0, 0, 1]

    def test_scores_of_the_config_have_precedence(self) -> None:
        weighting = build("weightings", "best_teacher", scores=[1.0, 0.0, 0.0])
        weighting.configure(scores=SCORES, generator_seed=0)
        assert weighting(*_batch())[:, 0].tolist() == [1, 0, 0]

    @pytest.mark.parametrize("name", ["best_teacher", "worst_teacher"])
    def test_without_scores_it_says_what_is_missing(self, name: str) -> None:
        with pytest.raises(ValueError, match="one of 3 teachers needs their dev scores"):
            build("weightings", name)(*_batch())
        with pytest.raises(ValueError, match="got 2 for 3 teachers"):
            build("weightings", name, scores=[0.1, 0.2])(*_batch())

    def test_fixed_weights_are_scaled(self) -> None:
        assert _make("fixed")(*_batch())[:, 5].tolist() == [0.5, 0.25, 0.25]
        with pytest.raises(ValueError, match="got 2 for 3 teachers"):
            build("weightings", "fixed", weights=[1, 2])(*_batch())

    def test_switch_draws_every_teacher_equally(self) -> None:
        weighting, parts = _make("switch"), _batch()
        drawn = torch.stack([weighting(*parts)[:, 0] for _ in range(600)])
        assert set(drawn.sum(dim=1).tolist()) == {1.0}
        assert drawn.mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.07)

    def test_switch_leaves_the_global_stream_alone(self) -> None:
        state = torch.random.get_rng_state()
        _make("switch")(*_batch())
        _make("reinforced")(*_batch())
        assert torch.equal(torch.random.get_rng_state(), state)


def _violation(gram: np.ndarray, weights: np.ndarray, cap: float) -> float:
    """By how much the weights miss the optimum's conditions, on a Gram matrix of trace K."""
    slope = gram @ weights * len(gram) / np.trace(gram)
    can_rise, can_fall = slope[weights < cap - 1e-9], slope[weights > 1e-9]
    return 0.0 if not len(can_rise) else float(can_fall.max() - can_rise.min())


class TestGradient:
    @pytest.mark.parametrize("teachers", [2, 3, 5, 8])
    @pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
    @pytest.mark.parametrize("scale", [1.0, 1e-9])
    def test_weights_satisfy_the_conditions_of_the_optimum(
        self, teachers: int, spread: float, scale: float
    ) -> None:
        generator = np.random.default_rng(teachers)
        for _ in range(20):
            rows = generator.normal(size=(1, 7)) + spread * generator.normal(size=(teachers, 7))
            gram = rows @ rows.T * scale
            cap = 1 / teachers + generator.uniform() * (1 - 1 / teachers)
            weights = capped_minimum(gram, cap)
            assert weights.sum() == pytest.approx(1)
            assert weights.min() >= 0
            assert weights.max() <= cap + 1e-12
            assert _violation(gram, weights, cap) < 1e-9

    def test_no_worse_than_a_grid(self) -> None:
        rows = np.random.default_rng(0).normal(size=(3, 4))
        gram = rows @ rows.T
        best = capped_minimum(gram, 0.7)
        steps = np.linspace(0, 0.7, 71)
        for first, second in itertools.product(steps, steps):
            other = np.array([first, second, 1 - first - second])
            if 0 <= other[2] <= 0.7:
                assert best @ gram @ best <= other @ gram @ other + 1e-12

    def test_both_ends_at_their_bounds_are_left_again(self) -> None:
        # With three of four at the cap nothing is free, and the start may not be the answer.
        gram = np.diag([4.0, 3.0, 2.0, 1e-3])
        assert capped_minimum(gram, 1 / 3)[3] == pytest.approx(1 / 3)
        assert _violation(gram, capped_minimum(gram, 1 / 3), 1 / 3) < 1e-9

    def test_matches_the_gradient_of_autograd(self) -> None:
        student, teachers, targets = _batch()
        loss = build("losses", "kd", temperature=2.0)
        rows = []
        for teacher in teachers:
            z = student.clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss(z, teacher, targets).mean(), z)
            rows.append(slope)
        flat, mean = torch.stack([row.flatten() for row in rows]), torch.stack(rows).mean(dim=1)
        for gram, vectors in (("flat", flat), ("batchmean", mean)):
            weighting = build("weightings", "gradient", cap=0.8, gram=gram, temperature=2.0)
            weights = weighting(student, teachers, targets)[:, 0]
            expected = capped_minimum((vectors @ vectors.T).numpy(), 0.8)
            assert weights.numpy() == pytest.approx(expected, abs=1e-9)

    def test_a_cap_without_room_is_the_average(self) -> None:
        for cap in (0.1, 1 / 3):
            weights = build("weightings", "gradient", cap=cap)(*_batch())
            assert weights.flatten().tolist() == pytest.approx([1 / 3] * 3 * EXAMPLES)

    def test_a_student_equal_to_its_teachers_gets_equal_weights(self) -> None:
        student, teachers, targets = _batch()
        same = student.expand_as(teachers)
        weights = build("weightings", "gradient")(student, same, targets)
        assert weights.flatten().tolist() == pytest.approx([1 / 3] * 3 * EXAMPLES)

    def test_broken_logits_fall_back_and_are_counted(self) -> None:
        student, teachers, targets = _batch()
        weighting = build("weightings", "gradient")
        weights = weighting(student * torch.nan, teachers, targets)
        assert weights.flatten().tolist() == pytest.approx([1 / 3] * 3 * EXAMPLES)
        assert weighting.fallbacks == EXAMPLES


class TestReinforced:
    def test_the_estimate_is_the_gradient_of_the_expected_reward(self) -> None:
        generator = torch.Generator().manual_seed(0)
        state = torch.randn(1, 6, generator=generator)
        policy = Policy(6, 3).double()
        torch.nn.init.normal_(policy.weight, generator=generator)
        actions = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3))).double()
        rewards = torch.randn(len(actions), generator=generator).double()
        states = state.double().expand(len(actions), -1)

        expected = (log_probability(policy(states), actions).exp() * rewards).sum()
        exact = torch.autograd.grad(expected, [policy.weight, policy.bias])
        for baseline in (0.0, 7.0):
            chance = log_probability(policy(states), actions).exp().detach()
            # policy_loss averages over its rows: weighing each by its chance is the expectation.
            advantage = len(actions) * chance * (rewards - baseline)
            loss = policy_loss(policy(states), actions, advantage, 0.0)
            estimate = torch.autograd.grad(-loss, [policy.weight, policy.bias])
            for mine, true in zip(estimate, exact, strict=True):
                assert torch.allclose(mine, true, atol=1e-12)

    def test_a_teacher_of_random_labels_is_selected_less(self) -> None:
        generator = torch.Generator().manual_seed(0)
        weighting = build("weightings", "reinforced", warmup=0.0, lr=1e-2)
        weighting.configure(scores=SCORES, generator_seed=3)
        for epoch in range(3):
            weighting.begin_epoch(epoch, 3)
            for _ in range(60):
                targets = torch.randint(CLASSES, (32,), generator=generator)
                noise = torch.randint(CLASSES, (32,), generator=generator)
                right = torch.nn.functional.one_hot(targets, CLASSES) * 5.0
                wrong = torch.nn.functional.one_hot(noise, CLASSES) * 5.0
                student = torch.randn(32, CLASSES, generator=generator) + right / 2
                teachers = torch.stack([right, wrong, right])
                weighting(student, teachers, targets)
                weighting.feedback(student, teachers, targets)
        rates = weighting.end_epoch()
        others = min(rates["selection_rate_0"], rates["selection_rate_2"])
        assert rates["selection_rate_1"] < 0.3 < 0.7 < others

    def test_an_empty_selection_uses_all_and_stays_empty_for_the_policy(self) -> None:
        weighting, parts = _make("reinforced", seed=0), _batch()
        weighting.begin_epoch(4, 5)
        weights = torch.cat([weighting(*parts) for _ in range(50)], dim=1)
        report = weighting.end_epoch()
        assert report["empty_selection_rate"] == pytest.approx(0.125, abs=0.04)
        assert report["policy_entropy"] == pytest.approx(3 * np.log(2), abs=1e-6)
        allowed = {0.0, 1 / 3, 0.5, 1.0}
        assert all(min(abs(w - a) for a in allowed) < 1e-9 for w in weights.flatten().tolist())

    def test_warm_up_selects_everything_and_learns_nothing(self) -> None:
        weighting, parts = _make("reinforced", warmup=0.4), _batch()
        for epoch in range(2):
            weighting.begin_epoch(epoch, 5)
            assert set(_step(weighting, *parts).flatten().tolist()) == {1 / 3}
            assert weighting.end_epoch() == {}
        weighting.begin_epoch(2, 5)
        assert len(set(_step(weighting, *parts).flatten().tolist())) > 1

    def test_reward_by_cross_entropy_alone(self) -> None:
        weighting, parts = _make("reinforced", reward="ce", warmup=0.0), _batch()
        first = _step(weighting, *parts)
        assert torch.equal(first, _step(_make("reinforced", warmup=0.0), *parts))

    def test_text_enters_the_state(self) -> None:
        weighting, (student, teachers, targets) = _make("reinforced"), _batch()
        weighting(student, teachers, targets, features=torch.randn(EXAMPLES, 7))
        weighting.feedback(student, teachers, targets)
        weight = weighting.state_dict()["policy"]["weight"]
        assert weight.shape == (TEACHERS, 7 + TEACHERS * (CLASSES + 1))
