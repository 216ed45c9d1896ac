from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainables import confirm, student
from trainables.confirm import ConfirmSpec
from trainables.metrics import classification_metrics
from trainables.outputs import OutputsSpec
from trainables.student import StudentSpec
from trainables.teacher import TeacherSpec


def test_only_a_confirm_spec_can_name_a_test_split(world: Any) -> None:
    for kind in (StudentSpec, TeacherSpec):
        assert not [field.name for field in fields(kind) if "test" in field.name]
    assert "test" in {field.name for field in fields(ConfirmSpec)}
    assert not [field.name for field in fields(OutputsSpec) if "test" in field.name]
    text = str(world.student().to_dict())
    assert "'test'" not in text


def test_it_trains_predicts_and_stores(world: Any) -> None:
    spec = ConfirmSpec(world.student(seed=3), "test")
    reports = list(confirm.run(spec, world.store))
    assert [report["epoch"] for report in reports] == [1, 2]
    assert [report["finished"] for report in reports] == [False, True]
    assert "val_f1_macro" in reports[-1]
    stored = load_file(world.store.read("confirm", spec.key).file("predictions.safetensors"))
    expected = classification_metrics(stored["logits"], stored["targets"], "test_")
    summary = reports[-1]["summary"]
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    assert stored["ids"].tolist() == list(range(4000, 4045))
    assert summary["val_f1_macro"] == pytest.approx(
        world.store.read("student", spec.student.key).meta["metrics"]["val_f1_macro"]
    )


def test_a_stored_student_is_used_again(world: Any) -> None:
    spec = ConfirmSpec(world.student(), "test")
    list(student.run(spec.student, world.store))
    folder = world.store.path("student", spec.student.key)
    before = (folder / "manifest.json").stat().st_mtime_ns
    (report,) = confirm.run(spec, world.store)
    assert report["epoch"] == 2
    assert report["finished"] is True
    assert (folder / "manifest.json").stat().st_mtime_ns == before


def test_a_damaged_student_is_trained_again(world: Any) -> None:
    spec = ConfirmSpec(world.student(), "test")
    list(student.run(spec.student, world.store))
    dev = world.store.path("student", spec.student.key) / "dev.safetensors"
    dev.write_bytes(dev.read_bytes()[:-1])
    reports = list(confirm.run(spec, world.store))
    assert [report["epoch"] for report in reports] == [1, 2]
    assert world.store.read("student", spec.student.key)


def test_without_a_test_split_there_are_only_dev_metrics(world: Any) -> None:
    *_, last = confirm.run(ConfirmSpec(world.student(), None), world.store)
    assert not [name for name in last["summary"] if name.startswith("test_")]


def test_the_key_follows_seed_and_split(world: Any) -> None:
    spec = ConfirmSpec(world.student(), "test")
    assert ConfirmSpec.from_dict(spec.to_dict()).key == spec.key
    assert replace(spec, test=None).key != spec.key
    assert replace(spec, student=world.student(seed=1)).key != spec.key


def test_test_predictions_do_not_depend_on_the_batch(world: Any) -> None:
    spec = ConfirmSpec(world.student(), "test")
    list(confirm.run(spec, world.store))
    first = load_file(world.store.read("confirm", spec.key).file("predictions.safetensors"))
    world.store.delete("confirm", spec.key)
    list(confirm.run(spec, world.store))
    again = load_file(world.store.read("confirm", spec.key).file("predictions.safetensors"))
    assert torch.equal(first["logits"], again["logits"])
