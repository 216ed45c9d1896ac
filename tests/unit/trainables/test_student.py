from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainables import catalog, guidance, student
from trainables.checkpoint import Checkpoint
from trainables.errors import ArtifactMissing, DataError, TrialFailed
from trainables.loop import OptimizerSpec
from trainables.microbatch import Backward
from trainables.student import StudentSpec

ALL = {kind: catalog.names(kind) for kind in ("losses", "weightings", "hints")}
# What a component needs besides its name: values without a default.
PARAMETERS: dict[str, dict[str, Any]] = {
    "superclass": {"groups": [0, 1, 2]},
    "fixed": {"weights": [0.3, 0.7]},
}


def component(name: str) -> dict[str, Any]:
    return {"name": name, **PARAMETERS.get(name, {})}


def run(world: Any, spec: StudentSpec) -> list[dict[str, Any]]:
    return list(student.run(spec, world.store))


def weights(world: Any, spec: StudentSpec) -> dict[str, Tensor]:
    """Train the student anew and return its weights."""
    world.store.delete("student", spec.key)
    run(world, spec)
    return load_file(world.store.read("student", spec.key).file("model/model.safetensors"))


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def test_the_catalog_was_found() -> None:
    assert len(ALL["losses"]) >= 12
    assert len(ALL["weightings"]) >= 11
    assert len(ALL["hints"]) >= 5


@pytest.mark.parametrize("name", ALL["losses"])
def test_every_loss_trains(world: Any, name: str) -> None:
    (report,) = run(world, world.student(epochs=1, loss=component(name)))
    assert report["train_kd"] == report["train_kd"]
    assert report["train_loss"] == pytest.approx(report["train_ce"] + report["train_kd"], rel=1e-4)


@pytest.mark.parametrize("name", ALL["weightings"])
def test_every_weighting_trains(world: Any, name: str) -> None:
    first, second = run(world, world.student(weighting=component(name)))
    assert 0 < first["train_weight_mass"] <= 1 + 1e-6
    assert second["val_f1_macro"] >= 0


@pytest.mark.parametrize("name", ALL["hints"])
def test_every_hint_trains(world: Any, name: str) -> None:
    spec = world.student(epochs=1, hint=component(name), beta=0.5)
    (report,) = run(world, spec)
    assert report["train_hint"] > 0
    saved = world.store.read("student", spec.key).file("model/model.safetensors")
    # Projections belong to training; the student that is shipped has none.
    assert not [key for key in load_file(saved) if "projection" in key]


def test_the_policy_hears_of_every_step(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = catalog.load("weightings", "reinforced")
    heard: Counter[str] = Counter()
    feedback = kind.feedback

    def listen(self: Any, logits: Tensor, *others: Tensor) -> None:
        heard["training" if logits.requires_grad else "evaluated"] += 1
        feedback(self, logits, *others)

    monkeypatch.setattr(kind, "feedback", listen)
    spec = world.student(weighting={"name": "reinforced", "warmup": 0.5})
    reports = run(world, spec)
    assert heard == {"evaluated": 2 * 6}  # 90 rows in batches of 16, two epochs
    assert "selection_rate_0" not in reports[0]
    assert 0 <= reports[1]["selection_rate_0"] <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"transfer": "transfer", "rows_per_epoch": 120},
        {"weighting": {"name": "switch"}},
        {
            "weighting": {"name": "reinforced", "warmup": 0.0},
            "hint": {"name": "fitnets"},
            "beta": 1,
        },
    ],
    ids=["average", "transfer", "switch", "reinforced-fitnets"],
)
def test_the_same_spec_gives_the_same_weights_also_after_a_crash(
    world: Any, changes: dict[str, Any]
) -> None:
    spec = world.student(epochs=3, **changes)
    before = weights(world, spec)
    torch.manual_seed(123)
    assert same(before, weights(world, spec))
    world.store.delete("student", spec.key)
    checkpoint = Checkpoint(world.store.root, spec.key)
    for _ in range(2):
        next(student.run(spec, world.store, checkpoint))
    *_, last = student.run(spec, world.store, checkpoint)
    assert last["epoch"] == 3
    after = load_file(world.store.read("student", spec.key).file("model/model.safetensors"))
    assert same(before, after)
    assert not same(before, weights(world, replace(spec, seed=1)))


