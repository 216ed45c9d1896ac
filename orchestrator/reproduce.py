"""``reproduce``: run a preset of a paper's experiment and put our numbers beside its own."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence

from orchestrator.config import load_config
from orchestrator.driver import run_sweep
from orchestrator.engine import Options
from orchestrator.errors import ConfigError, Problem, UsageError
from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.records import SweepRecord
from orchestrator.report.arms import ArmReport, ArmRow
from orchestrator.report.leaderboard import teacher_rows
from orchestrator.report.naming import percent
from orchestrator.report.parts import Comparison, TeacherRow, Verdict
from orchestrator.report.reproduced import Line, Reproduction, to_markdown
from orchestrator.schema import PublishedConfig, SweepConfig
from search_spaces.errors import ConfigFileError
from search_spaces.loader import load_yaml, preset_names
from trainables.store import Store


def reproduce(
    preset: str,
    overrides: Sequence[str],
    home: Home,
    options: Options,
    *,
    fast: bool,
    quiet: bool = False,
) -> Reproduction:
    """Run a preset, or what is left of it, and compare.

    Args:
        preset: Name of a preset, or a config file, with ``arms`` and ``published``.
        overrides: ``key=value``, applied last.
        home: Where everything is kept.
        options: How to run.
        fast: Apply the preset's own ``fast`` overrides.
        quiet: Show warnings only.

    Raises:
        OrchestratorError: The preset is none of a paper, or the sweep failed.
    """
    config = load_reproduction(preset, overrides, fast=fast)
    assert config.published is not None
    published = config.published

    def describe(record: SweepRecord, store: Store) -> Mapping[str, str]:
        found = compare(preset, fast, published, record, store)
        return {
            "reproduction.md": to_markdown(found),
            "reproduction.json": json.dumps(found.to_json(), indent=1, ensure_ascii=False),
        }

    run_sweep(config, home, options, "quiet" if quiet else "auto", describe)
    return compare(preset, fast, published, load_record(home, config.name), home.store)


def load_reproduction(preset: str, overrides: Sequence[str], *, fast: bool) -> SweepConfig:
    """Return the config of a preset, in its short form if asked for.

    Raises:
        ConfigError: It is not valid.
        UsageError: It reproduces nothing.
    """
    try:
        written = load_yaml(preset)
    except ConfigFileError as error:
        raise ConfigError([Problem("", str(error))]) from error
    short = [f"{key}={json.dumps(value)}" for key, value in (written.get("fast") or {}).items()]
    if fast:
        # Another name, so that the two forms do not overwrite each other's record.
        short.append(f"name={written.get('name')}-fast")
    config = load_config(preset, [*(short if fast else ()), *overrides])
    if config.published is None or not config.arms:
        names = ", ".join(name for name in preset_names() if load_yaml(name).get("published"))
        raise UsageError(
            f"{preset!r} has no arms or no published numbers to compare with; presets that have "
            f"both: {names}"
        )
    return config


def compare(
    preset: str, fast: bool, published: PublishedConfig, record: SweepRecord, store: Store
) -> Reproduction:
    """Put what a sweep has reached beside what was published."""
    arms = ArmReport(record, store, published.metric.removeprefix("test_"))
    shares = {name: value and value / 100 for name, value in published.rows.items()}
    lines = [_teacher_line(row, arms.metric, shares) for row in teacher_rows(record)]
    lines += [_arm_line(row, arms.metric, shares) for row in arms.rows()]
    reference = _reference(lines)
    lines = [_measured(line, reference, _best_plain(lines)) for line in lines]
    there = {line.name for line in lines}
    lines += [
        Line(name, "student", None, share) for name, share in shares.items() if name not in there
    ]
    return Reproduction(
        preset=preset,
        sweep=record.name,
        fast=fast,
        metric=arms.metric,
        source=published.source,
        notes=published.notes,
        lines=tuple(lines),
        differences=tuple(_differences(lines, published.order, arms)),
        reference=reference.name if reference is not None else None,
    )


def _reference(lines: Sequence[Line]) -> Line | None:
    """Return the teacher whose epochs are the measure: the best that knows the classes."""
    trained = [
        line for line in lines if line.teacher is not None and line.means.get("epoch_seconds")
    ]
    fine = [line for line in trained if line.teacher is not None and not line.teacher.coarse]
    return next(iter(fine or trained), None)


def _best_plain(lines: Sequence[Line]) -> float | None:
    """Return the best point of the plain student's mean curve."""
    plain = next((line.arm for line in lines if line.name == "plain" and line.arm), None)
    return max(plain.curve, default=None) if plain is not None else None


