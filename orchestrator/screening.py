"""Screening: what to try first, from the teachers' cached outputs alone.

Before any student is trained, every choice of teachers, weighting and temperature that the space
holds is scored on dev; the best few become the first suggestions. It takes seconds, changes
nothing about later suggestions, and the students themselves decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from orchestrator.points import preferred, student_at, teachers_at
from orchestrator.schema import SweepConfig
from orchestrator.teaching import TrainedTeacher
from search_spaces.groups import N_TEACHERS
from search_spaces.node import Label
from search_spaces.space import Space
from trainables import catalog
from trainables.evaluation import open_encoded
from trainables.outputs import load_outputs, positions
from trainables.screening import can_screen, teaching_log_loss
from trainables.store import Store

MOST_VARIANTS = 2_000
MOST_ROWS = 4_000
TEMPERATURES = 5
MOST_SCREENED = 3


@dataclass(frozen=True)
class Screened:
    """One way of teaching.

    Attributes:
        point: The point of the search space; what is not about teaching has its default.
        teachers: Names of the teachers.
        weighting: Name of the weighting.
        temperature: Of the loss; 1 where it has none.
        log_loss: Of the teachers together on dev, in nats.
    """

    point: Mapping[str, Any]
    teachers: tuple[str, ...]
    weighting: str
    temperature: float
    log_loss: float

    def __str__(self) -> str:
        """Describe it in a few words."""
        names = "+".join(self.teachers)
        return f"{names} {self.weighting} T={self.temperature:.2g} (log loss {self.log_loss:.3f})"


def screen(
    config: SweepConfig, space: Space, teachers: Mapping[str, TrainedTeacher], store: Store
) -> list[Screened]:
    """Score the ways of teaching of a space on dev; returns them best first.

    Left out are weightings that need labels or a student to choose by, and teachers of
    superclasses. At most ``MOST_VARIANTS`` ways and ``MOST_ROWS`` evenly spaced rows are used.

    Args:
        config: The sweep.
        space: Its space, with the teachers that passed the gate.
        teachers: Those teachers by name, with the keys of their outputs.
        store: Holds the outputs.
    """
    loaded = _load({n: t for n, t in teachers.items() if not t.groups}, store)
    found: dict[tuple[Any, ...], Screened] = {}
    for point in _variants(space, preferred(config)):
        names = tuple(teachers_at(config, point))
        student = student_at(config, point)
        if not names or not set(names) <= loaded.keys() or not student.alpha:
            continue
        weighting = catalog.build("weightings", **student.weighting)
        temperature = _temperature(student.loss)
        identity = (names, str(student.weighting), temperature)
        if identity in found or not can_screen(weighting):
            continue
        weighting.configure(scores=[teachers[name].score for name in names], generator_seed=0)
        logits = torch.stack([loaded[name][0] for name in names])
        score = teaching_log_loss(weighting, logits, loaded[names[0]][1], temperature)
        if math.isfinite(score):
            found[identity] = Screened(point, names, student.weighting["name"], temperature, score)
    return sorted(found.values(), key=lambda way: way.log_loss)


def choose(ways: Sequence[Screened], count: int) -> list[Screened]:
    """Return the best way, then the best of those that differ from all chosen in their teachers.

    Ways that share their teachers score alike, and the search would learn little from them.
    """
    chosen: list[Screened] = []
    for way in ways:
        if len(chosen) < count and all(way.teachers != other.teachers for other in chosen):
            chosen.append(way)
    return chosen if len(ways) > 1 else []


def _load(
    teachers: Mapping[str, TrainedTeacher], store: Store
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return logits ``[N, C]`` and labels ``[N]`` of the same dev rows for each teacher."""
    loaded = {}
    ids = None
    for name, teacher in teachers.items():
        rows = open_encoded(store, teacher.materials.tokens.encoded["dev"])
        if ids is None:
            ids = rows.ids[:: math.ceil(len(rows) / MOST_ROWS)]
        outputs = load_outputs(store, teacher.outputs["dev"])
        logits = outputs.logits[positions(ids, outputs.ids, f"teacher {name!r}")]
        loaded[name] = (logits, rows.labels[positions(ids, rows.ids, f"teacher {name!r}")])
    return loaded


def _temperature(loss: Mapping[str, Any]) -> float:
    defaults = {p.name: p.default for p in catalog.parameters("losses", loss["name"])}
    value = loss.get("temperature", defaults.get("temperature", 1.0))
    return float(value) if isinstance(value, int | float) else 1.0


def _variants(space: Space, prefer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a point for each combination of teachers, weighting and temperature of the loss."""
    defaults = {leaf.path: leaf.node.default(leaf.path, prefer) for leaf in space.leaves()}
    pending: list[tuple[Any, ...]] = [()]
    for _ in range(MOST_VARIANTS):
        if not pending:
            return
        replay = _Replay(pending.pop(), defaults)
        yield space.sample(replay)
        pending.extend(replay.others)


class _Replay:
    """Answers a space's questions as told, notes the other answers there would have been.

    Args:
        told: Answers to the first questions that have several.
        defaults: Values of the ranges that are not varied.
    """

    def __init__(self, told: tuple[Any, ...], defaults: Mapping[str, Any]) -> None:
        self.others: list[tuple[Any, ...]] = []
        self._told = told
        self._defaults = defaults
        self._taken: list[Any] = []

    def uniform(self, path: str, low: float, high: float) -> float:
        """Vary the temperature of the loss evenly; anything else has its default."""
        if not _is_temperature(path):
            return float(self._defaults[path])
        step = (high - low) / (TEMPERATURES - 1)
        return float(self._branch([low + step * i for i in range(TEMPERATURES - 1)] + [high]))

    def log_uniform(self, path: str, low: float, high: float) -> float:
        """Vary the temperature of the loss by equal factors; anything else has its default."""
        if not _is_temperature(path):
            return float(self._defaults[path])
        factor = (high / low) ** (1 / (TEMPERATURES - 1))
        return float(self._branch([low * factor**i for i in range(TEMPERATURES - 1)] + [high]))

    def integer(self, path: str, low: int, high: int, log: bool) -> int:
        """Vary the temperature of the loss and the number of teachers."""
        if path == N_TEACHERS:
            return int(self._branch(range(high, low - 1, -1)))
        if not _is_temperature(path):
            return int(self._defaults[path])
        step = max(1, (high - low) // (TEMPERATURES - 1))
        return int(self._branch(list(range(low, high + 1, step))))

    def categorical(self, path: str, labels: Sequence[Label]) -> Label:
        """Vary teachers and weighting; anything else has its first option."""
        if path.split(".")[0] not in (N_TEACHERS, "teachers", "weighting"):
            return labels[0]
        answer: Label = self._branch(labels)
        return answer

    def _branch(self, options: Sequence[Any]) -> Any:
        position = len(self._taken)
        if position < len(self._told):
            answer = self._told[position]
        else:
            answer, *rest = options
            self.others += [(*self._taken, other) for other in rest]
        self._taken.append(answer)
        return answer


def _is_temperature(path: str) -> bool:
    return path.startswith("loss.") and path.endswith(".temperature")
