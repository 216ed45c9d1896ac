"""Which searched parameters mattered, by Optuna's evaluators."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.records import TrialState
from orchestrator.report.document import Report
from orchestrator.report.naming import is_control

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

# fANOVA needs two seconds for 200 trials and minutes for 2,000; PED-ANOVA a tenth of a second.
_FANOVA_UP_TO = 200
_FEWEST = 8
# A numeric parameter that spans more than this factor was most likely searched by its logarithm.
LOG_FACTOR = 20.0


@dataclass(frozen=True)
class Importance:
    """Shares of the score's variation, largest first, and the method that found them.

    ``rough`` when the evaluator warned that it has too few trials somewhere.
    """

    shares: Mapping[str, float]
    method: str
    rough: bool = False


def importance(
    report: Report, frozen: Sequence[FrozenTrial] | None = None, *, objective: int = 0
) -> Importance | None:
    """Return the importance of the searched parameters, or None with too few trials.

    Only parameters that every complete trial has can be compared; one that exists for a single
    loss only is left out.

    Args:
        report: The sweep; its trials stand in for the ledger's if ``frozen`` is None.
        frozen: Trials of the Optuna study, which know the searched ranges.
        objective: Which of several objectives.
    """
    import optuna

    values, trials = _finished(report, frozen, objective)
    if len(trials) < _FEWEST or max(values) == min(values):
        return None
    study = _quiet_study()
    study.add_trials(trials)
    if all(len(set(map(str, column))) < 2 for column in _columns(trials).values()):
        return None
    evaluator: Any = optuna.importance.PedAnovaImportanceEvaluator()
    method = "PED-ANOVA"
    if len(trials) <= _FANOVA_UP_TO:
        evaluator, method = optuna.importance.FanovaImportanceEvaluator(seed=0), "fANOVA"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    rough = any("inaccurate" in str(warning.message) for warning in caught)
    return Importance({name: float(share) for name, share in shares.items()}, method, rough)


def numeric(values: Sequence[Any]) -> bool:
    """Tell whether all values of a parameter are numbers (a truth value is not)."""
    return all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)


def logarithmic(values: Sequence[Any]) -> bool:
    """Tell whether a numeric parameter is better seen on a logarithmic axis."""
    return bool(min(values) > 0 and max(values) / min(values) > LOG_FACTOR)


def searched(report: Report) -> dict[str, list[Any]]:
    """Return the parameters with more than one value among the students, with those values."""
    columns: dict[str, list[Any]] = {}
    for row in report.students:
        for name, value in row.params.items():
            columns.setdefault(name, []).append(_scalar(value))
    return {name: found for name, found in columns.items() if len(set(map(str, found))) > 1}


def _quiet_study() -> Study:
    """Make a study without the line that Optuna logs about each new one."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(storage=optuna.storages.InMemoryStorage())
    finally:
        optuna.logging.set_verbosity(level)


def _finished(
    report: Report, frozen: Sequence[FrozenTrial] | None, objective: int
) -> tuple[list[float], list[FrozenTrial]]:
    """Return scores and trials, with costs as values so that all studies minimise."""
    from optuna.trial import TrialState as OptunaState
    from optuna.trial import create_trial

    sign = -1.0 if report.objective[1] == "max" else 1.0
    if frozen is not None:
        complete = [trial for trial in frozen if trial.state is OptunaState.COMPLETE]
        values = [sign * trial.values[objective] for trial in complete]
        found = [(trial.params, trial.distributions) for trial in complete]
    else:
        name = report.objective[0]
        rows = [row for row in report.students if row.rank and not is_control(row.role)]
        values = [sign * row.metrics[name] for row in rows]
        distributions = {key: _distribution(column) for key, column in searched(report).items()}
        found = [
            (
                {key: _scalar(row.params[key]) for key in distributions if key in row.params},
                {key: item for key, item in distributions.items() if key in row.params},
            )
            for row in rows
            if row.state is TrialState.COMPLETE
        ]
    usable = [(value, *pair) for value, pair in zip(values, found, strict=True)]
    usable = [item for item in usable if math.isfinite(item[0])]
    trials = [create_trial(value=v, params=p, distributions=d) for v, p, d in usable]
    return [item[0] for item in usable], trials


def _columns(trials: Sequence[FrozenTrial]) -> dict[str, list[Any]]:
    shared = set.intersection(*(set(trial.params) for trial in trials))
    return {name: [trial.params[name] for trial in trials] for name in shared}


def _distribution(values: Sequence[Any]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if numeric(values):
        return FloatDistribution(min(values), max(values), log=logarithmic(values))
    return CategoricalDistribution(sorted(set(values), key=str))


def _scalar(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, (list, tuple)) else value
