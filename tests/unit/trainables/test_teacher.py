import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from trainables import teacher
from trainables.checkpoint import Checkpoint
from trainables.errors import DataError
from trainables.models._io import load_model
from trainables.teacher import TeacherSpec
from trainables.testing import tiny_encoder

MakeTeacher = Callable[..., TeacherSpec]


def weights(world: Any, key: str) -> dict[str, torch.Tensor]:
    return load_file(world.store.read("teacher", key).file("model/model.safetensors"))


def test_it_learns_and_is_stored(world: Any, make_teacher: MakeTeacher) -> None:
    spec = make_teacher("small")
    artifact = world.store.read("teacher", spec.key)
    metrics = artifact.meta["metrics"]
    assert metrics["val_f1_macro"] > 0.6
    assert len(artifact.meta["history"]) == spec.epochs
    assert metrics["parameters"] == sum(
        parameter.numel() for parameter in load_model(artifact.file("model")).parameters()
    )
    predictions = load_file(artifact.file("dev.safetensors"))
    accuracy = (predictions["logits"].argmax(1) == predictions["targets"]).double().mean()
    assert float(accuracy) == pytest.approx(metrics["val_accuracy"])


def test_the_same_spec_gives_the_same_weights(world: Any, make_teacher: MakeTeacher) -> None:
    spec = make_teacher("tiny")
    before = weights(world, spec.key)
    world.store.delete("teacher", spec.key)
    torch.manual_seed(77)
    list(teacher.run(spec, world.store))
    after = weights(world, spec.key)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_it_continues_after_a_crash(world: Any, make_teacher: MakeTeacher) -> None:
    spec = make_teacher("tiny")
    before = weights(world, spec.key)
    world.store.delete("teacher", spec.key)
    checkpoint = Checkpoint(world.store.root, spec.key)
    next(teacher.run(spec, world.store, checkpoint))
    rest = list(teacher.run(spec, world.store, checkpoint))
    assert [report["epoch"] for report in rest] == [2, 3]
    after = weights(world, spec.key)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert checkpoint.load() is None


def test_what_is_in_the_key(make_teacher: MakeTeacher) -> None:
    spec = make_teacher("small")
    assert TeacherSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).key == spec.key
    moved = {**spec.model, "checkpoint": "/elsewhere"}
    assert make_teacher("small", name="renamed", model=moved).key == spec.key
    for change in ({"seed": 1}, {"rows": 10}, {"checkpoint_digest": "x"}, {"train": "y"}):
        assert make_teacher("small", **change).key != spec.key


def test_fewer_rows_make_a_weaker_teacher(world: Any, make_teacher: MakeTeacher) -> None:
    *_, last = teacher.run(make_teacher("small", rows=6, epochs=1), world.store)
    assert last["samples_per_second"] * last["train_seconds"] == pytest.approx(6)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_pretrained_encoder_with_frozen_layers(
    world: Any, make_teacher: MakeTeacher, tmp_path: Path, kind: str
) -> None:
    folder = tiny_encoder(tmp_path / "encoder", kind=kind)
    original = load_file(folder / "model.safetensors")
    spec = make_teacher(
        "bert",
        model={"name": "bert", "checkpoint": str(folder)},
        checkpoint_digest="digest",
        freeze_layers=1,
        epochs=1,
    )
    list(teacher.run(spec, world.store))
    trained = weights(world, spec.key)
    moved = {
        name: not torch.equal(value, trained[f"encoder.{name}"])
        for name, value in original.items()
        if f"encoder.{name}" in trained
    }
    assert not any(value for name, value in moved.items() if "embeddings" in name)
    assert not any(value for name, value in moved.items() if "layer.0." in name)
    assert any(value for name, value in moved.items() if "layer.1." in name)


def test_only_encoders_have_layers_to_freeze(world: Any, make_teacher: MakeTeacher) -> None:
    with pytest.raises(DataError, match=r"'small' cannot freeze layers.* set freeze_layers to 0"):
        list(teacher.run(make_teacher("small", freeze_layers=1), world.store))
