import pytest

from orchestrator.ledger import Proposal
from orchestrator.names import trial_name

KD = {"loss": "kd", "loss.temperature": 3.14159, "alpha": 1.5, "weighting": "average"}


@pytest.mark.parametrize(
    ("task", "role", "params", "name"),
    [
        ("teacher", "bert", {}, "teacher bert"),
        ("outputs", "bert", {"split": "dev"}, "bert on dev"),
        ("student", "control:plain", {"epochs": 3}, "control plain"),
        ("student", "search", {**KD, "teachers": "a+b"}, "kd T=3.14 a=1.5 average a+b"),
        ("confirm", "candidate", {**KD, "teachers": "a"}, "kd T=3.14 a=1.5 average a seed 4"),
        (
            "student",
            "search",
            {**KD, "teachers": "a", "hint": "fitnets", "hint.layer": 2},
            "kd T=3.14 a=1.5 average fitnets layer=2 a",
        ),
    ],
)
def test_names_tell_trials_apart(
    task: str, role: str, params: dict[str, object], name: str
) -> None:
    assert trial_name(Proposal(task, "k", role, {}, params, seed=4)) == name
