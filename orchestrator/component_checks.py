"""Checks of the components a config names: they exist, take these parameters, can do the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.errors import Problem
from orchestrator.points import KINDS
from orchestrator.schema import StudentConfig, SweepConfig
from orchestrator.wording import did_you_mean
from trainables import catalog
from trainables.errors import ComponentError
from trainables.protocols import Hint, Loss, Weighting, trait

# What the trainer fills in by itself; a config that sets it is mistaken.
_SUPPLIED: Mapping[str, frozenset[str]] = {
    "models": frozenset({"n_classes", "vocab_size", "embedding", "freeze_embedding", "pretrained"}),
    "weightings": frozenset({"scores"}),
}
# What the trainer fills in where the config does not.
_FILLED = "prior"
_CONTRACTS: Mapping[str, type[Any]] = {"loss": Loss, "weighting": Weighting, "hint": Hint}


def component_problems(kind: str, spec: Mapping[str, Any], where: str) -> list[Problem]:
    """Check that a component exists and takes these parameters with these values."""
    name = spec["name"]
    try:
        parameters = catalog.parameters(kind, name)
    except ComponentError as error:
        return [Problem(f"{where}.name", str(error))]
    supplied = _SUPPLIED.get(kind, frozenset())
    given = {key: value for key, value in spec.items() if key != "name"}
    open_ended = any(parameter.name.startswith("**") for parameter in parameters)
    known = [p.name for p in parameters if p.name not in supplied and not p.name.startswith("**")]
    problems = []
    for key in given:
        if key in supplied:
            what = f"{key!r} is filled in by the trainer"
            problems.append(Problem(f"{where}.{key}", what, "remove it"))
        elif key not in known and not open_ended:
            what = f"{name!r} has no parameter {key!r}"
            problems.append(Problem(f"{where}.{key}", what, did_you_mean(key, known)))
    for parameter in parameters:
        if parameter.default is ... and parameter.name not in supplied | given.keys():
            what = f"{name!r} needs the parameter {parameter.name!r}"
            cure = f"add `{parameter.name}: ...`"
            problems.append(Problem(f"{where}.{parameter.name}", what, cure))
    return problems or _value_problems(kind, name, given, where)


def needs_checkpoint(model: Mapping[str, Any]) -> bool:
    """Tell whether a model starts from a pretrained checkpoint; an unknown one does not."""
    try:
        return bool(getattr(catalog.load("models", model["name"]), "needs_checkpoint", False))
    except ComponentError:
        return False


def student_problems(student: StudentConfig, config: SweepConfig, where: str) -> list[Problem]:
    """Check all components of a student, and that they can use the rows they get."""
    problems = []
    for key, kind in KINDS.items():
        spec = getattr(student, key)
        if spec is not None:
            problems.extend(component_problems(kind, spec, f"{where}.{key}"))
    problems.extend(label_problems(student, config, where))
    return problems


def label_problems(student: StudentConfig, config: SweepConfig, where: str) -> list[Problem]:
    """Refuse components that read labels for rows that have none."""
    if config.data.transfer is None or not student.transfer:
        return []
    problems = []
    for key, contract in _CONTRACTS.items():
        spec = getattr(student, key)
        component = None if spec is None else _made(KINDS[key], spec)
        if component is not None and trait(component, contract, "needs_labels"):
            what = f"{spec['name']!r} needs labels, which the transfer rows do not have"
            cure = "choose a label-free one, or set transfer to false for this student"
            problems.append(Problem(f"{where}.{key}", what, cure))
    return problems


def _made(kind: str, spec: Mapping[str, Any]) -> Any:
    """Return the component, its class if the parameters are wrong, or None if unknown."""
    params = {key: value for key, value in spec.items() if key != "name"}
    try:
        return catalog.build(kind, spec["name"], **params)  # a variant may decide the traits
    except ComponentError:
        try:
            return catalog.load(kind, spec["name"])
        except ComponentError:
            return None


def _value_problems(kind: str, name: str, params: Mapping[str, Any], where: str) -> list[Problem]:
    """Make the component once: it checks its own values."""
    if kind == "models":
        return _model_problems(name, params, where)
    if _FILLED in {parameter.name for parameter in catalog.parameters(kind, name)}:
        # The data is not known yet; any frequencies let the other values be checked.
        params = {_FILLED: [1.0] * len(params.get("groups") or [0]), **params}
    try:
        catalog.build(kind, name, **params)
    except ComponentError as error:
        return [Problem(where, str(error))]
    return []


def _model_problems(name: str, params: Mapping[str, Any], where: str) -> list[Problem]:
    """Make a model of no memory; one with a checkpoint is left to the preflight."""
    import torch

    if needs_checkpoint({"name": name}):
        return []
    accepted = {parameter.name for parameter in catalog.parameters("models", name)}
    supplied = {"n_classes": 2, "vocab_size": 8}
    try:
        with torch.device("meta"):
            catalog.build(
                "models", name, **{k: v for k, v in supplied.items() if k in accepted}, **params
            )
    except ComponentError as error:
        return [Problem(where, str(error).partition("\n")[0])]
    except RuntimeError:
        return []  # needs real numbers to be made, so nothing can be said here
    return []