def _measured(line: Line, reference: Line | None, best_plain: float | None) -> Line:
    """Add what takes a second line to say: relative cost and speed of learning."""
    seconds = line.means.get("epoch_seconds")
    ratio = None
    if seconds and reference is not None:
        ratio = seconds / reference.means["epoch_seconds"]
    curve = line.arm.curve if line.arm is not None else ()
    reached = None
    if best_plain is not None:
        reached = next((n for n, score in enumerate(curve, 1) if score >= best_plain), None)
    return dataclasses.replace(line, epoch_ratio=ratio, epochs_to_plain=reached)


def _teacher_line(row: TeacherRow, metric: str, shares: Mapping[str, float | None]) -> Line:
    # What a teacher of superclasses scores cannot stand beside scores on classes.
    ours = None if row.coarse else row.metrics.get(metric)
    return Line(row.name, "teacher", ours, shares.get(row.name), teacher=row)


def _arm_line(row: ArmRow, metric: str, shares: Mapping[str, float | None]) -> Line:
    kind = "ensemble" if row.kind == "ensemble" else "student"
    ours = row.metrics[metric].mean if metric in row.metrics else None
    return Line(row.name, kind, ours, shares.get(row.name), arm=row)


def _differences(lines: Sequence[Line], order: Sequence[str], arms: ArmReport) -> list[str]:
    """Say which pairs stand the other way round than in the paper, and whether that is noise."""
    pairs = _pairs({line.name: line for line in lines if line.ours is not None}, order)
    if not pairs:
        return ["the paper ranks no two of these rows."]
    gaps = [(a.ours or 0.0) - (b.ours or 0.0) for a, b in pairs]
    kept = [pair for pair, gap in zip(pairs, gaps, strict=True) if gap > 0]
    sure = sum(_surely(arms.compare(better.name, worse.name)) for better, worse in kept)
    turned = [_turned(*pair, arms) for pair, gap in zip(pairs, gaps, strict=True) if gap < 0]
    level = len(pairs) - len(kept) - len(turned)
    total = (
        f"of {len(pairs)} pairs that the paper ranks, {len(kept)} stand in its order here "
        f"({sure} of them beyond chance), {level} level and {len(turned)} the other way round."
    )
    return [total, *turned]


def _pairs(lines: Mapping[str, Line], order: Sequence[str]) -> list[tuple[Line, Line]]:
    """Return the pairs that the paper ranks, by its order or else by its numbers, better first."""
    if order:
        ranked = [lines[name] for name in order if name in lines]
        return list(itertools.combinations(ranked, 2))
    numbered = [
        (line.published, line)
        for line in lines.values()
        if line.published is not None and line.kind != "teacher"
    ]
    numbered.sort(key=lambda entry: -entry[0])
    return [(a, b) for (x, a), (y, b) in itertools.combinations(numbered, 2) if x > y]


def _surely(tested: Comparison | None) -> bool:
    return tested is not None and tested.verdict is Verdict.BEATS


def _turned(better: Line, worse: Line, arms: ArmReport) -> str:
    """Describe a pair of which the paper has ``better`` above ``worse`` and we do not."""
    tested = arms.compare(worse.name, better.name)
    if tested is None:
        judged = "not tested, because one of them is a teacher."
    elif _surely(tested):
        judged = "the difference is significant."
    else:
        judged = "ours is within chance."
    numbers = ""
    if better.published is not None and worse.published is not None:
        numbers = f" ({percent(better.published, 2)} against {percent(worse.published, 2)})"
    return (
        f"the paper has {better.name} above {worse.name}{numbers}, here it is below "
        f"({percent(better.ours, 2)} against {percent(worse.ours, 2)}); {judged}"
    )
