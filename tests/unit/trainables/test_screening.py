"""How good teaching looks before any student is trained."""

import math

import pytest
import torch

from trainables import catalog
from trainables.screening import can_screen, teaching_log_loss

# Two rows of class 0. The first teacher gives them 0.8 and 0.5, the second 0.4 and 0.25.
TEACHERS = torch.log(
    torch.tensor([[[0.8, 0.2], [0.5, 0.5]], [[0.4, 0.6], [0.25, 0.75]]], dtype=torch.float64)
)
TARGETS = torch.tensor([0, 0])


def _loss(weighting: str, temperature: float = 1.0, **params: object) -> float:
    built = catalog.build("weightings", weighting, **params)
    built.configure(scores=[0.9, 0.5], generator_seed=0)
    return teaching_log_loss(built, TEACHERS, TARGETS, temperature)


def test_the_average_is_scored_by_its_mean_probability() -> None:
    # (0.8 + 0.4) / 2 = 0.6 and (0.5 + 0.25) / 2 = 0.375
    assert _loss("average") == pytest.approx(-(math.log(0.6) + math.log(0.375)) / 2, abs=1e-12)


def test_one_teacher_is_scored_by_its_own_probabilities() -> None:
    assert _loss("best_teacher") == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2, abs=1e-12)
    assert _loss("fixed", weights=[0.0, 1.0]) == pytest.approx(
        -(math.log(0.4) + math.log(0.25)) / 2, abs=1e-12
    )


def test_merged_logits_are_scored_as_one_teacher() -> None:
    # Geometric means: sqrt(.8 * .4) / (sqrt(.8 * .4) + sqrt(.2 * .6)) = 0.6202041028867288
    # and sqrt(.5 * .25) / (sqrt(.5 * .25) + sqrt(.5 * .75)) = 0.36602540378443865
    expected = -(math.log(0.6202041028867288) + math.log(0.36602540378443865)) / 2
    assert _loss("average_logit") == pytest.approx(expected, abs=1e-12)


def test_the_temperature_softens_the_answers() -> None:
    # At T = 2: sqrt(.8) / (sqrt(.8) + sqrt(.2)) = 2 / 3, and 1 / 2
    expected = -(math.log(2 / 3) + math.log(1 / 2)) / 2
    assert _loss("best_teacher", 2.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", catalog.names("weightings"))
def test_what_can_be_screened_gives_the_same_answer_to_any_student(name: str) -> None:
    params = {"weights": [0.5, 0.5]} if name == "fixed" else {}
    weighting = catalog.build("weightings", name, **params)
    if not can_screen(weighting):
        assert name in {"confidence", "gradient", "reinforced", "switch"}
        return
    weighting.configure(scores=[0.9, 0.5], generator_seed=0)
    unlabelled = torch.full((2,), -100)
    answers = [
        weighting(torch.randn(2, 2, generator=torch.Generator().manual_seed(seed)), teachers, t)
        for seed, teachers, t in ((0, TEACHERS, unlabelled), (1, TEACHERS, TARGETS))
    ]
    assert torch.equal(*answers)


def test_very_sure_teachers_stay_finite() -> None:
    teachers = torch.tensor([[[1e4, -1e4]], [[-1e4, 1e4]]])
    average = catalog.build("weightings", "average")
    assert math.isfinite(teaching_log_loss(average, teachers, torch.tensor([0]), 1.0))
