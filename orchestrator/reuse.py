"""What an earlier start has left for this one: which trials of a config need not be run again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.ledger import Proposal
from orchestrator.names import trial_name
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.schema import SweepConfig
from orchestrator.specs import StudentFactory
from orchestrator.tracking.runs import flatten
from search_spaces.space import Space
from trainables.store import Store, content_key


@dataclass(frozen=True)
class Reuse:
    """The trials of a stage by name.

    Attributes:
        reused: Those that are there; trials drawn by an earlier search are only counted.
        new: Those that must be run, as far as they are known before the search.
        count: How many are there.
    """

    reused: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    count: int = 0


def search_identity(config: SweepConfig, space: Space, factory: StudentFactory) -> dict[str, Any]:
    """Return what makes a search another one; anything else may change between two starts."""
    return {
        "space": space.to_json(),
        "objectives": list(config.search.objectives.items()),
        "base": factory.spec({}).canonical(),
    }


def listed_reuse(proposals: Sequence[Proposal], store: Store) -> Reuse:
    """Tell which of the teachers or outputs are in the store."""
    names = {p.key: _name(p) for p in proposals}
    there = [p.key for p in proposals if store.exists(p.task, p.key)]
    return Reuse(
        tuple(names[key] for key in names if key in there),
        tuple(names[key] for key in names if key not in there),
        len(there),
    )


def student_reuse(
    config: SweepConfig,
    space: Space,
    factory: StudentFactory,
    listed: Sequence[Proposal],
    home: Home,
) -> Reuse:
    """Tell which students are in the store or in the ledger of the same search.

    Args:
        config: The sweep.
        space: What is searched.
        factory: Its teachers must have their real scores.
        listed: Controls, the default and grids.
        home: Where an earlier start may have been.
    """
    store = home.store
    past = _past_students(config, content_key(search_identity(config, space, factory))[:12], home)
    done = {
        r.key for r in past if r.state is not TrialState.COMPLETE or store.exists("student", r.key)
    }
    done |= {p.key for p in listed if store.exists(p.task, p.key)}
    names: dict[str, str] = {}
    for proposal in listed:  # the default may be the same student as a control
        names.setdefault(proposal.key, _name(proposal))
    drawn = len(done - names.keys())
    reused = [name for key, name in names.items() if key in done]
    return Reuse(
        (*_distinct(reused), *([f"{drawn} drawn before"] if drawn else [])),
        _distinct(name for key, name in names.items() if key not in done),
        len(done),
    )


def changed_fields(config: SweepConfig, home: Home) -> dict[str, tuple[str | None, str | None]]:
    """Return the fields that differ from the last start of this sweep: before and now, as text."""
    before: Mapping[str, Any] = home.read_state(config.name).get("config") or {}
    if not before:
        return {}
    old, new = (flatten(_numbered(fields)) for fields in (before, config.to_dict()))
    names = [*new, *(name for name in old if name not in new)]
    return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


def _numbered(value: Any) -> Any:
    """Turn lists of sections into mappings, so that a field is named ``teachers.0.epochs``."""
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        return {str(number): _numbered(entry) for number, entry in enumerate(value)}
    if isinstance(value, Mapping):
        return {name: _numbered(entry) for name, entry in value.items()}
    return value


def _past_students(config: SweepConfig, fingerprint: str, home: Home) -> list[TrialRecord]:
    study = home.read_state(config.name).get("studies", {}).get(str(Stage.STUDENTS), "")
    if not study.endswith(f"/{fingerprint}"):
        return []
    trials = load_record(home, config.name).of(Stage.STUDENTS)
    return [trial for trial in trials if trial.state.is_result()]


def _name(proposal: Proposal) -> str:
    split = proposal.spec.get("split")
    if split:
        return f"{proposal.role} on {split}"
    return trial_name(proposal) if proposal.role == "grid" else proposal.role


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
