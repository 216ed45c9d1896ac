"""What a sweep decides by itself: which teachers are good enough, and what a start remembers."""

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import PreflightError
from orchestrator.gate import pass_gate
from orchestrator.home import Home
from orchestrator.ledger import Proposal
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.schema import SweepConfig
from orchestrator.state import SweepState
from orchestrator.sweep import Options, Sweep
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import Event, Notice
from trainables.errors import StoreError


class Gate:
    """Asks a sweep which of its teachers, ``big`` and ``weak``, are worth learning from."""

    def __init__(self, config: SweepConfig, materials: Any, folder: Path) -> None:
        self.events: list[Event] = []
        self.materials = materials
        self.bus = EventBus([self.events.append])

    def __call__(self, *accuracies: float | None) -> dict[str, float]:
        records = {}
        for teacher, accuracy in zip(self.materials.teachers, accuracies, strict=True):
            record = TrialRecord(
                Stage.TEACHERS,
                teacher.spec.key,
                TrialState.FAILED if accuracy is None else TrialState.COMPLETE,
                teacher.config.name,
                metrics={} if accuracy is None else {"val_accuracy": accuracy, "val_f1_macro": 0.6},
                error="out of memory\n\nTraceback" if accuracy is None else None,
            )
            records[record.key] = record
        return self.ask(records)

    def ask(self, records: dict[str, TrialRecord]) -> dict[str, float]:
        return pass_gate(self.materials, records, self.bus.notice)

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]


@pytest.fixture
def gate(config: SweepConfig, make_materials: Any, tmp_path: Path) -> Gate:
    return Gate(config, make_materials(config), tmp_path)


def test_teachers_above_the_floor_pass_without_a_word(gate: Gate) -> None:
    assert gate(0.9, 0.6) == {"big": 0.6, "weak": 0.6}
    assert gate.warnings == []


def test_a_teacher_no_better_than_the_biggest_class_is_excluded(gate: Gate) -> None:
    assert gate(0.9, 0.41) == {"big": 0.6}
    (warning,) = gate.warnings
    assert "teachers.weak: reaches 0.410 accuracy on dev, no better than always" in warning
    assert "biggest class (0.400)" in warning


def test_a_teacher_below_tfidf_is_kept_with_a_warning(gate: Gate) -> None:
    assert gate(0.9, 0.45).keys() == {"big", "weak"}
    (warning,) = gate.warnings
    assert "teacher weak (0.450 accuracy on dev) is below the TF-IDF floor (0.500)" in warning


def test_without_a_useful_teacher_the_sweep_ends_with_every_reason(gate: Gate) -> None:
    with pytest.raises(PreflightError) as caught:
        gate(None, 0.3)
    first, second = map(str, caught.value.problems)
    assert first.startswith("teachers.big: failed: out of memory; raise its epochs or lr")
    assert second.startswith("teachers.weak: reaches 0.300 accuracy on dev")
    assert caught.value.exit_code == 3


def test_a_start_remembers_the_studies_of_the_same_search(
    config: SweepConfig, make_config: Any, make_materials: Any, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    studies = {"students": "news/students/1"}

    def describe(config: SweepConfig) -> dict[str, Any]:
        SweepState(config, home).begin(make_materials(config))
        found: dict[str, Any] = home.read_state("news")["studies"]
        return found

    assert describe(config) == {}
    home.write_state("news", {**home.read_state("news"), "studies": studies})
    assert describe(config) == studies
    more = config.model_copy(update={"search": config.search.model_copy(update={"trials": 9})})
    assert describe(more) == studies
    assert describe(make_config(seed=5)) == {}


def test_the_sweep_ends_where_it_is_told_to_before_anything_is_spent(
    config: SweepConfig, tmp_path: Path
) -> None:
    events: list[Event] = []
    sweep = Sweep(config, Home(tmp_path), EventBus([events.append]), Options(cpus=1))
    sweep.config = config.model_copy(
        update={
            "resources": config.resources.model_copy(
                update={"student": config.resources.student.model_copy(update={"cpu": 9.0})}
            )
        }
    )
    with pytest.raises(PreflightError, match="9 CPUs are asked for"):
        sweep.run()
    assert events == []
    assert not list(tmp_path.iterdir())


def test_a_record_of_another_trial_is_not_taken_for_a_teacher(gate: Gate) -> None:
    materials = gate.materials
    stranger = replace(materials.teachers[0].spec, seed=99)
    record = TrialRecord(Stage.TEACHERS, stranger.key, TrialState.COMPLETE, "big")
    with pytest.raises(PreflightError, match="was not trained"):
        gate.ask({record.key: record})


def test_a_full_disk_under_sweep_json_is_a_sentence(
    config: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    home = Home(tmp_path / "home")
    monkeypatch.setattr(home, "write_state", full)
    state = SweepState(config, home)
    with pytest.raises(StoreError, match=r"cannot write sweep.json in .*home: No space left") as e:
        state.add_study("students", "news/students/1")
    assert "start the same command again" in str(e.value)


def test_damaged_teachers_and_outputs_are_set_aside_before_they_are_used(
    config: SweepConfig, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    proposals = [
        Proposal(kind, letter * 64, "big", {}) for kind in ("teacher", "outputs") for letter in "ab"
    ]
    for proposal in proposals[:3]:
        with home.store.write(proposal.task, proposal.key) as draft:
            (draft.path / "file").write_bytes(b"0" * 100)
    (home.store.path("outputs", "a" * 64) / "file").write_bytes(b"0" * 99 + b"1")
    heard: list[Event] = []
    sweep = Sweep(config, home, EventBus([heard.append]), Options())
    sweep._set_damaged_aside(proposals)
    (notice,) = [event for event in heard if isinstance(event, Notice)]
    assert "outputs aaaaaaaaaaaa" in notice.text
    assert "has another checksum" in notice.text
    assert [home.store.exists(p.task, p.key) for p in proposals] == [True, True, False, False]
