from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainables import confirm, ensemble, outputs
from trainables.confirm import ConfirmSpec
from trainables.ensemble import COMBINERS, EnsembleSpec, diversity, fit_combiner
from trainables.errors import DataError
from trainables.outputs import OutputsSpec, load_outputs
from trainables.student import StudentSpec

LOGITS = torch.randn(3, 40, 4, generator=torch.Generator().manual_seed(0))
TARGETS = LOGITS.sum(0).argmax(1)


@pytest.fixture
def members(world: Any) -> list[ConfirmSpec]:
    """Three confirmed students of different architectures."""
    models = (
        {"name": "textcnn", "filters": 4, "kernels": [1, 2], "embedding_dim": 8},
        {"name": "bilstm", "hidden": 6, "embedding_dim": 8},
        {"name": "linear", "embedding_dim": 8},
    )
    specs = [ConfirmSpec(world.student(model=model, teachers=[]), "test") for model in models]
    for spec in specs:
        list(confirm.run(spec, world.store))
    return specs


@pytest.mark.parametrize("name", COMBINERS)
class TestEveryCombiner:
    def test_the_order_of_the_members_does_not_matter(self, name: str) -> None:
        answer = fit_combiner(name, LOGITS, TARGETS)(LOGITS)
        moved = LOGITS[[2, 0, 1]]
        again = fit_combiner(name, moved, TARGETS)(moved)
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if name == "stacking" else {}
        torch.testing.assert_close(again, answer, **tolerance)

    def test_extreme_logits_stay_finite(self, name: str) -> None:
        answer = fit_combiner(name, LOGITS, TARGETS)(torch.sign(LOGITS) * 1e4)
        assert bool(torch.isfinite(answer).all())


@pytest.mark.parametrize("name", ["soft_vote", "logit_mean", "dev_weighted"])
def test_an_ensemble_of_one_is_its_member(name: str) -> None:
    alone = LOGITS[:1]
    answer = fit_combiner(name, alone, TARGETS)(alone)
    torch.testing.assert_close(torch.softmax(answer, 1), torch.softmax(alone[0], 1))


def test_weights_follow_accuracy_and_sum_to_one() -> None:
    good, bad = torch.eye(4)[TARGETS] * 5, torch.eye(4)[(TARGETS + 1) % 4] * 5
    combiner = fit_combiner("dev_weighted", torch.stack([good, bad]), TARGETS)
    weights = getattr(combiner, "weights")  # noqa: B009
    assert weights.sum().item() == pytest.approx(1)
    assert weights[0] > 0.99


def test_stacking_knows_only_the_classes_of_dev() -> None:
    targets = TARGETS.clamp(max=2)
    answer = fit_combiner("stacking", LOGITS, targets)(LOGITS)
    assert answer.shape == (40, 4)
    assert int(answer.argmax(1).max()) <= 2


def test_an_unknown_combiner_is_named() -> None:
    with pytest.raises(ValueError, match="soft_vote, logit_mean, dev_weighted, stacking"):
        fit_combiner("majority", LOGITS, TARGETS)


def test_diversity_by_hand() -> None:
    votes = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0]])  # two members, four rows
    found = diversity(torch.nn.functional.one_hot(votes).float(), torch.tensor([0, 1, 1, 1]), "")
    assert found["disagreement"] == 0.25
    assert found["oracle_accuracy"] == 0.75
    assert found["member_accuracy"] == 0.625


def test_it_is_stored_with_dev_and_test(world: Any, members: list[ConfirmSpec]) -> None:
    spec = EnsembleSpec([member.key for member in members])
    assert spec.key == EnsembleSpec([member.key for member in reversed(members)]).key
    assert EnsembleSpec.from_dict(spec.to_dict()).key == spec.key
    (report,) = ensemble.run(spec, world.store)
    summary = report["summary"]
    stored = world.store.read("ensemble", spec.key)
    singles = [
        load_file(world.store.read("confirm", m.key).file("predictions.safetensors"))["logits"]
        for m in members
    ]
    mean = torch.stack([torch.softmax(logits, 1) for logits in singles]).mean(0)
    found = load_file(stored.file("predictions.safetensors"))
    torch.testing.assert_close(found["logits"].exp(), mean)
    accuracy = (mean.argmax(1) == found["targets"]).double().mean().item()
    assert summary["test_accuracy"] == pytest.approx(accuracy)
    assert summary["members"] == 3
    assert 0 <= summary["test_disagreement"] <= 1
    assert summary["test_oracle_accuracy"] >= summary["test_member_accuracy"]
    total = sum(
        world.store.read("student", m.student.key).meta["metrics"]["parameters"] for m in members
    )
    assert summary["parameters"] == total


def test_a_shared_frozen_embedding_counts_once(world: Any) -> None:
    with world.store.write("embedding", "table") as draft:
        size = world.student().vocab_size
        save_file({"table": torch.randn(size, 8)}, draft.path / "embedding.safetensors")
        draft.meta.update(vocab_size=size, dim=8)

    def keys(frozen: bool) -> list[str]:
        specs = []
        for seed in (0, 1):
            model = {"name": "linear"}
            student = replace(
                world.student(model=model, teachers=[], epochs=1),
                embedding="table",
                freeze_embedding=frozen,
                seed=seed,
            )
            specs.append(ConfirmSpec(student, "test"))
            list(confirm.run(specs[-1], world.store))
        return [spec.key for spec in specs]

    counts = {}
    for frozen in (True, False):
        (report,) = ensemble.run(EnsembleSpec(keys(frozen)), world.store)
        counts[frozen] = report["summary"]["parameters"]
    assert counts[False] - counts[True] == world.student().vocab_size * 8


def test_members_of_different_rows_are_refused(world: Any, members: list[ConfirmSpec]) -> None:
    other = ConfirmSpec(members[0].student, "dev")
    list(confirm.run(other, world.store))
    with pytest.raises(DataError, match="judged on different rows"):
        list(ensemble.run(EnsembleSpec([members[1].key, other.key]), world.store))


def test_it_can_teach_one_student_again(world: Any, members: list[ConfirmSpec]) -> None:
    keys = [m.student.key for m in members if isinstance(m.student, StudentSpec)]
    spec = OutputsSpec("ensemble", "triple", "train", "train", members=keys, precision="fp32")
    (report,) = outputs.run(spec, world.store)
    assert report["summary"]["train_accuracy"] > 0
    cached = load_outputs(world.store, spec.key)
    torch.testing.assert_close(cached.logits.exp().sum(1), torch.ones(90))
    assert spec.key != replace(spec, members=keys[:2]).key
