"""How the report speaks of trials: methods, teachers, metrics and numbers in a few words."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from orchestrator.records import TrialRecord

PLAIN = "control:plain"
CANDIDATE = "candidate"

_SCORES = ("accuracy", "f1_macro", "f1_micro", "f1_weighted")
_METRIC_WORDS = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "f1_micro": "micro F1",
    "f1_weighted": "weighted F1",
    "loss": "loss",
    "model_bytes": "size",
    "latency_ms": "latency, ms",
    "epoch_seconds": "seconds of an epoch",
}
_ROLE_WORDS = {
    PLAIN: "the same student without a teacher",
    "control:best_teacher": "the same student with the best single teacher",
    "control:average": "the same student with the plain average of the teachers",
}
_SHORT = {"temperature": "T"}


def is_control(role: str) -> bool:
    """Tell whether a trial ran for comparison."""
    return role.startswith("control:")


def describe_role(role: str) -> str:
    """Return the role of a control as the object of a sentence."""
    return _ROLE_WORDS.get(role, f"the control {role.removeprefix('control:')!r}")


def decision_metric(objective: str) -> str:
    """Return the metric that decides, without its split: the objective's, if it is a score.

    A search may rank by loss or size; what is claimed about a classifier is still its macro F1.
    """
    name = objective.removeprefix("val_")
    return name if name in _SCORES else "f1_macro"


def dev_and_test(objective: str) -> tuple[str, str]:
    """Return the names of the deciding metric on dev and on test."""
    metric = decision_metric(objective)
    return f"val_{metric}", f"test_{metric}"


def describe_metric(name: str) -> str:
    """Return ``val_f1_macro`` as ``dev macro F1``."""
    for prefix, split in (("val_", "dev "), ("test_", "test ")):
        if name.startswith(prefix):
            return split + describe_metric(name.removeprefix(prefix))
    return _METRIC_WORDS.get(name, name.replace("_", " "))


def component(trial: TrialRecord, kind: str) -> str | None:
    """Return the name of the trial's ``loss``, ``weighting`` or ``hint``, searched or fixed."""
    value = trial.params.get(kind, _from_spec(trial.spec, kind))
    if isinstance(value, Mapping):
        value = value.get("name")
    return str(value) if value not in (None, "", "none", "None") else None


def teachers_of(trial: TrialRecord) -> tuple[str, ...]:
    """Return the names of the teachers that a student learned from, in their order."""
    candidates = [trial.params.get("teachers")]
    candidates += [trial.params[key] for key in trial.params if key.endswith(".subset")]
    candidates.append(_from_spec(trial.spec, "teachers"))
    for value in candidates:
        names = _names(value)
        if names:
            return names
    return ()


def method_name(trial: TrialRecord) -> str:
    """Return loss, weighting and hint without parameters: what ``per_method`` groups by."""
    if trial.role == PLAIN:
        return "plain"
    parts = [component(trial, kind) for kind in ("loss", "weighting", "hint")]
    return " + ".join(part for part in parts if part) or "default"


def describe_method(trial: TrialRecord) -> str:
    """Return the method with its main parameters and teachers, e.g. ``kd T=4 · average · bert``."""
    if trial.role == PLAIN:
        return "plain: no teacher"
    if "members" in trial.params:
        return f"{trial.params['combiner']} of {trial.params['members']}"
    parts = [str(trial.params["scheme"])] if "scheme" in trial.params else []
    for kind in ("loss", "weighting", "hint"):
        name = component(trial, kind)
        if name:
            parts.append(" ".join([name, *_parameters(trial.params, kind)]))
    teachers = teachers_of(trial)
    if teachers:
        parts.append("+".join(teachers))
    return " · ".join(parts) or "default"


def points(value: float, digits: int = 1) -> str:
    """Return a share as signed percentage points, ``0.032`` as ``+3.2``."""
    text = f"{100 * value:+.{digits}f}"
    return text if float(text) else text.replace("-", "+")  # no "-0.0"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share in per cent without the sign, or a dash."""
    return "-" if value is None else f"{100 * value:.{digits}f}"


def count(value: float | None) -> str:
    """Return a large count in three digits: ``2128258`` as ``2.13 M``."""
    return _scaled(value, 1000.0, ("", " k", " M", " G"))


def size(value: float | None) -> str:
    """Return bytes in three digits, ``8513032`` as ``8.51 MB``."""
    return _scaled(value, 1000.0, (" B", " kB", " MB", " GB"))


def duration(seconds: float | None) -> str:
    """Return seconds as ``0.8 s``, ``42 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _scaled(value: float | None, step: float, units: tuple[str, ...]) -> str:
    if value is None:
        return "-"
    for unit in units[:-1]:
        if value < step:
            return f"{value:.0f}{unit}" if unit == units[0] else f"{value:.3g}{unit}"
        value /= step
    return f"{value:.3g}{units[-1]}"


def _parameters(params: Mapping[str, Any], kind: str) -> list[str]:
    prefix = f"{kind}."
    shown = []
    for key, value in params.items():
        if key.startswith(prefix) and not isinstance(value, (dict, list, tuple)):
            name = key.rpartition(".")[2]
            number = f"{value:.3g}" if isinstance(value, float) else str(value)
            shown.append(f"{_SHORT.get(name, name)}={number}")
    return shown


def _from_spec(spec: Mapping[str, Any], name: str) -> Any:
    if name in spec:
        return spec[name]
    student = spec.get("student")
    return student.get(name) if isinstance(student, Mapping) else None


def _names(value: Any) -> tuple[str, ...]:
    """Read a list of names as recorded: a list, ``"a+b"``, or the text of a list."""
    if value == "none":
        return ()
    if isinstance(value, str) and value.startswith(("[", "(")):
        value = ast.literal_eval(value)
    if isinstance(value, str):
        return tuple(part.strip() for part in value.replace(",", "+").split("+") if part.strip())
    if isinstance(value, Mapping):
        return tuple(str(name) for name in value)
    if isinstance(value, (list, tuple)):
        items = [item.get("name") if isinstance(item, Mapping) else item for item in value]
        return tuple(str(item) for item in items if item is not None)
    return ()