def test_alpha_zero_is_the_plain_student(world: Any) -> None:
    plain = world.student(teachers=())
    assert world.student(alpha=0.0).key == plain.key
    assert world.student(alpha=0.0, loss={"name": "dkd"}, transfer="transfer").key == plain.key
    assert world.student(alpha=0.0, hint={"name": "l2"}, beta=0.0).key == plain.key
    assert world.student(alpha=0.0, hint={"name": "l2"}, beta=0.1).key != plain.key
    assert world.student().key != plain.key
    assert same(weights(world, world.student(alpha=0.0)), weights(world, plain))


@pytest.mark.parametrize("name", ALL["weightings"])
@pytest.mark.parametrize("loss", ["kd", "mse_logits"])
def test_one_teacher_makes_the_weighting_irrelevant(world: Any, name: str, loss: str) -> None:
    base = world.student(teachers=world.teachers[:1], loss={"name": loss})
    spec = replace(base, weighting=component(name))
    assert spec.key == base.key
    assert same(weights(world, spec), weights(world, base))


def test_one_teacher_and_any_weighting_can_use_unlabelled_rows(world: Any) -> None:
    spec = world.student(
        teachers=world.teachers[:1], weighting={"name": "confidence"}, transfer="transfer"
    )
    assert run(world, spec)[-1]["finished"] is True


def test_without_a_loss_the_loss_is_irrelevant(world: Any) -> None:
    base = world.student(alpha=0.0, hint={"name": "l2"}, beta=1.0)
    other = replace(base, loss={"name": "dist"})
    assert base.key == other.key
    assert same(weights(world, base), weights(world, other))


def test_names_are_irrelevant_but_order_and_outputs_are_not(world: Any) -> None:
    base = world.student()
    renamed = tuple(replace(teacher, name=f"x{teacher.name}") for teacher in world.teachers)
    assert world.student(teachers=renamed).key == base.key
    assert world.student(teachers=world.teachers[::-1]).key != base.key
    assert StudentSpec.from_dict(base.to_dict()).key == base.key


