"""The parts of a report: frozen records without behaviour.

Scores are shares (0.87, not 87), sizes bytes, times seconds; ``None`` means not known, and the
notes say why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.records import TrialState


class Verdict(StrEnum):
    """What may be claimed about a candidate against a control."""

    BEATS = "BEATS"
    NO_BEATS = "NO BEATS"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of ``n`` values."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class Interval:
    """A difference of two scores with its confidence interval over seeds and examples."""

    estimate: float
    low: float
    high: float
    confidence: float
    seeds: int
    examples: int


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two models of one seed; counts of examples only one has right."""

    seed: int
    only_candidate: int
    only_control: int
    p_value: float
    exact: bool


@dataclass(frozen=True)
class TrialRow:
    """One trial of the student stage.

    Attributes:
        key: Content key of the trial.
        role: Why it ran: ``search``, ``default`` or ``control:...``.
        state: What became of it.
        method: Its loss, weighting and teachers in a few words.
        params: Flat dotted names and values.
        metrics: Of the epoch that was kept.
        teachers: Names of the teachers it learned from.
        epochs: How many it trained.
        seconds: Wall time.
        rank: Place by the objective among complete trials, from 1; None otherwise.
        pareto: On the Pareto front of score and size.
        error: Last line of the reason if it failed.
    """

    key: str
    role: str
    state: TrialState
    method: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    teachers: tuple[str, ...]
    epochs: int
    seconds: float
    rank: int | None = None
    pareto: bool = False
    error: str | None = None


@dataclass(frozen=True)
class TeacherRow:
    """One teacher: ``val_*`` and, once confirm has run, ``test_*`` metrics.

    ``coarse`` teachers know superclasses, so their scores cannot be put beside a student's.
    """

    name: str
    key: str
    state: TrialState
    metrics: Mapping[str, float]
    seconds: float
    error: str | None = None
    coarse: bool = False


@dataclass(frozen=True)
class ConfirmRow:
    """One configuration trained again over several seeds.

    Attributes:
        group: Key of the student trial that it repeats.
        role: ``candidate`` or the control's role.
        method: As in ``TrialRow``.
        params: Flat dotted names and values, without the seed.
        keys: Keys of the complete trials, by seed.
        seeds: Seeds of the complete trials, ascending.
        failed: How many of its trials failed.
        metrics: Mean and spread of each metric over the seeds.
        chosen: Whether it is the candidate the verdict is about (chosen on dev).
    """

    group: str
    role: str
    method: str
    params: Mapping[str, Any]
    keys: tuple[str, ...]
    seeds: tuple[int, ...]
    failed: int
    metrics: Mapping[str, Spread]
    chosen: bool = False


@dataclass(frozen=True)
class Distillation:
    """The distillation ratio and the three scores it is made of.

    ``ratio`` = (student - plain) / (teacher - plain), None with a ``reason`` if not defined.
    """

    ratio: float | None
    metric: str
    split: str
    student: float | None = None
    plain: float | None = None
    teacher: float | None = None
    teacher_name: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The candidate against one control on the same examples and seeds.

    Attributes:
        control: Role of the control.
        verdict: What may be claimed.
        sentence: The verdict in words, with its numbers.
        metric: Compared metric, without the split's prefix.
        split: ``test`` or ``dev``.
        interval: Difference (candidate - control); None if it could not be computed.
        mcnemar: One test for each seed.
        p_value: McNemar over the seeds (``statistics.combined_p``).
        identical: Every prediction is the same.
    """

    control: str
    verdict: Verdict
    sentence: str
    metric: str
    split: str
    interval: Interval | None = None
    mcnemar: tuple[McNemar, ...] = ()
    p_value: float | None = None
    identical: bool = False


@dataclass(frozen=True)
class MethodRow:
    """All complete search trials of one combination of loss, weighting and hint."""

    method: str
    score: Spread | None
    best: float | None
    complete: int
    pruned: int
    failed: int


@dataclass(frozen=True)
class ClassRow:
    """One class: F1 of candidate and plain student, means over their seeds."""

    name: str
    support: int
    candidate: float
    plain: float | None
    change: float | None


@dataclass(frozen=True)
class Fidelity:
    """How a model's predictions relate to truth and to the teachers, means over its seeds.

    Attributes:
        model: ``candidate``, a control's role or ``teacher:NAME``.
        ece: Expected calibration error.
        agreement: For each teacher, the share of examples with the same predicted class.
        divergence: For each teacher, mean KL(teacher || model) in nats.
    """

    model: str
    ece: float
    agreement: Mapping[str, float]
    divergence: Mapping[str, float]


@dataclass(frozen=True)
class Diagnosis:
    """What predictions of the compared models show, all on one split.

    Attributes:
        split: ``test`` or ``dev``.
        classes: One row for each class.
        fidelity: One row for each model.
        confusion_candidate: Mean counts ``[target][prediction]`` over seeds.
        confusion_plain: The same of the plain student; empty if there is none.
        suspects: Ids of dev examples that every teacher gets wrong: mislabelled ones are
            among them. At most 50.
        n_suspects: How many there are.
    """

    split: str
    classes: tuple[ClassRow, ...] = ()
    fidelity: tuple[Fidelity, ...] = ()
    confusion_candidate: tuple[tuple[float, ...], ...] = ()
    confusion_plain: tuple[tuple[float, ...], ...] = ()
    suspects: tuple[int, ...] = ()
    n_suspects: int = 0


@dataclass(frozen=True)
class Cost:
    """Where the seconds went.

    Attributes:
        stages: Trial seconds by stage, all attempts that have a record.
        gpu_seconds: As recorded by the trials; None if none did.
        teacher_forwards_saved: Estimated seconds of teacher forward passes that students would
            have run without cached outputs, less what computing the outputs cost.
        teachers_reused: Seconds of training that were already in the store.
    """

    stages: Mapping[str, float]
    gpu_seconds: float | None
    teacher_forwards_saved: float
    teachers_reused: float


@dataclass(frozen=True)
class Pareto:
    """The trade-off between score and size.

    Attributes:
        objectives: Names and directions, e.g. ``(("val_f1_macro", "max"), ("parameters", "min"))``.
        front: Keys of the complete trials that no other one dominates, best score first.
        hypervolume: After each complete trial, the share of the rectangle of the first objective
            by ``against`` that is dominated, 0 to 1.
        against: The objective that the first one is traded for: the latency if that is one, else
            the number of parameters, else any other.
    """

    objectives: tuple[tuple[str, str], ...]
    front: tuple[str, ...]
    hypervolume: tuple[float, ...]
    against: str = "parameters"
