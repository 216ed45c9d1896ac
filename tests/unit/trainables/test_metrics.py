import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss

from trainables import metrics

CASES = {
    "all classes": (torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), 4),
    "class never predicted": (torch.tensor([[3.0, 1, 0], [3, 2, 0], [0, 4, 1], [9, 1, 2]]), 3),
    "two classes": (torch.randn(50, 2, generator=torch.Generator().manual_seed(1)), 2),
    "one row": (torch.tensor([[0.0, 1.0, 0.5]]), 3),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("present", ["all", "one class absent", "single class"])
@pytest.mark.filterwarnings("ignore:A single label")
def test_agrees_with_scikit_learn(case: str, present: str) -> None:
    logits, classes = CASES[case]
    targets = torch.arange(len(logits)) % classes
    if present == "one class absent":
        targets = targets.clamp(max=classes - 2)
    elif present == "single class":
        targets = torch.zeros_like(targets)
    result = metrics.classification_metrics(logits, targets, "val_")
    predicted = logits.argmax(1)
    expected = {
        "val_accuracy": accuracy_score(targets, predicted),
        "val_loss": log_loss(targets, logits.double().softmax(1), labels=list(range(classes))),
    }
    for average in ("macro", "micro", "weighted"):
        expected[f"val_f1_{average}"] = f1_score(
            targets, predicted, average=average, zero_division=0.0
        )
    assert result == pytest.approx(expected, abs=1e-6)


def test_confusion_matrix_has_targets_as_rows() -> None:
    targets, predictions = torch.tensor([0, 0, 2, 1]), torch.tensor([0, 1, 1, 1])
    counted = metrics.confusion_matrix(predictions, targets, 4)
    assert counted.tolist() == confusion_matrix(targets, predictions, labels=[0, 1, 2, 3]).tolist()


def test_values_by_hand() -> None:
    # Class 0: 1 of 2 found, 1 of 1 right: 2/3. Class 1: 1 of 1 found, 1 of 2 right: 2/3.
    logits = torch.tensor([[1.0, 0], [0, 1], [0, 1]])
    result = metrics.classification_metrics(logits, torch.tensor([0, 0, 1]))
    assert result["f1_macro"] == pytest.approx(2 / 3)
    assert result["accuracy"] == pytest.approx(2 / 3)


def test_no_rows_is_zero() -> None:
    assert metrics.f1_scores(torch.zeros(3, 3, dtype=torch.int64)) == {
        "f1_macro": 0.0,
        "f1_micro": 0.0,
        "f1_weighted": 0.0,
    }