def test_the_plain_student_never_opens_outputs(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("outputs were opened")

    monkeypatch.setattr(guidance, "load_outputs", refuse)
    run(world, world.student(alpha=0.0))
    with pytest.raises(AssertionError, match="outputs were opened"):
        run(world, world.student())


@pytest.mark.parametrize("rows", [50, 90, 200])
def test_rows_per_epoch_sets_the_number_of_steps(
    world: Any, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    whole = Backward.__call__

    def watch(self: Backward, index: Tensor, clear: Any) -> Any:
        seen.append(index)
        return whole(self, index, clear)

    monkeypatch.setattr(Backward, "__call__", watch)
    run(world, world.student(teachers=(), epochs=1, rows_per_epoch=rows))
    drawn = Counter(torch.cat(seen).tolist())
    assert drawn.total() == rows
    assert max(drawn.values()) - min(drawn.get(row, 0) for row in range(90)) <= 1
    assert len(seen) == -(-rows // 16)


def test_transfer_rows_are_read_by_students_with_teachers_only(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    original = student.open_encoded

    def watch(store: Any, key: str) -> Any:
        opened.append(key)
        return original(store, key)

    monkeypatch.setattr(student, "open_encoded", watch)
    run(world, world.student(epochs=1, transfer="transfer", alpha=0.0))
    assert "transfer" not in opened
    run(world, world.student(epochs=1, transfer="transfer"))
    assert "transfer" in opened


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {"name": "nkd"}},
        {"weighting": {"name": "confidence"}},
        {"hint": {"name": "ca_mkd"}, "beta": 1.0},
    ],
)
def test_components_that_need_labels_refuse_unlabelled_rows(
    world: Any, changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="cannot use rows without a label"):
        run(world, world.student(transfer="transfer", **changes))


def test_features_of_two_splits_are_lined_up(world: Any) -> None:
    from trainables.encoded import concatenate
    from trainables.evaluation import open_encoded
    from trainables.guidance import Guidance
    from trainables.outputs import load_outputs

    both = concatenate([open_encoded(world.store, split) for split in ("train", "transfer")])
    rows = both.subset(torch.randperm(len(both), generator=torch.Generator().manual_seed(0)))
    teachers = [(teacher.name, teacher.outputs) for teacher in world.teachers]
    guide = Guidance(world.store, teachers, rows, ["train", "transfer"])
    hint = catalog.build("hints", "l2")
    guide.prepare(hint, 5)
    index = torch.tensor([3, 149, 0, 77])
    found = guide.features(index, torch.device("cpu"))
    assert found is not None
    assert [tuple(part.shape) for part in found] == [(4, 16), (4, 8)]
    for k, teacher in enumerate(world.teachers):
        parts = [load_outputs(world.store, key) for key in teacher.outputs[0].values()]
        named = {
            int(example): (part.logits[i], part.features[i])
            for part in parts
            if part.features is not None
            for i, example in enumerate(part.ids)
        }
        for place, example in enumerate(rows.ids[index].tolist()):
            logits, features = named[example]
            assert torch.equal(guide.logits(index)[k, place], logits)
            assert torch.equal(found[k][place], features.float())


def test_outputs_that_do_not_cover_the_rows_are_refused(world: Any) -> None:
    first = world.teachers[0]
    wrong = replace(first, outputs=[{"train": first.outputs[0]["dev"]}])
    with pytest.raises(DataError, match="90 of 90 examples have no cached outputs from teacher"):
        run(world, world.student(teachers=(wrong,)))


def test_missing_outputs_are_named(world: Any) -> None:
    world.store.delete("outputs", world.teachers[0].outputs[0]["train"])
    with pytest.raises(ArtifactMissing, match="no outputs"):
        run(world, world.student())


def test_a_schedule_needs_the_outputs_of_its_anchors(world: Any) -> None:
    schedule = {"name": "rco", "anchors": [0.5, 1.0]}
    with pytest.raises(TrialFailed, match="has 2 anchors, but teacher 'small' has outputs of 1"):
        run(world, world.student(schedule=schedule))
    early = tuple(
        replace(teacher, outputs=[other.outputs[0], teacher.outputs[0]])
        for teacher, other in zip(world.teachers, world.teachers[::-1], strict=True)
    )
    spec = world.student(schedule=schedule, teachers=early, epochs=2)
    assert len(run(world, spec)) == 2


def test_a_frozen_embedding_stays_and_is_counted_apart(world: Any) -> None:
    table = torch.randn(world.student().vocab_size, 6)
    table[0] = 0
    with world.store.write("embedding", "table") as draft:
        save_file({"table": table}, draft.path / "embedding.safetensors")
    spec = world.student(embedding="table", freeze_embedding=True, epochs=2)
    checkpoint = Checkpoint(world.store.root, spec.key)
    next(student.run(spec, world.store, checkpoint))
    saved = checkpoint.load()
    assert saved is not None
    assert not [value for value in saved["weights"].values() if value.shape == table.shape]
    *_, last = student.run(spec, world.store, checkpoint)
    trained = load_file(world.store.read("student", spec.key).file("model/model.safetensors"))
    assert any(torch.equal(value, table) for value in trained.values())
    frozen = last["summary"]["parameters"] - last["summary"]["parameters_trainable"]
    assert frozen == table.numel()
    assert not same(trained, weights(world, replace(spec, freeze_embedding=False)))


def test_memory_that_runs_out_gives_nearly_the_same_student(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout off: smaller pieces draw other numbers, everything else is the same."""
    spec = world.student(
        epochs=1,
        model={**world.student().model, "dropout": 0.0},
        transfer="transfer",
        loss={"name": "dist"},
        optimizer=OptimizerSpec(name="sgd", lr=0.1),
    )
    before = weights(world, spec)
    kind = catalog.load("models", "textcnn")
    forward = kind.forward

    def cramped(self: Any, input_ids: Tensor, mask: Tensor) -> Any:
        if torch.is_grad_enabled() and len(input_ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")
        return forward(self, input_ids, mask)

    monkeypatch.setattr(kind, "forward", cramped)
    after = weights(world, spec)
    recorded = world.store.read("student", spec.key).meta["metrics"]
    assert recorded["micro_batches"] == 4.0
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-5)


class Alone:
    """A user's weighting that defines nothing but what it does."""

    def __call__(self, student_logits: Tensor, teachers: Tensor, targets: Tensor) -> Tensor:
        del student_logits, targets
        return torch.full(teachers.shape[:2], 1 / len(teachers))


def test_a_weighting_of_the_user_needs_no_hooks(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "load", _with(Alone))
    reports = run(world, world.student(weighting={"name": "mine:Alone"}))
    assert reports[-1]["train_weight_mass"] == pytest.approx(1.0)


def _with(kind: type[Any]) -> Any:
    load = catalog.load
    return lambda what, name: kind if name == "mine:Alone" else load(what, name)
