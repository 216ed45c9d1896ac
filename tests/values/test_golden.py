"""Reference numbers, typed by hand.

They came from running the methods' own published code (float64) on the input below, which needs no
random numbers; repositories and commits stand beside each value. Nothing here is written by a test.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.catalog import build
from trainables.objective import Objective

TIGHT = 1e-9


def _input() -> tuple[Tensor, Tensor, Tensor]:
    """Student [4, 5], teachers [3, 4, 5], labels [4]."""
    b = torch.arange(4, dtype=torch.float64).unsqueeze(1)
    c = torch.arange(5, dtype=torch.float64).unsqueeze(0)
    targets = (2 * torch.arange(4) + 1) % 5
    student = 2 * torch.sin(1.3 * b + 0.7 * c + 0.1)
    teachers = [
        3 * torch.sin(0.9 * b + 1.1 * c + 0.5 * k + 0.3) + (k + 1) * F.one_hot(targets, 5)
        for k in range(3)
    ]
    return student, torch.stack(teachers), targets


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("kd", {"temperature": 4.0}, 1.026222970822),  # Rorozhl/CA-MKD@c2f39a9f13 DistillKL
        ("dkd", {}, 6.066766580620),  # megvii-research/mdistiller@a08d46f10d
        ("dkd", {"alpha": 1.0, "beta": 0.0}, 0.570291556564),
        ("dkd", {"alpha": 0.0, "beta": 1.0}, 0.687059378007),
        ("lskd", {}, 0.166758221464),  # sunshangquan/logit-standardization-KD@f6e5aa5172
        ("dist", {}, 0.483498734311),  # hunto/image_classification_sota@6f7a70a1dd
        ("dist", {"temperature": 4.0}, 6.468110500480),
        ("ttm", {}, 0.388826427899),  # zkxufo/TTM@fe457b33a7
        ("wttm", {}, 1.418809965921),
        ("nkd", {}, 1.968059848049),  # yzd-v/cls_KD@1e5d48f369
        ("rld", {}, 5.235335035695),  # zju-SWJ/RLD@d54578fd77
        ("abkd", {}, 0.054860348938),  # ghwang-s/abkd@df813185e6
        ("superclass", {}, 1.026222970822),  # every class its own superclass: plain KD
    ],
)
def test_loss(name: str, params: dict[str, float], expected: float) -> None:
    student, teachers, targets = _input()
    value = build("losses", name, **params)(student, teachers[0], targets).mean()
    assert value.item() == pytest.approx(expected, abs=TIGHT)


def test_cross_entropy_of_the_input() -> None:
    student, _, targets = _input()
    assert F.cross_entropy(student, targets).item() == pytest.approx(2.073406610866, abs=TIGHT)


def test_wsld_with_its_cross_entropy() -> None:
    # bellymonster/Weighted-Soft-Label-Distillation@67820dd7c3 adds CE and weighs the rest 2.5.
    student, teachers, targets = _input()
    objective = Objective(
        loss=build("losses", "wsld"), weighting=build("weightings", "average"), alpha=2.5
    )
    value = objective(student, targets, teachers[:1])
    assert value.total.item() == pytest.approx(11.999069944202, abs=TIGHT)


def test_kd_per_example_and_gradient() -> None:
    student, teachers, targets = _input()
    student.requires_grad_()
    losses = build("losses", "kd", temperature=4.0)(student, teachers[0], targets)
    expected = [2.278239589529, 0.403107071809, 1.010228901017, 0.413316320933]
    assert losses.tolist() == pytest.approx(expected, abs=TIGHT)
    losses.mean().backward()
    row = [-0.030844675806, -0.189784952710, 0.009746073259, 0.114597852738, 0.096285702518]
    assert student.grad is not None
    assert student.grad[0].tolist() == pytest.approx(row, abs=TIGHT)


def _kd_part(weighting: str, **params: object) -> float:
    student, teachers, targets = _input()
    objective = Objective(
        loss=build("losses", "kd", temperature=4.0),
        weighting=build("weightings", weighting, **params),
    )
    return objective(student, targets, teachers).parts["kd"].item()


@pytest.mark.parametrize(
    ("name", "params", "expected", "tolerance"),
    [
        ("average", {}, 1.800121761103, TIGHT),
        ("entropy", {"normalize": "official"}, 1.184031901226, TIGHT),
        ("entropy", {}, 1.776047851839, TIGHT),  # the same at mass 1: times 1.5
        ("confidence", {"normalize": "official"}, 0.635139831623, TIGHT),
        ("confidence", {}, 1.905419494869, TIGHT),  # times 3
        ("gradient", {"cap": 0.6}, 2.00583717, 1e-7),  # weights of a solver that stops early
    ],
)
def test_weighted_kd(
    name: str, params: dict[str, object], expected: float, tolerance: float
) -> None:
    assert _kd_part(name, **params) == pytest.approx(expected, abs=tolerance)


def test_entropy_weights() -> None:
    # The reference's raw weights sum to K - 1 = 2.
    weights = build("weightings", "entropy")(*_input())
    raw = [0.562650749367, 0.663524277079, 0.807375448681, 0.754583257974]
    assert (2 * weights[0]).tolist() == pytest.approx(raw, abs=TIGHT)


def test_confidence_weights() -> None:
    weights = build("weightings", "confidence")(*_input())
    first = [0.326813143360, 0.128522155623, 0.368448649688, 0.093528706941]
    last = [0.333581193420, 0.485780832132, 0.280554982178, 0.488261985509]
    assert weights[0].tolist() == pytest.approx(first, abs=TIGHT)
    assert weights[2].tolist() == pytest.approx(last, abs=TIGHT)


@pytest.mark.parametrize(
    ("cap", "expected", "tolerance"),
    [
        (0.6, [0.4, 0.0, 0.6], TIGHT),
        (0.4, [0.4, 0.2, 0.4], TIGHT),
        # The reference stops at a solver tolerance: its weights sum to 0.99999997.
        (1.0, [0.142070442, 0.0, 0.857929528], 1e-7),
    ],
)
def test_gradient_weights(cap: float, expected: list[float], tolerance: float) -> None:
    weights = build("weightings", "gradient", cap=cap)(*_input())
    assert weights[:, 0].tolist() == pytest.approx(expected, abs=tolerance)
    assert torch.equal(weights, weights[:, :1].expand_as(weights))


def test_gradient_weights_per_example() -> None:
    weights = build("weightings", "gradient", cap=0.6, gram="flat")(*_input())
    assert weights[:, 0].tolist() == pytest.approx([0.6, 0.211, 0.189], abs=5e-4)


def test_feature_term_of_ca_mkd() -> None:
    _, logits, targets = _input()
    steps = torch.arange(32, dtype=torch.float64)
    students = [torch.sin(0.3 * steps + k).view(4, 8) for k in range(3)]
    teachers = [torch.cos(0.2 * steps + k).view(4, 8) for k in range(3)]
    hint = build("hints", "ca_mkd", normalize="official")
    value = hint.combine(students, logits, teachers, targets).mean()
    assert value.item() == pytest.approx(0.134220116062, abs=TIGHT)


@pytest.mark.parametrize(
    ("temperature", "scaled", "unscaled"),
    [(1, 0.214, 0.214), (2, 0.299, 0.075), (4, 0.330, 0.021), (8, 0.335, 0.0052)],
)
def test_the_squared_temperature_keeps_the_gradient(
    temperature: float, scaled: float, unscaled: float
) -> None:
    student, teachers, targets = _input()
    student.requires_grad_()
    build("losses", "kd", temperature=temperature)(student, teachers[0], targets).mean().backward()
    assert student.grad is not None
    size = student.grad.norm().item()
    assert size == pytest.approx(scaled, abs=5e-4)
    assert size / temperature**2 == pytest.approx(unscaled, abs=5e-4)
