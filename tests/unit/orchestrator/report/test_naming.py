from __future__ import annotations

from typing import Any

import pytest

from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.report import naming


def trial(role: str = "search", spec: dict[str, Any] | None = None, **params: Any) -> TrialRecord:
    return TrialRecord(
        Stage.STUDENTS, "k", TrialState.COMPLETE, role, params=params, spec=spec or {}
    )


@pytest.mark.parametrize(
    "recorded",
    [["a", "b"], ("a", "b"), "a+b", "a, b", "['a', 'b']", [{"name": "a"}, {"name": "b"}]],
)
def test_teachers_are_read_however_they_were_recorded(recorded: Any) -> None:
    assert naming.teachers_of(trial(teachers=recorded)) == ("a", "b")


def test_teachers_from_a_subset_or_the_spec() -> None:
    subset = TrialRecord(
        Stage.STUDENTS,
        "k",
        TrialState.COMPLETE,
        "search",
        params={"n_teachers": 2, "n_teachers.2.subset": "a+b"},
    )
    assert naming.teachers_of(subset) == ("a", "b")
    assert naming.teachers_of(trial(spec={"teachers": [{"name": "a"}]})) == ("a",)
    assert naming.teachers_of(trial()) == ()


def test_methods_in_words() -> None:
    record = trial(loss="dkd", weighting="confidence", hint="smooth_l1", teachers=["a"])
    assert naming.method_name(record) == "dkd + confidence + smooth_l1"
    assert naming.describe_method(record) == "dkd · confidence · smooth_l1 · a"
    fixed = trial(spec={"student": {"loss": {"name": "kd"}, "weighting": "average", "hint": None}})
    assert naming.method_name(fixed) == "kd + average"
    assert naming.describe_method(trial("control:plain", loss="kd")) == "plain: no teacher"
    assert naming.method_name(trial()) == "default"
