"""Names, parameters and a user's own class: what the catalog finds and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainables.catalog import build, load, names, parameters, summary
from trainables.errors import ComponentError
from trainables.objective import Objective

OWN = '''
"""A user's module."""


class Cosine:
    """One minus the cosine of the logits."""

    def __init__(self, *, power: float = 1.0) -> None:
        self.power = power

    def __call__(self, student_logits, teacher_logits, targets):
        similarity = (student_logits * teacher_logits).sum(1)
        scale = student_logits.norm(dim=1) * teacher_logits.norm(dim=1)
        return (1 - similarity / scale) ** self.power
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_losses.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_losses:Cosine"


def _refusal(kind: str, name: str, **params: object) -> str:
    with pytest.raises(ComponentError) as caught:
        build(kind, name, **params)
    return str(caught.value)


def test_unknown_kind_with_a_suggestion() -> None:
    with pytest.raises(ComponentError, match="unknown kind of component 'loss'"):
        names("loss")
    assert "did you mean 'losses'" in _refusal("loses", "kd")


def test_unknown_name_with_a_suggestion_and_the_list() -> None:
    message = _refusal("weightings", "confidense")
    assert "unknown weighting 'confidense', did you mean 'confidence'" in message
    assert "average, average_logit" in message
    assert "unknown loss 'nothing-like-it'; known:" in _refusal("losses", "nothing-like-it")


def test_unknown_parameter_lists_what_is_accepted() -> None:
    message = _refusal("losses", "dkd", temprature=2.0)
    assert message == (
        "loss 'dkd' has no parameter 'temprature', did you mean 'temperature'?; "
        "it accepts: temperature, alpha, beta"
    )
    assert "it accepts: no parameters" in _refusal("weightings", "average", alpha=1)


@pytest.mark.parametrize(
    ("kind", "name", "params", "expected"),
    [
        ("losses", "kd", {"temperature": 0}, "temperature must be a number > 0, but got"),
        ("losses", "kd", {"temperature": "4"}, "temperature must be a number > 0, but got"),
        ("losses", "ttm", {"gamma": float("nan")}, "gamma must be a number > 0, but got gamma=nan"),
        ("losses", "dkd", {"beta": -1}, "beta must be a number >= 0, but got beta=-1"),
        ("losses", "kd", {"temperature": True}, "but got temperature=True"),
        ("losses", "superclass", {"groups": [0, 2]}, "superclass 0..S-1 of each class"),
        ("losses", "superclass", {"variant": "up"}, "variant must be one of marginal, lifted"),
        ("losses", "superclass", {"within": "prior"}, "needs prior, the frequency of each class"),
        (
            "losses",
            "superclass",
            {"within": "prior", "groups": [0, 0], "prior": [1.0]},
            "one value per class (2)",
        ),
        ("weightings", "gradient", {"cap": 1.5}, "cap must be <= 1, but got cap=1.5"),
        ("weightings", "gradient", {"gram": "x"}, "gram must be one of batchmean, flat"),
        ("weightings", "fixed", {"weights": [0, 0]}, "weights must not all be 0"),
        ("weightings", "switch", {"seed": -1}, "seed must be a whole number >= 0"),
        ("weightings", "best_teacher", {"scores": []}, "scores must be finite numbers"),
        ("weightings", "reinforced", {"warmup": 2}, "warmup must be <= 1"),
        ("hints", "smooth_l1", {"feat_reduction": "max"}, "must be one of mean, sum"),
    ],
)
def test_bad_values_name_rule_and_value(
    kind: str, name: str, params: dict[str, object], expected: str
) -> None:
    message = _refusal(kind, name, **params)
    assert expected in message
    assert repr(name) in message


def test_a_users_own_class(own: str) -> None:
    loss = build("losses", own, power=2.0)
    assert [parameter.name for parameter in parameters("losses", own)] == ["power"]
    student, teachers = torch.randn(4, 3), torch.randn(2, 4, 3)
    objective = Objective(loss=loss, weighting=build("weightings", "average"))
    value = objective(student, torch.zeros(4, dtype=torch.long), teachers)
    expected = torch.stack([loss(student, teacher, None) for teacher in teachers]).mean()
    assert value.parts["kd"].item() == pytest.approx(expected.item())


def test_refusals_of_a_users_own_class(own: str) -> None:
    assert "cannot import 'no_such_module'" in _refusal("losses", "no_such_module:Loss")
    assert "PYTHONPATH" in _refusal("losses", "no_such_module:Loss")
    assert "has no 'Cosin', did you mean 'Cosine'?" in _refusal("losses", "my_losses:Cosin")
    assert f"loss {own!r} has no parameter 'temperature'" in _refusal(
        "losses", own, temperature=1.0
    )


def test_summary_and_load() -> None:
    assert summary("losses", "kd").startswith("Kullback-Leibler divergence")
    assert load("losses", "kd").__name__ == "KD"
    assert not [name for name in names("losses") if name.startswith("_")]
