from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainables import outputs
from trainables.errors import DataError, TrialFailed
from trainables.evaluation import Predictor, open_encoded
from trainables.models._io import load_model
from trainables.outputs import OutputsSpec, load_outputs, positions


def spec(teacher: str, encoded: str = "train", **changes: Any) -> OutputsSpec:
    return OutputsSpec(teacher, "small", "train", encoded, **{"precision": "fp32", **changes})


def live(world: Any, teacher: str, split: str) -> tuple[Tensor, Tensor]:
    """Every row alone, without padding: what the teacher says when it is asked directly."""
    model = load_model(world.store.read("teacher", teacher).file("model"))
    rows = open_encoded(world.store, split)
    logits, features = Predictor(rows, device=torch.device("cpu"), batch_size=1)(
        model, features=True
    )
    assert features is not None
    return logits, features


@pytest.mark.parametrize("split", ["train", "dev", "transfer"])
def test_cached_equals_live(world: Any, split: str) -> None:
    teacher = world.teachers[0]
    cached = load_outputs(world.store, teacher.outputs[0][split])
    logits, features = live(world, teacher.key, split)
    torch.testing.assert_close(cached.logits, logits, rtol=1e-5, atol=1e-5)
    assert cached.logits.dtype == torch.float32
    assert cached.features is not None
    assert cached.features.dtype == torch.float16
    torch.testing.assert_close(cached.features.float(), features, rtol=2e-3, atol=2e-3)
    assert torch.equal(cached.ids, open_encoded(world.store, split).ids)


def test_the_head_turns_features_into_logits(world: Any) -> None:
    cached = load_outputs(world.store, world.teachers[0].outputs[0]["dev"])
    assert cached.head is not None
    assert cached.features is not None
    weight, bias = cached.head
    again = cached.features.float() @ weight.T + bias
    torch.testing.assert_close(again, cached.logits, rtol=1e-2, atol=1e-2)


def test_the_report_and_the_manifest(world: Any) -> None:
    new = OutputsSpec(world.teachers[0].key, "small", "dev", "dev", False, "fp32")
    (report,) = outputs.run(new, world.store)
    assert report["finished"] is True
    assert report["summary"]["rows"] == 45
    assert report["summary"]["cache_drift"] < 1e-4
    assert report["summary"]["val_f1_macro"] == pytest.approx(world.teachers[0].score)
    artifact = world.store.read("outputs", new.key)
    assert artifact.meta["teacher"] == world.teachers[0].key
    stored = load_outputs(world.store, new.key)
    assert stored.features is None
    assert stored.head is None


def test_unlabelled_rows_have_no_metrics(world: Any) -> None:
    new = OutputsSpec(world.teachers[0].key, "small", "transfer", "transfer", False, "fp32")
    (report,) = outputs.run(new, world.store)
    assert set(report["summary"]) == {"rows", "cache_drift", "train_seconds"}


def test_bf16_is_close_and_still_stored_as_fp32(world: Any) -> None:
    new = spec(world.teachers[0].key, precision="bf16")
    (report,) = outputs.run(new, world.store)
    assert 0 < report["summary"]["cache_drift"] < 0.15
    assert load_outputs(world.store, new.key).logits.dtype == torch.float32


def test_names_and_splits_are_not_in_the_key(world: Any) -> None:
    first = OutputsSpec("key", "a", "train", "rows")
    assert first.key == OutputsSpec("key", "b", "dev", "rows").key
    assert first.key != OutputsSpec("other", "a", "train", "rows").key
    assert first.key != OutputsSpec("key", "a", "train", "rows", True).key
    assert OutputsSpec.from_dict(dict(vars(first))) == first


def test_a_model_that_answers_otherwise_in_batches_is_refused(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one with dropout left on, or whose padding leaks into the answer."""
    original = load_model

    def leaky(folder: Any) -> nn.Module:
        model = original(folder)
        forward = model.forward

        def with_leak(input_ids: Tensor, mask: Tensor) -> Any:
            output = forward(input_ids, mask)
            return output._replace(logits=output.logits + (len(input_ids) > 1))

        model.forward = with_leak  # type: ignore[method-assign]
        return model

    monkeypatch.setattr(outputs, "load_model", leaky)
    new = spec(world.teachers[0].key)
    with pytest.raises(TrialFailed, match=r"cached and live logits differ by .* precision to fp32"):
        list(outputs.run(new, world.store))
    assert not world.store.exists("outputs", new.key)


def test_rows_are_matched_by_id() -> None:
    available = torch.tensor([40, 10, 30, 20])
    assert positions(torch.tensor([10, 20, 30]), available, "x").tolist() == [1, 3, 2]
    assert positions(available, available, "x").tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("wanted", [[10, 25], [5], [99], [40, 10, 30, 20, 21]])
def test_a_missing_id_is_an_error(wanted: list[int]) -> None:
    with pytest.raises(
        DataError, match=r"1 of \d examples have no cached outputs from teacher 'a'"
    ):
        positions(torch.tensor(wanted), torch.tensor([40, 10, 30, 20]), "teacher 'a'")


def test_a_shuffled_split_gets_the_same_logits(world: Any, write_split: Callable[..., str]) -> None:
    write_split(world.store, "shuffled", "train", shuffled=True)
    teacher = world.teachers[0]
    new = spec(teacher.key, "shuffled")
    list(outputs.run(new, world.store))
    shuffled = load_outputs(world.store, new.key)
    straight = load_outputs(world.store, teacher.outputs[0]["train"])
    assert not torch.equal(shuffled.ids, straight.ids)
    order = positions(straight.ids, shuffled.ids, "teacher")
    torch.testing.assert_close(shuffled.logits[order], straight.logits, rtol=1e-5, atol=1e-5)


def test_memory_that_runs_out_halves_the_evaluation_batch(world: Any) -> None:
    model = load_model(world.store.read("teacher", world.teachers[0].key).file("model"))
    rows = open_encoded(world.store, "dev")
    expected, _ = Predictor(rows, device=torch.device("cpu"))(model)
    forward = model.forward

    def cramped(input_ids: Tensor, mask: Tensor) -> Any:
        if len(input_ids) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")
        return forward(input_ids, mask)

    model.forward = cramped  # type: ignore[method-assign]
    logits, _ = Predictor(rows, device=torch.device("cpu"))(model)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
